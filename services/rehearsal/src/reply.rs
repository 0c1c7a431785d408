//! An answer in the words of neither API: what the model says, which tools it calls, what it counts.

use serde_json::{Map, Value};

use crate::conversation::{Api, Request};
use crate::digest::Digest;
use crate::scenario::file::{ReplyFile, StopFile, UsageFile};
use crate::scenario::template::{self, Vars};
use crate::tokens;

/// What every answer's model name begins with.
pub const MODEL_PREFIX: &str = "rehearsal/";

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Reply {
    /// The model that was asked for, with `rehearsal/` before it.
    pub(crate) model: String,
    /// What the model thought, said and called, in this order.
    pub(crate) blocks: Vec<Block>,
    /// Why it ended.
    pub(crate) stop: Stop,
    /// What it counts. Nothing when the scenario leaves it out on purpose.
    pub(crate) usage: Option<Usage>,
    /// The digest that its ids derive from.
    pub(crate) digest: Digest,
}

/// One piece of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Block {
    /// Thought, told by the Messages API only.
    Thinking(String),
    /// Said.
    Text(String),
    /// A tool called.
    Call(Call),
}

/// A tool call of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// The tool.
    pub(crate) name: String,
    /// Its arguments.
    pub(crate) arguments: Map<String, Value>,
    seed: Digest,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// All was said.
    EndTurn,
    /// Tools were called.
    ToolUse,
    /// The most output tokens wanted were reached.
    MaxTokens,
    /// The model would not answer.
    Refusal,
}

/// What an answer counts, in tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Input that no cache had.
    pub(crate) input: u32,
    /// Output.
    pub(crate) output: u32,
    /// Input read from the cache.
    pub(crate) cache_read: u32,
    /// Input written to the cache.
    pub(crate) cache_write: u32,
}

impl Call {
    fn new(index: usize, name: String, arguments: Map<String, Value>, request: Digest) -> Self {
        let seed = Digest::of(&[request.hex(64).as_bytes(), &index.to_be_bytes()]);
        Self { name, arguments, seed }
    }

    /// The call's id as `api` writes ids.
    pub(crate) fn id(&self, api: Api) -> String {
        let prefix = match api {
            Api::Anthropic => "toolu",
            Api::Openai => "call",
        };
        format!("{prefix}_{}", self.seed.hex(24))
    }

    /// The arguments as compact JSON.
    pub(crate) fn arguments_json(&self) -> String {
        serde_json::to_string(&self.arguments).unwrap_or_default()
    }

    /// Output tokens of the call: of its name and its arguments together.
    pub(crate) fn tokens(&self) -> u32 {
        tokens::of_bytes(self.name.len() + self.arguments_json().len())
    }

    /// The tokens that its beginning carries in a stream, and the pieces of its arguments with theirs.
    pub(crate) fn streamed(&self) -> (u32, Vec<(String, u32)>) {
        let json = self.arguments_json();
        let pieces = tokens::pieces(&json).into_iter().map(|(piece, tokens)| (piece.to_owned(), tokens)).collect();
        (self.tokens().saturating_sub(tokens::of_bytes(json.len())), pieces)
    }
}

impl Block {
    /// Output tokens of the block.
    pub(crate) fn tokens(&self) -> u32 {
        match self {
            Self::Thinking(text) | Self::Text(text) => tokens::of_bytes(text.len()),
            Self::Call(call) => call.tokens(),
        }
    }
}

impl Reply {
    /// What a rule answers to `request`.
    pub(crate) fn compose(plan: &ReplyFile, request: &Request, vars: &Vars<'_>) -> Self {
        let own_id = request.digest.hex(16);
        let mut blocks = Vec::new();
        // The other API has no field for it, so it must not be billed there either.
        let thinking = plan.thinking.as_deref().filter(|_| request.api == Api::Anthropic);
        blocks.extend(thinking.map(|text| Block::Thinking(template::render(text, vars, &own_id))));
        blocks.extend(plan.text.as_deref().map(|text| Block::Text(template::render(text, vars, &own_id))));
        for (index, tool) in plan.tools.iter().enumerate() {
            let mut call = Call::new(index, tool.name.clone(), Map::new(), request.digest);
            call.arguments = template::render_map(&tool.arguments, vars, &call.seed.hex(16));
            blocks.push(Block::Call(call));
        }
        let cut = request.max_tokens.is_some_and(|most| cut_to(&mut blocks, most));
        let stop = match plan.stop {
            _ if cut => Stop::MaxTokens,
            Some(StopFile::EndTurn) => Stop::EndTurn,
            Some(StopFile::MaxTokens) => Stop::MaxTokens,
            Some(StopFile::Refusal) => Stop::Refusal,
            None if plan.tools.is_empty() => Stop::EndTurn,
            None => Stop::ToolUse,
        };
        let output_tokens = blocks.iter().map(Block::tokens).sum();
        let usage = usage(plan.usage.as_ref(), request.input_tokens(), output_tokens);
        Self { model: model_name(&request.model), blocks, stop, usage: Some(usage), digest: request.digest }
    }
}

fn usage(told: Option<&UsageFile>, input_tokens: u32, output_tokens: u32) -> Usage {
    let told = told.cloned().unwrap_or_default();
    Usage {
        input: told.input.unwrap_or(input_tokens),
        output: told.output.unwrap_or(output_tokens),
        cache_read: told.cache_read.unwrap_or(0),
        cache_write: told.cache_write.unwrap_or(0),
    }
}

/// The name under which an answer for `model` goes out.
pub(crate) fn model_name(model: &str) -> String {
    if model.starts_with(MODEL_PREFIX) { model.to_owned() } else { format!("{MODEL_PREFIX}{model}") }
}

/// Cuts an answer to `most` tokens and says whether anything was lost. A call that does not fit is dropped whole.
fn cut_to(blocks: &mut Vec<Block>, most: u32) -> bool {
    let mut left = most;
    for index in 0..blocks.len() {
        let needed = blocks[index].tokens();
        if needed <= left {
            left -= needed;
            continue;
        }
        if let Block::Text(text) | Block::Thinking(text) = &mut blocks[index] {
            *text = tokens::cut(text, left).to_owned();
            let kept = if text.is_empty() { index } else { index + 1 };
            blocks.truncate(kept);
        } else {
            blocks.truncate(index);
        }
        return true;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_cut_to_the_tokens_wanted() {
        let call = Call::new(0, "read".into(), Map::new(), Digest::of(&[]));
        let all = vec![Block::Text("abcdefgh".into()), Block::Call(call)];

        let mut blocks = all.clone();
        assert!(!cut_to(&mut blocks, 4));
        assert_eq!(blocks, all);
        assert!(cut_to(&mut blocks, 3));
        assert_eq!(blocks, all[..1]);
        assert!(cut_to(&mut blocks, 1));
        assert_eq!(blocks, [Block::Text("abcd".into())]);
        assert!(cut_to(&mut blocks, 0));
        assert_eq!(blocks, []);
    }

    #[test]
    fn the_pieces_of_a_streamed_call_carry_all_its_tokens() {
        let mut call = Call::new(0, "shell".into(), Map::new(), Digest::of(&[]));
        call.arguments.insert("command".into(), "python3 -m unittest".into());
        let (first, pieces) = call.streamed();

        assert_eq!(first + pieces.iter().map(|(_, tokens)| tokens).sum::<u32>(), call.tokens());
        assert_eq!(pieces.iter().map(|(piece, _)| piece.as_str()).collect::<String>(), call.arguments_json());
    }

    #[test]
    fn a_rehearsal_is_named_once() {
        assert_eq!(model_name("claude"), "rehearsal/claude");
        assert_eq!(model_name("rehearsal/claude"), "rehearsal/claude");
    }
}

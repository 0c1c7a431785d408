//! The conversation as the model sees it, and the rule that cuts it to the model's window.

use schemas::{Block, Text, event::ToolOutcome};

/// One turn of the conversation.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// Somebody speaks to the agent.
    User(Vec<Text>),
    /// The model spoke.
    Assistant(Vec<Block>),
    /// What its tool calls returned, in the order of the calls.
    Tools(Vec<ToolResult>),
}

/// What one tool call returned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolResult {
    /// The call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: ToolOutcome,
    /// What the model is shown.
    pub output: Text,
}

/// A conversation that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Fitted {
    /// The turns to send.
    pub turns: Vec<Turn>,
    /// How many turns were left out.
    pub dropped: u32,
    /// Upper estimate of the input in tokens, system prompt and tools included.
    pub estimate: u64,
}

/// The conversation does not fit, even with everything left out that the rule allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the task and the last step need {needed} tokens, the model's window leaves {room}")]
pub struct DoesNotFit {
    /// Tokens needed.
    pub needed: u64,
    /// Tokens there are.
    pub room: u64,
}

/// What a turn costs beyond its text: role, block framing and ids. Providers count 3 to 12 a block.
const TURN_OVERHEAD_TOKENS: u64 = 16;

/// Bytes a token at least stands for in the estimate. Two is below every tokenizer's average on prose and code, so that
/// the estimate errs on the side of cutting early; the provider's figure is what is billed.
const MIN_BYTES_A_TOKEN: u64 = 2;

/// Upper estimate of the tokens of `bytes` bytes of text.
pub const fn estimate_bytes(bytes: usize) -> u64 {
    (bytes as u64).div_ceil(MIN_BYTES_A_TOKEN)
}

impl Turn {
    /// Upper estimate of this turn in tokens.
    pub fn estimate(&self) -> u64 {
        let bytes = match self {
            Self::User(texts) => texts.iter().map(text_bytes).sum(),
            Self::Assistant(blocks) => blocks.iter().map(block_bytes).sum(),
            Self::Tools(results) => {
                results.iter().map(|r| text_bytes(&r.output) + r.call_id.len() + r.tool.len()).sum()
            }
        };
        estimate_bytes(bytes) + TURN_OVERHEAD_TOKENS
    }
}

fn text_bytes(text: &Text) -> usize {
    match text {
        Text::Inline(text) => text.len(),
        Text::Blob(blob) => usize::try_from(blob.bytes).unwrap_or(usize::MAX / 4),
    }
}

fn block_bytes(block: &Block) -> usize {
    match block {
        Block::Text { text } => text.len(),
        Block::Thinking { thinking, signature } => thinking.len() + signature.len(),
        Block::ToolUse { id, name, input } => id.len() + name.len() + input.to_string().len(),
        Block::Other(value) => value.to_string().len(),
    }
}

/// Cuts `turns` to `room` tokens, of which `fixed` are taken by system prompt and tools.
///
/// The rule: the first turn (the task) and the last user or tool turn with the model's turn before it always stay; of
/// the rest whole steps (a model's turn with its results) are left out, oldest first, and a line in the task's turn says
/// how many. Nothing is shortened inside a turn.
pub fn fit(turns: &[Turn], fixed: u64, room: u64) -> Result<Fitted, DoesNotFit> {
    let whole = fixed + turns.iter().map(Turn::estimate).sum::<u64>();
    if whole <= room {
        return Ok(Fitted { turns: turns.to_vec(), dropped: 0, estimate: whole });
    }
    let mut estimate = whole + TURN_OVERHEAD_TOKENS + estimate_bytes(NOTICE_BYTES);
    let mut cut = 1;
    while estimate > room {
        let Some(end) = step_end(turns, cut) else {
            return Err(DoesNotFit { needed: estimate, room });
        };
        estimate -= turns[cut..end].iter().map(Turn::estimate).sum::<u64>();
        cut = end;
    }
    let dropped = u32::try_from(cut - 1).unwrap_or(u32::MAX);
    let mut kept = Vec::with_capacity(turns.len() - cut + 1);
    kept.push(with_notice(&turns[0], dropped));
    kept.extend_from_slice(&turns[cut..]);
    Ok(Fitted { turns: kept, dropped, estimate })
}

/// Room for the sentence that [`with_notice`] adds.
const NOTICE_BYTES: usize = 160;

fn with_notice(task: &Turn, dropped: u32) -> Turn {
    let notice =
        format!("[{dropped} earlier messages of this conversation were left out because the model's window is full.]");
    match task {
        Turn::User(texts) => Turn::User(texts.iter().cloned().chain([Text::Inline(notice)]).collect()),
        other => other.clone(),
    }
}

/// The end of the step that begins at `start`, if another model's turn follows it: the last step is never cut.
fn step_end(turns: &[Turn], start: usize) -> Option<usize> {
    let next = turns.iter().skip(start + 1).position(|turn| matches!(turn, Turn::Assistant(_)))?;
    Some(start + 1 + next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(n: usize, bytes: usize) -> [Turn; 2] {
        let id = format!("call-{n}");
        let call = Block::ToolUse { id: id.clone(), name: "read".into(), input: serde_json::json!({}) };
        let result =
            ToolResult { call_id: id, tool: "read".into(), outcome: ToolOutcome::Ok, output: "x".repeat(bytes).into() };
        [Turn::Assistant(vec![call]), Turn::Tools(vec![result])]
    }

    fn conversation(steps: usize) -> Vec<Turn> {
        let mut turns = vec![Turn::User(vec!["the task".into()])];
        turns.extend((0..steps).flat_map(|n| step(n, 1_000)));
        turns
    }

    #[test]
    fn what_fits_is_sent_whole() {
        let turns = conversation(3);
        let fitted = fit(&turns, 100, 100_000).unwrap();
        assert_eq!((fitted.turns, fitted.dropped), (turns, 0));
    }

    #[test]
    fn oldest_steps_go_first_and_the_model_is_told() {
        let turns = conversation(5);
        let fitted = fit(&turns, 100, 2_100).unwrap();
        assert!(fitted.estimate <= 2_100, "{}", fitted.estimate);
        assert!(fitted.dropped > 0 && fitted.dropped.is_multiple_of(2), "whole steps only, not {}", fitted.dropped);
        assert_eq!(fitted.turns.last(), turns.last());
        let Turn::User(texts) = &fitted.turns[0] else { panic!("the task stays first") };
        assert_eq!(texts[0], "the task".into());
        assert!(texts[1].preview().contains(&format!("{} earlier messages", fitted.dropped)));
        assert!(matches!(fitted.turns[1], Turn::Assistant(_)), "a result never stands without its call");
    }

    #[test]
    fn a_last_step_that_does_not_fit_is_an_error() {
        let turns = conversation(1);
        assert!(fit(&turns, 100, 300).is_err());
    }
}

//! The conversation as the model sees it, and the rule that cuts it to the model's window.

use std::ops::Range;

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

/// Cuts `turns` to `room` tokens, of which `fixed` are taken by system prompt and tools. `task` is the turn with the run's
/// task; what stands before it is from a saved state.
///
/// The rule: the task and the last user or tool turn with the model's turn before it always stay, and so does the first
/// turn, as long as there is room for it; of the rest whole steps (a model's turn with its results) are left out, oldest
/// first, and a line in the first turn that is kept says how many. Nothing is shortened inside a turn.
pub fn fit(turns: &[Turn], task: usize, fixed: u64, room: u64) -> Result<Fitted, DoesNotFit> {
    let whole = fixed + turns.iter().map(Turn::estimate).sum::<u64>();
    if whole <= room {
        return Ok(Fitted { turns: turns.to_vec(), dropped: 0, estimate: whole });
    }
    let mut estimate = whole + TURN_OVERHEAD_TOKENS + estimate_bytes(NOTICE_BYTES);
    let mut kept = vec![true; turns.len()];
    for step in droppable(turns, task) {
        if estimate <= room {
            break;
        }
        estimate -= turns[step.clone()].iter().map(Turn::estimate).sum::<u64>();
        kept[step].fill(false);
    }
    if estimate > room {
        return Err(DoesNotFit { needed: estimate, room });
    }
    let dropped = u32::try_from(kept.iter().filter(|kept| !**kept).count()).unwrap_or(u32::MAX);
    let mut left = turns.iter().zip(kept).filter(|(_, kept)| *kept).map(|(turn, _)| turn);
    let first = left.next().map(|first| with_notice(first, dropped));
    Ok(Fitted { turns: first.into_iter().chain(left.cloned()).collect(), dropped, estimate })
}

/// What may be left out, in the order in which it is: the steps before the task, the first turn when that is not the task,
/// the steps after the task but the last.
fn droppable(turns: &[Turn], task: usize) -> impl Iterator<Item = Range<usize>> {
    let before = steps(turns, 1, task);
    let first = (task > 0).then_some(0..1);
    let mut after = steps(turns, task + 1, turns.len());
    after.pop();
    before.into_iter().chain(first).chain(after)
}

/// The steps between two turns: each begins with a model's turn, and ends before the next one.
fn steps(turns: &[Turn], from: usize, to: usize) -> Vec<Range<usize>> {
    let mut steps = Vec::new();
    let mut start = from;
    while start < to {
        let next = turns[start + 1..to].iter().position(|turn| matches!(turn, Turn::Assistant(_)));
        let end = next.map_or(to, |next| start + 1 + next);
        steps.push(start..end);
        start = end;
    }
    steps
}

/// Room for the sentence that [`with_notice`] adds.
const NOTICE_BYTES: usize = 160;

fn with_notice(first: &Turn, dropped: u32) -> Turn {
    let notice =
        format!("[{dropped} earlier messages of this conversation were left out because the model's window is full.]");
    match first {
        Turn::User(texts) => Turn::User(texts.iter().cloned().chain([Text::Inline(notice)]).collect()),
        other => other.clone(),
    }
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
        let fitted = fit(&turns, 0, 100, 100_000).unwrap();
        assert_eq!((fitted.turns, fitted.dropped), (turns, 0));
    }

    #[test]
    fn oldest_steps_go_first_and_the_model_is_told() {
        let turns = conversation(5);
        let fitted = fit(&turns, 0, 100, 2_100).unwrap();
        assert!(fitted.estimate <= 2_100, "{}", fitted.estimate);
        assert!(fitted.dropped > 0 && fitted.dropped.is_multiple_of(2), "whole steps only, not {}", fitted.dropped);
        assert_eq!(fitted.turns.last(), turns.last());
        let Turn::User(texts) = &fitted.turns[0] else { panic!("the task stays first") };
        assert_eq!(texts[0], "the task".into());
        assert!(texts[1].preview().contains(&format!("{} earlier messages", fitted.dropped)));
        assert!(matches!(fitted.turns[1], Turn::Assistant(_)), "a result never stands without its call");
    }

    /// A conversation of `steps` that a run goes on from, and its own of as many.
    fn gone_on_from(steps: usize) -> Vec<Turn> {
        let mut turns = conversation(steps);
        turns.push(Turn::Assistant(vec![Block::Text { text: "done".into() }]));
        turns.push(Turn::User(vec!["the next task".into()]));
        turns.extend((steps..2 * steps).flat_map(|n| step(n, 1_000)));
        turns
    }

    #[test]
    fn what_a_run_went_on_from_goes_before_its_own_steps() {
        let turns = gone_on_from(4);
        let task = turns.iter().rposition(|turn| matches!(turn, Turn::User(_))).unwrap();
        // A step costs about 540: this is room for the run's own and not much more.
        let fitted = fit(&turns, task, 100, 3_000).unwrap();
        assert!(fitted.estimate <= 3_000, "{}", fitted.estimate);
        let texts = |turn: &Turn| match turn {
            Turn::User(texts) => texts.iter().map(|text| text.preview().to_owned()).collect(),
            _ => Vec::new(),
        };
        assert_eq!(texts(&fitted.turns[0])[0], "the task", "the first turn stays while there is room");
        assert!(texts(&fitted.turns[0])[1].contains(&format!("{} earlier messages", fitted.dropped)));
        assert!(fitted.turns.ends_with(&turns[task..]), "nothing of the run itself is left out");

        let fitted = fit(&turns, task, 100, 1_300).unwrap();
        let own = texts(&fitted.turns[0]);
        assert_eq!(own[0], "the next task", "then only the task and the last steps stay");
        assert!(own[1].contains("earlier messages"), "{own:?}");
        assert!(fitted.turns.ends_with(&turns[turns.len() - 2..]));
        assert!(matches!(fitted.turns[1], Turn::Assistant(_)), "a result never stands without its call");
    }

    #[test]
    fn a_last_step_that_does_not_fit_is_an_error() {
        let turns = conversation(1);
        assert!(fit(&turns, 0, 100, 300).is_err());
    }
}

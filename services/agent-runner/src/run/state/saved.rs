//! Saving a run's state, and going on from one. Pure: whoever has the journal, or the blob, has what is needed.

use std::collections::BTreeMap;

use schemas::{
    Block, SavedState, Text,
    event::ToolOutcome,
    state::{self, STATE_VERSION, ToolUse},
};
use serde_json::json;

use super::{Earlier, Phase, RunState};
use crate::run::{
    Turn,
    conversation::{self, ToolResult, fit},
};

/// What of a conversation is kept, as an upper estimate in tokens: twice the largest window that a model has, so that what is
/// left out could not have been sent.
const MAX_STATE_TOKENS: u64 = 2_000_000;

/// Tool calls that are listed, the newest: more than a run may have steps, and some hundred bytes each.
const MAX_TOOL_USES: usize = 10_000;

/// What the model is told of a call that had not returned.
const UNKNOWN: &str = "The state was saved before this call returned. It is uncertain whether it took effect: look at \
    the result before you do it again.";

/// The name under which the native harness keeps data.
const NATIVE: &str = "native";

/// The conversation can not be saved: its last step alone is larger than any model's window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the conversation can not be saved")]
pub struct DoesNotFit(#[source] conversation::DoesNotFit);

impl RunState {
    /// The state of the agent after this run, as far as the run is folded.
    ///
    /// A call that has not returned is shown as uncertain, for nobody waits for it any more. Too long a conversation is cut
    /// by the rule by which it is cut to a model's window, and says so.
    pub fn save(&self) -> Result<SavedState, DoesNotFit> {
        let (turns, task) = self.closed_turns();
        let tools = self.tool_uses(&turns[task..]);
        let fitted = fit(&turns, task, 0, MAX_STATE_TOKENS).map_err(DoesNotFit)?;
        let earlier = self.earlier.as_ref();
        let mut data = earlier.map(|earlier| earlier.data.clone()).unwrap_or_default();
        data.extend(self.own_data());
        Ok(SavedState {
            version: STATE_VERSION,
            project: self.request.project.clone(),
            agent: self.request.agent.clone(),
            run_id: self.run_id,
            sequence: self.last_sequence,
            outcome: match self.phase {
                Phase::Ended(outcome) => Some(outcome),
                Phase::Requested | Phase::Held | Phase::Waiting(_) => None,
            },
            turns: fitted.turns.into_iter().map(Into::into).collect(),
            left_out: earlier.map_or(0, |earlier| earlier.left_out) + u64::from(fitted.dropped),
            tools,
            work: self.work.clone(),
            worktree: self.saved.clone(),
            data,
        })
    }

    /// Goes on from `saved`, which is what `requested` names. What the run itself did comes after it, whether it was folded
    /// before or is folded later. A second time changes nothing.
    pub fn go_on_from(&mut self, saved: &SavedState) {
        if self.earlier.is_some() {
            return;
        }
        self.earlier = Some(Earlier {
            turns: saved.turns.len(),
            left_out: saved.left_out,
            tools: saved.tools.clone(),
            data: saved.data.clone(),
        });
        self.turns.splice(0..0, saved.turns.iter().cloned().map(Turn::from));
        self.saved.splice(0..0, saved.worktree.iter().cloned());
    }

    /// The conversation without thinking, every call with its result, and what was said since; and which turn of it is the
    /// run's task.
    fn closed_turns(&self) -> (Vec<Turn>, usize) {
        let (earlier, own) = self.turns.split_at(self.task());
        let mut turns: Vec<Turn> = earlier.iter().filter_map(without_thinking).collect();
        let task = turns.len();
        turns.extend(own.iter().filter_map(without_thinking));
        if !self.asked.is_empty() {
            turns.push(Turn::Tools(self.asked.iter().filter_map(|block| self.result_of(block)).collect()));
        }
        if !self.inbox.is_empty() {
            turns.push(Turn::User(self.inbox.clone()));
        }
        (turns, task)
    }

    /// What a call of the last step returned, or that nobody knows.
    fn result_of(&self, block: &Block) -> Option<ToolResult> {
        let Block::ToolUse { id, name, .. } = block else { return None };
        let unknown = || ToolResult {
            call_id: id.clone(),
            tool: name.clone(),
            outcome: ToolOutcome::Uncertain,
            output: Text::from(UNKNOWN),
        };
        Some(self.returned.get(id).cloned().unwrap_or_else(unknown))
    }

    /// All tool calls: those of the state that the run went on from, and those of its `own` turns.
    fn tool_uses(&self, own: &[Turn]) -> Vec<ToolUse> {
        let earlier = self.earlier.iter().flat_map(|earlier| earlier.tools.iter().cloned());
        let own = own.iter().flat_map(|turn| match turn {
            Turn::Tools(results) => results.as_slice(),
            Turn::User(_) | Turn::Assistant(_) => &[],
        });
        let own = own.map(|result| ToolUse {
            call_id: result.call_id.clone(),
            tool: result.tool.clone(),
            outcome: result.outcome,
        });
        let mut all: Vec<ToolUse> = earlier.chain(own).collect();
        let too_many = all.len().saturating_sub(MAX_TOOL_USES);
        all.drain(..too_many);
        all
    }

    /// What the native harness keeps: with which model it came how far.
    fn own_data(&self) -> BTreeMap<String, serde_json::Value> {
        let model = self.context.as_ref().map(|context| &context.model);
        let data = model.map(|model| (NATIVE.to_owned(), json!({ "model": model, "steps": self.step })));
        data.into_iter().collect()
    }
}

/// Thinking is wanted back within a step only, and by the model that thought it.
fn without_thinking(turn: &Turn) -> Option<Turn> {
    let Turn::Assistant(blocks) = turn else { return Some(turn.clone()) };
    let kept: Vec<Block> = blocks.iter().filter(|block| !matches!(block, Block::Thinking { .. })).cloned().collect();
    (!kept.is_empty()).then_some(Turn::Assistant(kept))
}

impl From<Turn> for state::Turn {
    fn from(turn: Turn) -> Self {
        match turn {
            Turn::User(texts) => Self::User { texts },
            Turn::Assistant(blocks) => Self::Assistant { blocks },
            Turn::Tools(results) => Self::Tools { results: results.into_iter().map(Into::into).collect() },
        }
    }
}

impl From<state::Turn> for Turn {
    fn from(turn: state::Turn) -> Self {
        match turn {
            state::Turn::User { texts } => Self::User(texts),
            state::Turn::Assistant { blocks } => Self::Assistant(blocks),
            state::Turn::Tools { results } => Self::Tools(results.into_iter().map(Into::into).collect()),
        }
    }
}

impl From<ToolResult> for state::ToolResult {
    fn from(ToolResult { call_id, tool, outcome, output }: ToolResult) -> Self {
        Self { call_id, tool, outcome, output }
    }
}

impl From<state::ToolResult> for ToolResult {
    fn from(state::ToolResult { call_id, tool, outcome, output }: state::ToolResult) -> Self {
        Self { call_id, tool, outcome, output }
    }
}

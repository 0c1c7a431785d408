//! What others may read of a run's state.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemas::{
    Block, EventId, RunId, Text,
    event::{ChildEnded, ContextLoaded, ModelReplied, Requested, StopReason, Totals, Work, WorktreeSaved},
};

use super::{OpenCall, OpenModelCall, Phase, RunState};
use crate::run::Turn;

/// Ends an answer that has no end of its own, for people and for who handed the task on.
const CUT: &str = "(cut at the model's output limit)";

impl RunState {
    /// The run.
    pub const fn run_id(&self) -> RunId {
        self.run_id
    }

    /// What was requested.
    pub const fn request(&self) -> &Requested {
        &self.request
    }

    /// Where it stands.
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The stream sequence of the last message that was applied: what the next append expects.
    pub const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// How often the run was taken, as an ordinal.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// How often it was taken from a lost holder.
    pub const fn takeovers(&self) -> u32 {
        self.takeovers
    }

    /// Bytes of its journal.
    pub const fn journal_bytes(&self) -> u64 {
        self.journal_bytes
    }

    /// What the agent knew at its start.
    pub const fn context(&self) -> Option<&ContextLoaded> {
        self.context.as_ref()
    }

    /// The conversation so far, with that of the saved state that the run goes on from.
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// Which of the turns is the run's task: the first one, or that after those of a saved state.
    pub fn task(&self) -> usize {
        self.earlier.as_ref().map_or(0, |earlier| earlier.turns)
    }

    /// The ids of all tool calls of the conversation.
    pub fn call_ids(&self) -> impl Iterator<Item = &str> {
        let blocks = self.turns.iter().flat_map(|turn| match turn {
            Turn::Assistant(blocks) => blocks.as_slice(),
            Turn::User(_) | Turn::Tools(_) => &[],
        });
        blocks.filter_map(|block| match block {
            Block::ToolUse { id, .. } => Some(id.as_str()),
            _ => None,
        })
    }

    /// The last model step.
    pub const fn step(&self) -> u32 {
        self.step
    }

    /// The model call that is open.
    pub const fn model_call(&self) -> Option<&OpenModelCall> {
        self.model_call.as_ref()
    }

    /// The tool calls that have not returned.
    pub const fn open_calls(&self) -> &BTreeMap<String, OpenCall> {
        &self.open
    }

    /// Whether this is the end of a child that is awaited.
    pub fn awaits(&self, ended: &ChildEnded) -> bool {
        self.open.get(&ended.call_id).is_some_and(|open| open.child == Some(ended.child_run_id))
    }

    /// The children that are awaited.
    pub fn open_children(&self) -> impl Iterator<Item = RunId> + '_ {
        self.open.values().filter_map(|open| open.child)
    }

    /// The calls that the model asked for and that were not made yet: id, tool, arguments.
    pub fn unstarted(&self) -> impl Iterator<Item = (&str, &str, &serde_json::Value)> {
        self.asked.iter().filter_map(|block| match block {
            Block::ToolUse { id, name, input } if !self.open.contains_key(id) && !self.returned.contains_key(id) => {
                Some((id.as_str(), name.as_str(), input))
            }
            _ => None,
        })
    }

    /// Whether messages wait that the model has not seen.
    pub fn has_mail(&self) -> bool {
        !self.inbox.is_empty()
    }

    /// Messages that the model has not seen.
    pub fn mail(&self) -> &[Text] {
        &self.inbox
    }

    /// The model's last answer.
    pub const fn last_reply(&self) -> Option<&ModelReplied> {
        self.last_reply.as_ref()
    }

    /// Whether the model's last answer asks for nothing more.
    pub fn answered(&self) -> bool {
        let reply = self.last_reply.as_ref().filter(|reply| reply.step == self.step && self.model_call.is_none());
        reply.is_some_and(|reply| !reply.content.iter().any(|block| matches!(block, Block::ToolUse { .. })))
    }

    /// The text of the model's last answer, which says so when the rest of it is missing; empty when it has none.
    pub fn answer(&self) -> String {
        let blocks = self.last_reply.iter().flat_map(|reply| &reply.content);
        let mut texts: Vec<&str> = blocks
            .filter_map(|block| match block {
                Block::Text { text } => Some(text.as_str()),
                _ => None,
            })
            .collect();
        if self.last_stop() == Some(StopReason::MaxTokens) && texts.iter().any(|text| !text.is_empty()) {
            texts.push(CUT);
        }
        texts.join("\n\n")
    }

    /// Whether the model's last answer was cut within this call: the last one, which then has no arguments.
    pub fn was_cut(&self, call_id: &str) -> bool {
        let reply = self.last_reply.as_ref().filter(|reply| reply.stop == StopReason::MaxTokens);
        let last = reply.and_then(|reply| reply.content.last());
        matches!(last, Some(Block::ToolUse { id, input, .. })
            if id == call_id && input.as_object().is_none_or(serde_json::Map::is_empty))
    }

    /// Why the model's last answer stopped.
    pub fn last_stop(&self) -> Option<StopReason> {
        self.last_reply.as_ref().map(|reply| reply.stop)
    }

    /// What was used so far; `millis` is not filled in.
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What was used, at `now`.
    pub fn totals_at(&self, now: Timestamp) -> Totals {
        let millis = now.duration_since(self.requested_at).as_millis();
        Totals { millis: u64::try_from(millis).unwrap_or(0), ..self.totals }
    }

    /// Whether a signal was taken.
    pub fn has_taken(&self, signal: &EventId) -> bool {
        self.signals.contains(signal)
    }

    /// How many handoffs were made.
    pub fn handoffs(&self) -> u32 {
        self.handoffs.values().sum()
    }

    /// How often this very handoff was made.
    pub fn same_handoffs(&self, agent: &str, task: &str) -> u32 {
        self.handoffs.get(&(agent.to_owned(), task.to_owned())).copied().unwrap_or(0)
    }

    /// Steps in a row that did the same with the same results.
    pub const fn same_steps(&self) -> u32 {
        self.same_steps
    }

    /// The bundles that hold the worktree, oldest first.
    pub fn saved(&self) -> &[WorktreeSaved] {
        &self.saved
    }

    /// The commit that the run, or a child of it, published last.
    pub const fn work(&self) -> Option<&Work> {
        self.work.as_ref()
    }

    /// Whether a rehearsal answered any of its calls.
    pub const fn rehearsal(&self) -> bool {
        self.rehearsal
    }

    /// Whether the tool call with this id is open and was made by an earlier holder.
    pub fn was_in_flight(&self, call: &OpenCall) -> bool {
        call.child.is_none() && call.epoch < self.epoch
    }
}

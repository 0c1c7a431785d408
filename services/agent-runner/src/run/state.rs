//! The state of a run: a fold of its journal.
//!
//! A run that goes on from a saved state has that before its own turns. It is no event: `requested` names it by its
//! content, so folding the journal and loading what it names gives the same state each time.

mod saved;
mod view;
mod waits;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use schemas::{
    Block, Decision, EventId, RunEvent, RunId, Text,
    event::{
        ChildEnded, ContextLoaded, HandedOff, ModelCalled, ModelFailed, ModelReplied, Outcome, Requested, ToolCalled,
        ToolReturned, Totals, WaitReason, Work, WorktreeSaved,
    },
    state::ToolUse,
};

use super::conversation::{ToolResult, Turn};

pub use saved::DoesNotFit;

/// How the name of a model begins under which the rehearsal model answers.
const REHEARSAL: &str = "rehearsal/";

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nobody took it yet.
    Requested,
    /// A runner holds it.
    Held,
    /// Nobody holds it; a signal or its deadline wakes it.
    Waiting(WaitReason),
    /// It is over.
    Ended(Outcome),
}

/// A journal that can not be: an event that the state before it does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("event {kind} at sequence {sequence} is not possible here: {why}")]
pub struct Corrupt {
    /// The event's kind.
    pub kind: String,
    /// Its message's stream sequence; 0 for an event that is not in the log yet.
    pub sequence: u64,
    /// Why not.
    pub why: &'static str,
}

/// A tool call that has not returned.
#[derive(Debug, Clone, PartialEq)]
pub struct OpenCall {
    /// What was called.
    pub call: ToolCalled,
    /// The child that it waits for, for a handoff; none any more once that has ended.
    pub child: Option<RunId>,
    /// The epoch (its ordinal, from 1) in which it was called.
    pub epoch: u32,
}

/// A model call that has not been answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenModelCall {
    /// What was called.
    pub call: ModelCalled,
    /// The last failure of it, when it is waiting for its next try.
    pub failed: Option<ModelFailed>,
    /// The epoch in which it was called.
    pub epoch: u32,
    /// Stream sequence after which those call records of its step stand that no event tells of.
    pub since: u64,
}

/// The state of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct RunState {
    run_id: RunId,
    request: Requested,
    requested_at: Timestamp,
    phase: Phase,
    last_sequence: u64,
    epoch: u32,
    takeovers: u32,
    runner: Option<String>,
    context: Option<ContextLoaded>,
    turns: Vec<Turn>,
    inbox: Vec<Text>,
    step: u32,
    model_call: Option<OpenModelCall>,
    asked: Vec<Block>,
    open: BTreeMap<String, OpenCall>,
    returned: BTreeMap<String, ToolResult>,
    last_reply: Option<ModelReplied>,
    totals: Totals,
    signals: BTreeSet<EventId>,
    handoffs: BTreeMap<(String, String), u32>,
    saved: Vec<WorktreeSaved>,
    work: Option<Work>,
    rehearsal: bool,
    last_step: Option<String>,
    same_steps: u32,
    journal_bytes: u64,
    earlier: Option<Earlier>,
}

/// What a run has from the saved state that it goes on from, besides turns and bundles, which stand before its own.
#[derive(Debug, Clone, PartialEq)]
struct Earlier {
    /// How many turns.
    turns: usize,
    /// How many were left out before that.
    left_out: u64,
    /// The tool calls that were made.
    tools: Vec<ToolUse>,
    /// What harnesses kept of their own.
    data: BTreeMap<String, serde_json::Value>,
}

impl RunState {
    /// The state after a run's first message, which must be a `requested` alone.
    pub fn begin(run_id: RunId, sequence: u64, at: Timestamp, decision: &Decision) -> Result<Self, Corrupt> {
        let [RunEvent::Requested(request)] = decision.events.as_slice() else {
            return Err(Corrupt { kind: decision.kinds(), sequence, why: "a run begins with requested alone" });
        };
        let mut task = vec![request.prompt.clone()];
        task.extend(request.context.clone());
        Ok(Self {
            run_id,
            request: (**request).clone(),
            requested_at: at,
            phase: Phase::Requested,
            last_sequence: sequence,
            epoch: 0,
            takeovers: 0,
            runner: None,
            context: None,
            turns: vec![Turn::User(task)],
            inbox: Vec::new(),
            step: 0,
            model_call: None,
            asked: Vec::new(),
            open: BTreeMap::new(),
            returned: BTreeMap::new(),
            last_reply: None,
            totals: Totals::default(),
            signals: BTreeSet::new(),
            handoffs: BTreeMap::new(),
            saved: Vec::new(),
            work: request.work.clone(),
            rehearsal: false,
            last_step: None,
            same_steps: 0,
            journal_bytes: 0,
            earlier: None,
        })
    }

    /// Applies a message of the journal. One that was applied before changes nothing.
    pub fn apply_message(&mut self, sequence: u64, bytes: u64, decision: &Decision) -> Result<(), Corrupt> {
        if sequence <= self.last_sequence {
            return Ok(());
        }
        for event in &decision.events {
            self.apply(event).map_err(|corrupt| Corrupt { sequence, ..corrupt })?;
        }
        self.appended(sequence, bytes);
        Ok(())
    }

    /// Notes that the events applied since the last message are in the log at `sequence`.
    pub fn appended(&mut self, sequence: u64, bytes: u64) {
        self.last_sequence = sequence;
        self.journal_bytes += bytes;
    }

    /// Applies one event.
    pub fn apply(&mut self, event: &RunEvent) -> Result<(), Corrupt> {
        let refuse = |why| Err(Corrupt { kind: event.kind().to_owned(), sequence: 0, why });
        if let Phase::Ended(_) = self.phase {
            return match event {
                RunEvent::Archived(_) | RunEvent::Unknown(_) => Ok(()),
                _ => refuse("the run has ended"),
            };
        }
        if self.phase != Phase::Held
            && !event.opens_epoch()
            && !event.is_end()
            && !matches!(event, RunEvent::Unknown(_) | RunEvent::MessageSent(_))
        {
            return refuse("nobody holds the run");
        }
        match event {
            RunEvent::Requested(_) => return refuse("the run was requested before"),
            RunEvent::Started(started) => {
                if self.phase != Phase::Requested {
                    return refuse("the run was started before");
                }
                self.open_epoch(&started.runner);
            }
            RunEvent::Resumed(resumed) => {
                if self.phase == Phase::Requested {
                    return refuse("the run was not started");
                }
                if self.phase == Phase::Held {
                    self.takeovers += 1;
                }
                self.open_epoch(&resumed.runner);
            }
            RunEvent::ContextLoaded(context) => {
                if self.context.is_some() {
                    return refuse("the context was loaded before");
                }
                self.context = Some(context.clone());
            }
            RunEvent::ModelCalled(call) => return self.model_called(call),
            RunEvent::ModelReplied(reply) => return self.model_replied(reply),
            RunEvent::ModelFailed(failed) => return self.model_failed(failed),
            RunEvent::ToolCalled(call) => return self.tool_called(call),
            RunEvent::ToolReturned(returned) => return self.tool_returned(returned),
            RunEvent::HandedOff(handed) => return self.handed_off(handed),
            RunEvent::ChildEnded(ended) => return self.child_ended(ended),
            RunEvent::WorktreeSaved(saved) => self.saved.push(saved.clone()),
            RunEvent::CodeCommitted(committed) => self.work = Some(committed.work.clone()),
            RunEvent::MessageReceived(message) => {
                // A long text stays what it is, for its preview is not what was said.
                match &message.text {
                    Text::Inline(text) => self.inbox.push(format!("Message from {}:\n{text}", message.from).into()),
                    Text::Blob(_) => {
                        self.inbox.extend([format!("Message from {}:", message.from).into(), message.text.clone()]);
                    }
                }
            }
            RunEvent::Waiting(waiting) => {
                if let Some(why) = self.may_not_wait(waiting.reason) {
                    return refuse(why);
                }
                self.phase = Phase::Waiting(waiting.reason);
                self.runner = None;
            }
            RunEvent::SignalTaken(taken) => {
                self.signals.insert(taken.signal_id.clone());
            }
            RunEvent::Finished(_) => {
                if self.model_call.is_some() || !self.open.is_empty() {
                    return refuse("a call is open");
                }
                if !self.asked.is_empty() {
                    return refuse("a call that the model asked for was not made");
                }
                self.phase = Phase::Ended(Outcome::Finished);
            }
            RunEvent::Failed(_) => self.phase = Phase::Ended(Outcome::Failed),
            RunEvent::Killed(_) => self.phase = Phase::Ended(Outcome::Killed),
            RunEvent::Cancelled(_) => self.phase = Phase::Ended(Outcome::Cancelled),
            RunEvent::Archived(_) => return refuse("the run has not ended"),
            RunEvent::FileChanged(_)
            | RunEvent::ApprovalRequested(_)
            | RunEvent::ApprovalDecided(_)
            | RunEvent::MessageSent(_)
            | RunEvent::Unknown(_) => {}
        }
        Ok(())
    }

    fn open_epoch(&mut self, runner: &str) {
        self.epoch += 1;
        self.runner = Some(runner.to_owned());
        self.phase = Phase::Held;
    }

    fn model_called(&mut self, call: &ModelCalled) -> Result<(), Corrupt> {
        let refuse = |why| Err(Corrupt { kind: "model_called".into(), sequence: 0, why });
        if self.context.is_none() {
            return refuse("the context was not loaded");
        }
        let since = self.model_call.as_ref().map_or(self.last_sequence, |open| open.since);
        match &self.model_call {
            Some(open) if open.call.step == call.step && call.attempt == open.call.attempt + 1 => {}
            Some(_) => return refuse("another model call is open"),
            None if !self.open.is_empty() || !self.asked.is_empty() => return refuse("tool calls are open"),
            None if call.step != self.step + 1 || call.attempt != 1 => return refuse("steps are counted one by one"),
            None => {
                self.step = call.step;
                if !self.inbox.is_empty() {
                    self.turns.push(Turn::User(std::mem::take(&mut self.inbox)));
                }
            }
        }
        self.model_call = Some(OpenModelCall { call: call.clone(), failed: None, epoch: self.epoch, since });
        Ok(())
    }

    fn model_failed(&mut self, failed: &ModelFailed) -> Result<(), Corrupt> {
        let Some(open) = self.model_call.as_mut().filter(|open| open.call.step == failed.step) else {
            return Err(Corrupt { kind: "model_failed".into(), sequence: 0, why: "no such model call is open" });
        };
        open.since = failed.billed.map_or(open.since, |billed| billed.through);
        open.failed = Some(failed.clone());
        self.totals.add_failure(failed);
        Ok(())
    }

    fn model_replied(&mut self, reply: &ModelReplied) -> Result<(), Corrupt> {
        let refuse = |why| Err(Corrupt { kind: "model_replied".into(), sequence: 0, why });
        if self.model_call.as_ref().is_none_or(|open| open.call.step != reply.step) {
            return refuse("no such model call is open");
        }
        let mut ids = BTreeSet::new();
        if !reply.content.iter().all(|block| !matches!(block, Block::ToolUse { id, .. } if !ids.insert(id))) {
            return refuse("two of its calls have one id");
        }
        self.model_call = None;
        self.totals.add_reply(reply);
        self.rehearsal |= reply.model.starts_with(REHEARSAL);
        if !reply.content.is_empty() {
            self.turns.push(Turn::Assistant(reply.content.clone()));
        }
        self.asked = reply.content.iter().filter(|block| matches!(block, Block::ToolUse { .. })).cloned().collect();
        self.returned.clear();
        self.last_reply = Some(reply.clone());
        Ok(())
    }

    fn tool_called(&mut self, call: &ToolCalled) -> Result<(), Corrupt> {
        let refuse = |why| Err(Corrupt { kind: "tool_called".into(), sequence: 0, why });
        if !self.asked.iter().any(|block| matches!(block, Block::ToolUse { id, .. } if *id == call.call_id)) {
            return refuse("the model did not ask for it");
        }
        if self.returned.contains_key(&call.call_id) {
            return refuse("it has returned");
        }
        match self.open.get(&call.call_id) {
            Some(open) if open.epoch == self.epoch => return refuse("it is open"),
            Some(open) if !open.call.idempotent => return refuse("it is not idempotent and may have run"),
            Some(open) if open.child.is_some() => return refuse("its child runs"),
            _ => {}
        }
        self.open.insert(call.call_id.clone(), OpenCall { call: call.clone(), child: None, epoch: self.epoch });
        Ok(())
    }

    fn tool_returned(&mut self, returned: &ToolReturned) -> Result<(), Corrupt> {
        let refuse = |why| Err(Corrupt { kind: "tool_returned".into(), sequence: 0, why });
        if self.open.get(&returned.call_id).is_some_and(|open| open.child.is_some()) {
            return refuse("its child has not ended");
        }
        let Some(open) = self.open.remove(&returned.call_id) else {
            return refuse("no such tool call is open");
        };
        self.totals.tool_calls += 1;
        let result = ToolResult {
            call_id: returned.call_id.clone(),
            tool: open.call.tool,
            outcome: returned.outcome,
            output: returned.output.clone(),
        };
        self.returned.insert(returned.call_id.clone(), result);
        if self.open.is_empty() && self.unstarted().next().is_none() {
            self.close_step();
        }
        Ok(())
    }

    /// All calls of a step have returned: their results become a turn, in the order of the calls.
    fn close_step(&mut self) {
        let results: Vec<ToolResult> = self
            .asked
            .iter()
            .filter_map(|block| match block {
                Block::ToolUse { id, .. } => self.returned.remove(id),
                _ => None,
            })
            .collect();
        let fingerprint = fingerprint(&self.asked, &results);
        if self.last_step.as_deref() == Some(&fingerprint) {
            self.same_steps += 1;
        } else {
            self.same_steps = 1;
            self.last_step = Some(fingerprint);
        }
        self.turns.push(Turn::Tools(results));
        self.asked.clear();
    }

    fn handed_off(&mut self, handed: &HandedOff) -> Result<(), Corrupt> {
        match self.open.get_mut(&handed.call_id) {
            Some(open) if open.child.is_none() => open.child = Some(handed.child_run_id),
            _ => return Err(Corrupt { kind: "handed_off".into(), sequence: 0, why: "no such tool call is open" }),
        }
        let key = (handed.agent.to_string(), handed.task.preview().to_owned());
        *self.handoffs.entry(key).or_default() += 1;
        Ok(())
    }

    fn child_ended(&mut self, ended: &ChildEnded) -> Result<(), Corrupt> {
        match self.open.get_mut(&ended.call_id) {
            Some(open) if open.child == Some(ended.child_run_id) => open.child = None,
            _ => return Err(Corrupt { kind: "child_ended".into(), sequence: 0, why: "no such child is awaited" }),
        }
        self.totals.add_child(&ended.totals);
        if ended.work.is_some() {
            self.work.clone_from(&ended.work);
        }
        Ok(())
    }
}

/// What a step did, for the loop breaker: its calls without their ids, and what they returned.
fn fingerprint(asked: &[Block], results: &[ToolResult]) -> String {
    let calls: Vec<_> = asked
        .iter()
        .filter_map(|block| match block {
            Block::ToolUse { name, input, .. } => Some(serde_json::json!([name, input])),
            _ => None,
        })
        .collect();
    let outputs: Vec<_> =
        results.iter().map(|r| serde_json::json!([format!("{:?}", r.outcome), r.output.preview()])).collect();
    serde_json::json!([calls, outputs]).to_string()
}

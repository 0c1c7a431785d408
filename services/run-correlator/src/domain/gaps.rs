//! The completeness check: what should be in the log of a run, and is not.
//!
//! A gap is something that nothing in the log explains. So these are none:
//! - what a live run is in the middle of, and what came so recently that its answer may be on its way;
//! - calls that were open when the run failed, was killed or called off: its end cut them off, and says so;
//! - a model call or tool call that a lost holder left open, once its successor tried again or said what became of it;
//! - a model call that failed, whether it was tried again or not.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use schemas::{
    RunEvent, RunId, Signal,
    event::{ModelCalled, ToolCalled},
    timeline::Gap,
};

use super::evidence::{Evidence, JournalMessage};

/// How long the answer to something may be on its way: the confirmation of a message from its channel, the record of a call
/// from the wire. A chat server that is busy takes some seconds.
pub const ON_ITS_WAY: SignedDuration = SignedDuration::from_secs(30);

/// How long after its deadline a run may end: somebody has to wake and notice.
pub const DEADLINE_SLACK: SignedDuration = SignedDuration::from_secs(60);

/// How long the messages of a run are kept in the log for an answer that was refused and parked. A replay takes it from there:
/// a day to see the letter and mend the cause. Beyond that a room that is gone must not fill the log.
pub const KEPT_FOR_REPLAY: SignedDuration = SignedDuration::from_hours(24);

/// A gap and where it was noticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What is missing.
    pub gap: Gap,
    /// When it should have been there.
    pub at: Timestamp,
    /// The message that it comes after; 0 for the very beginning.
    pub after: u64,
}

/// Everything that is missing, in order.
pub fn check(run: RunId, evidence: &Evidence, now: Timestamp) -> Vec<Found> {
    let mut found = Vec::new();
    found.extend(evidence.missing.iter().map(|gap| at_the_beginning(gap, evidence)));
    found.extend(unreadable(evidence));
    found.extend(broken_chain(evidence));
    let mut calls = Calls::default();
    for message in &evidence.journal {
        for event in &message.decision.events {
            calls.take(event, Place::of(message));
        }
    }
    found.extend(calls.finish(evidence, now));
    found.extend(unconfirmed(evidence, now));
    found.extend(unmetered(run, evidence, now));
    found.sort_by_key(|found| found.after);
    found
}

/// Where something is in the journal.
#[derive(Debug, Clone, Copy)]
struct Place {
    at: Timestamp,
    sequence: u64,
}

impl Place {
    const fn of(message: &JournalMessage) -> Self {
        Self { at: message.time, sequence: message.sequence }
    }

    const fn found(self, gap: Gap) -> Found {
        Found { gap, at: self.at, after: self.sequence }
    }
}

fn at_the_beginning(gap: &Gap, evidence: &Evidence) -> Found {
    let first = evidence.links().first().map(|link| link.time);
    Found { gap: gap.clone(), at: first.unwrap_or(Timestamp::UNIX_EPOCH), after: 0 }
}

fn unreadable(evidence: &Evidence) -> impl Iterator<Item = Found> {
    evidence.unreadable.iter().map(|message| Found {
        gap: Gap::Unreadable { sequence: message.sequence, reason: message.reason.clone() },
        at: message.time,
        after: message.sequence,
    })
}

/// Every message of the journal says which one it came after.
pub fn broken_chain(evidence: &Evidence) -> Vec<Found> {
    let mut found = Vec::new();
    let mut previous = 0;
    let mut last = Timestamp::UNIX_EPOCH;
    for link in evidence.links() {
        if let Some(expected) = link.after.filter(|after| *after != previous) {
            let gap = Gap::MissingSequence { before: Some(link.sequence), expected };
            found.push(Found { gap, at: link.time, after: previous });
        }
        previous = link.sequence;
        last = link.time;
    }
    if evidence.known_last > previous {
        let gap = Gap::MissingSequence { before: None, expected: evidence.known_last };
        found.push(Found { gap, at: last, after: previous });
    }
    found
}

/// Calls without an answer so far.
#[derive(Debug, Default)]
struct Calls {
    deadline: Option<Timestamp>,
    model: Option<(u32, Place)>,
    tools: BTreeMap<String, (u32, Place)>,
    children: BTreeMap<String, (RunId, Place)>,
    found: Vec<Found>,
    /// The last message, once the run has ended.
    ended: Option<Place>,
    last: Option<Place>,
}

impl Calls {
    fn take(&mut self, event: &RunEvent, place: Place) {
        self.last = Some(place);
        match event {
            RunEvent::Requested(requested) => self.deadline = Some(requested.deadline),
            RunEvent::ModelCalled(call) => self.model_called(call, place),
            RunEvent::ModelReplied(reply) => self.answered(reply.step),
            RunEvent::ModelFailed(failed) => self.answered(failed.step),
            RunEvent::ToolCalled(call) => self.tool_called(call, place),
            RunEvent::ToolReturned(returned) => self.returned(&returned.call_id),
            RunEvent::HandedOff(handed) => {
                let child = (handed.child_run_id, place);
                self.children.insert(handed.call_id.clone(), child);
            }
            RunEvent::ChildEnded(child) => {
                self.children.remove(&child.call_id);
            }
            RunEvent::Finished(_) => {
                self.forget_everything_open();
                self.ended = Some(place);
            }
            RunEvent::Failed(_) | RunEvent::Killed(_) | RunEvent::Cancelled(_) => {
                self.model = None;
                self.tools.clear();
                self.children.clear();
                self.ended = Some(place);
            }
            _ => {}
        }
    }

    fn model_called(&mut self, call: &ModelCalled, place: Place) {
        if let Some((step, asked)) = self.model
            && step != call.step
        {
            self.found.push(asked.found(Gap::NotReplied { step }));
        }
        self.model = Some((call.step, place));
        let stale = |of: &u32| *of < call.step;
        let tools = std::mem::take(&mut self.tools);
        for (call_id, (step, called)) in tools {
            if stale(&step) {
                self.found.push(called.found(Gap::NotReturned { call_id }));
            } else {
                self.tools.insert(call_id, (step, called));
            }
        }
    }

    fn answered(&mut self, step: u32) {
        self.model = self.model.filter(|(open, _)| *open != step);
    }

    fn tool_called(&mut self, call: &ToolCalled, place: Place) {
        self.tools.insert(call.call_id.clone(), (call.step, place));
    }

    fn returned(&mut self, call_id: &str) {
        self.tools.remove(call_id);
        if let Some((child_run_id, handed)) = self.children.remove(call_id) {
            self.found.push(handed.found(Gap::ChildNotEnded { child_run_id }));
        }
    }

    /// Nothing can come any more for what is open.
    fn forget_everything_open(&mut self) {
        if let Some((step, asked)) = self.model.take() {
            self.found.push(asked.found(Gap::NotReplied { step }));
        }
        for (call_id, (_, called)) in std::mem::take(&mut self.tools) {
            if let Some((child_run_id, handed)) = self.children.remove(&call_id) {
                self.found.push(handed.found(Gap::ChildNotEnded { child_run_id }));
            } else {
                self.found.push(called.found(Gap::NotReturned { call_id }));
            }
        }
        for (_, (child_run_id, handed)) in std::mem::take(&mut self.children) {
            self.found.push(handed.found(Gap::ChildNotEnded { child_run_id }));
        }
    }

    fn finish(mut self, evidence: &Evidence, now: Timestamp) -> Vec<Found> {
        if self.ended.is_none()
            && let (Some(deadline), Some(last)) = (self.deadline, self.last)
            && now.duration_since(deadline) > DEADLINE_SLACK
        {
            self.forget_everything_open();
            let last = evidence.links().last().map_or(last.sequence, |link| link.sequence);
            self.found.push(Found { gap: Gap::NotEnded { deadline }, at: deadline, after: last });
        }
        self.found
    }
}

/// Whether the messages of the run are needed by nobody any more: everything that it said or wanted outside is confirmed, or
/// was refused long ago. What was refused stays a gap.
pub fn is_settled(evidence: &Evidence, now: Timestamp) -> bool {
    unconfirmed(evidence, Timestamp::MAX).iter().all(|found| match &found.gap {
        Gap::NotDelivered { decision_id } => evidence.signals.iter().any(|signal| {
            let is_it = matches!(&signal.body, Signal::Undelivered(refused) if refused.decision_id == *decision_id);
            is_it && now.duration_since(signal.time) > KEPT_FOR_REPLAY
        }),
        _ => false,
    })
}

/// What was said or wanted outside, and nobody confirmed.
fn unconfirmed(evidence: &Evidence, now: Timestamp) -> Vec<Found> {
    let mut found = Vec::new();
    for message in &evidence.journal {
        if now.duration_since(message.time) <= ON_ITS_WAY {
            continue;
        }
        let mut events = message.decision.events.iter();
        if events.any(|event| matches!(event, RunEvent::MessageSent(_))) && !is_confirmed(evidence, message, None) {
            let decision_id = message.id.clone();
            found.push(Place::of(message).found(Gap::NotDelivered { decision_id }));
        }
        if let Some(system) = &message.effect
            && !is_confirmed(evidence, message, Some(system.as_str()))
        {
            let gap = Gap::EffectNotDone { decision_id: message.id.clone(), system: system.clone() };
            found.push(Place::of(message).found(gap));
        }
    }
    found
}

fn is_confirmed(evidence: &Evidence, message: &JournalMessage, effect: Option<&str>) -> bool {
    evidence.signals.iter().any(|signal| match (&signal.body, effect) {
        (Signal::Delivered(delivered), None) => delivered.decision_id == message.id,
        (Signal::EffectDone(done), Some(system)) => done.decision_id == message.id && done.system == system,
        _ => false,
    })
}

/// Answers that budget-proxy recorded no call for. A call's idempotency key names its run and step.
fn unmetered(run: RunId, evidence: &Evidence, now: Timestamp) -> Vec<Found> {
    let mut found = Vec::new();
    for message in &evidence.journal {
        if now.duration_since(message.time) <= ON_ITS_WAY {
            continue;
        }
        for event in &message.decision.events {
            let RunEvent::ModelReplied(reply) = event else {
                continue;
            };
            let key = format!("{run}/{}", reply.step);
            if !evidence.calls.iter().any(|call| call.body.idempotency_key == key) {
                let gap = Gap::NotMetered { step: reply.step };
                found.push(Place::of(message).found(gap));
            }
        }
    }
    found
}

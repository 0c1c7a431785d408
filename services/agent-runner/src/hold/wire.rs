//! What a decision is on the wire: its own message, and beside it the signals to parent and children and the first
//! messages of new children. Pure: time and ids are inputs, so a repeat gives the same messages.

use jiff::Timestamp;
use kit::{
    journal::Entry,
    message::{EncodeError, Outgoing},
};
use schemas::{
    Decision, Envelope, EventId, RunEvent, RunId, Signal, Subject, Trigger,
    envelope::DECISION_TYPE,
    event::{ChildEnded, Outcome, Requested},
    ids::{InvalidName, Token},
    signal::ByWhom,
};

use crate::run::RunState;

/// Who writes, as `ce-source`.
const SOURCE: &str = "agent-runner";

/// A message can not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum WireError {
    /// It has no wire form.
    #[error("a message of the run can not be encoded")]
    Encode(#[from] EncodeError),
    /// A name in it is no subject token.
    #[error("a name in the run is no subject token")]
    Name(#[from] InvalidName),
}

/// The messages of one decision of a run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wire<'a> {
    /// The run, the decision applied.
    pub(super) state: &'a RunState,
    /// The decision's id, from which all others derive.
    pub(super) id: &'a EventId,
    /// When it is decided.
    pub(super) now: Timestamp,
}

impl Wire<'_> {
    /// The decision itself. What says something goes where it is said.
    pub(super) fn decision(&self, decision: &Decision) -> Result<Outgoing, WireError> {
        let request = self.state.request();
        let mut envelope = Envelope::new(self.id.clone(), DECISION_TYPE, SOURCE, self.now);
        envelope.run_id = Some(self.state.run_id());
        envelope.parent_run_id = request.parent_run_id;
        envelope.root_run_id = Some(request.root_run_id);
        envelope.agent = Some(request.agent.clone());
        Ok(Outgoing::decision(self.subject(decision)?, envelope, decision)?)
    }

    fn subject(&self, decision: &Decision) -> Result<Subject, InvalidName> {
        let run = self.state.run_id();
        for event in &decision.events {
            if let RunEvent::MessageSent(said) = event {
                return Ok(Subject::Say(run, Token::try_new(said.to.channel.clone())?));
            }
        }
        Ok(Subject::Journal(run))
    }

    /// What an end tells others: the run that handed off that it may go on, open children that nobody waits for them.
    ///
    /// A retry has a parent too. That one has ended, and waits for nothing.
    pub(super) fn signals(&self, decision: &Decision) -> Result<Vec<Entry>, WireError> {
        let Some(end) = decision.events.iter().find(|event| event.is_end()) else {
            return Ok(Vec::new());
        };
        let mut entries = Vec::new();
        if let Trigger::Handoff { parent_run_id, call_id, .. } = &self.state.request().trigger {
            let ended = Signal::ChildEnded(self.child_ended(call_id, end));
            entries.push(self.signal(*parent_run_id, &self.id.derive("child_ended"), &ended)?);
        }
        for child in self.state.open_children() {
            let reason = format!("its parent {} has ended", self.state.run_id());
            let cancel = Signal::Cancel(ByWhom { by: SOURCE.to_owned(), reason });
            entries.push(self.signal(child, &self.id.derive(&child.to_string()), &cancel)?);
        }
        Ok(entries)
    }

    fn child_ended(&self, call_id: &str, end: &RunEvent) -> ChildEnded {
        let (outcome, answer, totals) = match end {
            RunEvent::Finished(end) => (Outcome::Finished, end.answer.clone(), end.totals),
            RunEvent::Failed(end) => (Outcome::Failed, format!("{:?}: {}", end.reason, end.message).into(), end.totals),
            RunEvent::Killed(end) => (Outcome::Killed, format!("by {}: {}", end.by, end.reason).into(), end.totals),
            RunEvent::Cancelled(end) => {
                (Outcome::Cancelled, format!("by {}: {}", end.by, end.reason).into(), end.totals)
            }
            _ => (Outcome::Failed, "".into(), *self.state.totals()),
        };
        ChildEnded {
            call_id: call_id.to_owned(),
            child_run_id: self.state.run_id(),
            outcome,
            answer,
            totals,
            work: self.state.work().cloned(),
        }
    }

    fn signal(&self, run: RunId, id: &EventId, signal: &Signal) -> Result<Entry, WireError> {
        let mut envelope = Envelope::new(id.clone(), signal.kind(), SOURCE, self.now);
        envelope.run_id = Some(run);
        envelope.causation_id = Some(id.clone());
        envelope.agent = Some(self.state.request().agent.clone());
        let subject = Subject::Signal(run, Token::try_new(signal.kind())?);
        Ok(Entry { outgoing: Outgoing::json(subject, envelope, signal)?, expect: None })
    }

    /// The first message of a child.
    pub(super) fn child(&self, child: RunId, requested: Requested) -> Result<Entry, WireError> {
        let subject = Subject::Requested(child, requested.class, requested.agent.clone());
        let mut envelope = Envelope::new(self.id.derive(&child.to_string()), DECISION_TYPE, SOURCE, self.now);
        envelope.run_id = Some(child);
        envelope.parent_run_id = Some(self.state.run_id());
        envelope.root_run_id = Some(requested.root_run_id);
        envelope.causation_id = Some(self.id.clone());
        envelope.agent = Some(requested.agent.clone());
        let decision = Decision { events: vec![RunEvent::Requested(Box::new(requested))] };
        Ok(Entry { outgoing: Outgoing::decision(subject, envelope, &decision)?, expect: Some((child, 0)) })
    }
}

#[cfg(test)]
mod tests {
    use kit::for_test;

    use super::*;
    use crate::run::{Command, End, decide};

    fn parent() -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(1))
    }

    /// What an end of a run with this trigger tells others, as subjects.
    fn told(trigger: Trigger) -> Vec<String> {
        let run = RunId::from_uuid(uuid::Uuid::from_u128(2));
        let (_, request) = for_test::request("coder");
        let first = for_test::first(Requested { trigger, parent_run_id: Some(parent()), depth: 1, ..request });
        let state = RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &first).unwrap();
        let by = ByWhom { by: "ada".into(), reason: String::new() };
        let (state, events) = decide(&state, Command::End(End::Cancel(by), Timestamp::UNIX_EPOCH)).unwrap();
        let (id, now) = (EventId::new("d"), Timestamp::UNIX_EPOCH);
        let signals = Wire { state: &state, id: &id, now }.signals(&Decision { events }).unwrap();
        signals.iter().map(|entry| entry.outgoing.subject.to_string()).collect()
    }

    #[test]
    fn the_end_of_a_child_is_told_to_who_handed_off() {
        let trigger = Trigger::Handoff {
            parent_run_id: parent(),
            decision_id: EventId::new("p"),
            index: 0,
            call_id: "call-1".into(),
        };
        assert_eq!(told(trigger), [Subject::Signal(parent(), Token::try_new("child_ended").unwrap()).to_string()]);
    }

    #[test]
    fn the_end_of_a_retry_is_told_to_nobody() {
        let trigger = Trigger::Retry { of: parent(), by: "ada".into(), key: "1".into() };
        assert_eq!(told(trigger), Vec::<String>::new());
    }
}

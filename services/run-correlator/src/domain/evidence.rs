//! What was read of a run: the messages of its journal, its signals, its model calls, its log lines, and what could not
//! be read. The edge between wire and domain: each message is decoded here, once.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kit::{class::chain, logs::LogLine, message::Verbatim};
use schemas::{Decision, EventId, RunId, Signal, Subject, call::ModelCall, timeline::Gap};

/// Header with which a journal message says which message of its run it came after. The server keeps it.
const AFTER_HEADER: &str = "Nats-Expected-Last-Subject-Sequence";

/// A message of the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalMessage {
    /// Its stream sequence.
    pub sequence: u64,
    /// The run's message that it came after, 0 for the first.
    pub after: Option<u64>,
    /// When it was stored.
    pub time: Timestamp,
    /// Its `ce-id`.
    pub id: EventId,
    /// The outside system that it is a command for.
    pub effect: Option<String>,
    /// What was decided.
    pub decision: Decision,
}

/// A message about a run that is not of its journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Told<T> {
    /// Its stream sequence.
    pub sequence: u64,
    /// When it was stored.
    pub time: Timestamp,
    /// Its `ce-id`.
    pub id: EventId,
    /// Who wrote it.
    pub by: String,
    /// What it says.
    pub body: T,
}

/// A message that can not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// Its stream sequence.
    pub sequence: u64,
    /// As [`JournalMessage::after`].
    pub after: Option<u64>,
    /// When it was stored.
    pub time: Timestamp,
    /// Whether it is of the journal.
    pub in_journal: bool,
    /// Why it can not be read: the whole chain of causes.
    pub reason: String,
}

/// All that was read of a run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Evidence {
    /// The journal, in order.
    pub journal: Vec<JournalMessage>,
    /// The signals, in order.
    pub signals: Vec<Told<Signal>>,
    /// The model calls on the wire, in order.
    pub calls: Vec<Told<ModelCall>>,
    /// What could not be read, in order.
    pub unreadable: Vec<Unreadable>,
    /// The log lines, in order of time.
    pub lines: Vec<LogLine>,
    /// The last message of the journal that a summary ever saw; 0 when none is known.
    pub known_last: u64,
    /// What is missing beyond messages, found while reading.
    pub missing: Vec<Gap>,
}

/// A message of the journal, decoded or not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link<'a> {
    /// Its stream sequence.
    pub sequence: u64,
    /// As [`JournalMessage::after`].
    pub after: Option<u64>,
    /// When it was stored.
    pub time: Timestamp,
    /// What was decided; none when it can not be read.
    pub decision: Option<&'a Decision>,
}

impl Evidence {
    /// What `messages`, of one run and in any order, say. A message that comes twice is taken once.
    pub fn of(messages: &[Verbatim]) -> Self {
        let mut sorted: Vec<_> = messages.iter().collect();
        sorted.sort_by_key(|message| message.sequence);
        sorted.dedup_by_key(|message| message.sequence);
        let mut evidence = Self::default();
        for message in sorted {
            evidence.take(message);
        }
        evidence
    }

    fn take(&mut self, message: &Verbatim) {
        if let Err(reason) = self.try_take(message) {
            self.unreadable.push(Unreadable {
                sequence: message.sequence,
                after: after(message),
                time: message.time,
                in_journal: after(message).is_some(),
                reason,
            });
        }
    }

    fn try_take(&mut self, message: &Verbatim) -> Result<(), String> {
        let told = |error: kit::message::DecodeError| chain(&error);
        let stored = message.stored().map_err(told)?;
        let (sequence, time) = (stored.sequence, stored.time);
        let (id, by) = (stored.envelope.id.clone(), stored.envelope.source.clone());
        match &stored.subject {
            Subject::Signal(..) => {
                let body = stored.decode().map_err(told)?;
                self.signals.push(Told { sequence, time, id, by, body });
            }
            Subject::Call(_) => {
                let body = stored.decode().map_err(told)?;
                self.calls.push(Told { sequence, time, id, by, body });
            }
            subject => {
                let effect = match subject {
                    Subject::Effect(_, system) => Some(system.to_string()),
                    _ => None,
                };
                let decision = stored.decode().map_err(told)?;
                let after = stored.after;
                self.journal.push(JournalMessage { sequence, after, time, id, effect, decision });
            }
        }
        Ok(())
    }

    /// The journal with what could not be read of it, in order.
    pub fn links(&self) -> Vec<Link<'_>> {
        let readable = self.journal.iter().map(JournalMessage::link);
        let unreadable = self.unreadable.iter().filter(|message| message.in_journal).map(|message| Link {
            sequence: message.sequence,
            after: message.after,
            time: message.time,
            decision: None,
        });
        let mut links: Vec<_> = readable.chain(unreadable).collect();
        links.sort_by_key(|link| link.sequence);
        links
    }

    /// The children that the run started, in order.
    pub fn children(&self) -> Vec<RunId> {
        let mut seen = BTreeSet::new();
        let events = self.journal.iter().flat_map(|message| &message.decision.events);
        events
            .filter_map(|event| match event {
                schemas::RunEvent::HandedOff(handed) => Some(handed.child_run_id),
                _ => None,
            })
            .filter(|child| seen.insert(*child))
            .collect()
    }
}

impl JournalMessage {
    /// The message as a link of the journal's chain.
    pub const fn link(&self) -> Link<'_> {
        Link { sequence: self.sequence, after: self.after, time: self.time, decision: Some(&self.decision) }
    }
}

fn after(message: &Verbatim) -> Option<u64> {
    message.header(AFTER_HEADER)?.parse().ok()
}

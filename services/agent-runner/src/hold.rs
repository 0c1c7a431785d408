//! Holding a run: the one way to append to it.
//!
//! A [`Held`] run owns the fold of its journal and the sequence that its next append expects. What was decided waits in
//! a buffer until [`Held::flush`]; a holder must flush before every effect and before every wait, so that nothing is
//! done that is not in the log, and decisions that need no effect in between share a message.
//!
//! When another runner has appended, the append is refused and the hold is [`HoldError::Lost`]: from then on this
//! process neither writes nor acts for the run, and abandons its wake without ack or nak.

mod buffer;
mod wire;

use std::time::Duration;

use kit::{
    class::{Classified as _, ErrorClass, chain},
    clock,
    journal::{AppendError, Appender, Entry},
    message::{EncodeError, Outgoing},
};
use schemas::{
    AgentName, Decision, EventId, RunEvent, RunId, SavedState, Subject,
    event::{FailReason, HandedOff, Requested, ResumeCause},
    ids::InvalidName,
};
use tokio_util::sync::CancellationToken;

use crate::{
    probe::{Place, Probe},
    run::{Command, Corrupt, End, Illegal, Phase, RunState, decide},
};

use buffer::Buffer;
use wire::{Wire, WireError};

/// Pause between tries of an append while the bus is away. The journal waits for the bus: nothing may happen meanwhile.
pub(crate) const APPEND_RETRY: Duration = Duration::from_millis(200);

/// Why a holder stops.
#[derive(Debug, thiserror::Error)]
pub enum HoldError {
    /// Another runner holds the run now.
    #[error("another runner holds the run")]
    Lost,
    /// This process shuts down.
    #[error("the runner is shutting down")]
    ShuttingDown,
    /// The state does not allow what was wanted: a mistake of ours.
    #[error("a step of the run is not possible")]
    Illegal(#[from] Illegal),
    /// The journal can not be folded.
    #[error("the journal is corrupt")]
    Corrupt(#[from] Corrupt),
    /// The bus refuses the append for good.
    #[error("the journal can not be written")]
    Append(#[source] AppendError),
    /// A message of the run has no wire form.
    #[error("a message of the run can not be encoded")]
    Encode(#[source] EncodeError),
    /// A name in the run is no subject token.
    #[error("a name in the run is no subject token")]
    Name(#[source] InvalidName),
}

impl From<WireError> for HoldError {
    fn from(error: WireError) -> Self {
        match error {
            WireError::Encode(error) => Self::Encode(error),
            WireError::Name(error) => Self::Name(error),
        }
    }
}

/// A run that this process holds, or is about to take.
#[derive(Debug)]
pub struct Held {
    state: RunState,
    appender: Appender,
    buffer: Buffer,
    epoch: u64,
    probe: Probe,
    shutdown: CancellationToken,
}

impl Held {
    /// A run whose journal was folded into `state`. It is held once a `Take` is flushed.
    pub fn new(state: RunState, appender: Appender, probe: Probe, shutdown: CancellationToken) -> Self {
        Self { state, appender, buffer: Buffer::default(), epoch: 0, probe, shutdown }
    }

    /// The run's state, with what waits in the buffer.
    pub const fn state(&self) -> &RunState {
        &self.state
    }

    /// The run.
    pub const fn run_id(&self) -> RunId {
        self.state.run_id()
    }

    /// The agent.
    pub fn agent(&self) -> &AgentName {
        &self.state.request().agent
    }

    /// The stream sequence of the message that opened this epoch; 0 before it is in the log.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether everything decided is in the log.
    pub const fn is_flushed(&self) -> bool {
        self.buffer.before.is_none()
    }

    /// Goes on from the saved state that the run's request names.
    pub fn go_on_from(&mut self, saved: &SavedState) {
        self.state.go_on_from(saved);
        if let Some(before) = &mut self.buffer.before {
            before.go_on_from(saved);
        }
    }

    /// Decides, and keeps the events for the next flush.
    pub fn decide(&mut self, command: Command) -> Result<(), HoldError> {
        let (after, events) = decide(&self.state, command)?;
        let before = std::mem::replace(&mut self.state, after);
        self.buffer.push(before, events);
        Ok(())
    }

    /// Decides to give a task to a child. The child is requested with the next flush.
    pub fn hand_off(&mut self, handed: HandedOff, requested: Requested) -> Result<(), HoldError> {
        let child = handed.child_run_id;
        self.decide(Command::HandOff(handed))?;
        self.buffer.children.push((child, requested));
        Ok(())
    }

    /// Puts what was decided into the log. Does nothing when there is nothing.
    ///
    /// The end of a run goes where its reply goes, with the parent's `child_ended` and the children's `cancel` in the
    /// same atomic batch; so does a handoff with the first message of the child. What is too large for one message is put
    /// decision by decision, and a run of which one alone is too large ends: whoever calls this must look whether it did.
    pub async fn flush(&mut self) -> Result<(), HoldError> {
        let Buffer { before: Some(before), events, lengths, children } = std::mem::take(&mut self.buffer) else {
            return Ok(());
        };
        let all = Decision { events };
        match self.put(&all, &children).await {
            Err(HoldError::Append(AppendError::TooLarge { bytes, .. })) => {
                tracing::info!(bytes, decisions = lengths.len(), "too much for one message: one by one");
                self.state = before;
                self.put_apart(buffer::apart(all.events, &lengths), &children).await
            }
            put => put,
        }
    }

    /// Puts decisions into messages of their own. Each is applied as it is put, for what is not put did not happen.
    async fn put_apart(&mut self, decisions: Vec<Decision>, children: &[(RunId, Requested)]) -> Result<(), HoldError> {
        let mut decisions = decisions.into_iter();
        while let Some(decision) = decisions.next() {
            let before = self.state.clone();
            for event in &decision.events {
                self.state.apply(event)?;
            }
            match self.put(&decision, &buffer::of(children, &decision)).await {
                Err(HoldError::Append(error @ AppendError::TooLarge { .. })) => {
                    tracing::error!(error = %chain(&error), "a decision does not fit into a message: the run ends");
                    self.state = before;
                    let dropped = [decision].into_iter().chain(decisions).collect::<Vec<_>>();
                    return self.end_without(&dropped).await;
                }
                put => put?,
            }
        }
        Ok(())
    }

    /// Ends the run, as was decided or else because of them, without decisions that do not fit into its journal. What a
    /// model was paid for an answer among them is kept.
    async fn end_without(&mut self, dropped: &[Decision]) -> Result<(), HoldError> {
        let mut kept = Vec::new();
        for failed in buffer::unkept_answers(dropped, &self.state) {
            let (after, events) = decide(&self.state, Command::ModelFail(failed))?;
            self.state = after;
            kept.extend(events);
        }
        if let Some(end) = buffer::other_end(dropped) {
            for event in &end.events {
                self.state.apply(event)?;
            }
            kept.extend(end.events.iter().cloned());
        } else {
            let message = "what the last step came to does not fit into the run's journal".to_owned();
            let (after, events) =
                decide(&self.state, Command::End(End::Fail(FailReason::JournalFull, message), clock::now()))?;
            self.state = after;
            kept.extend(events);
        }
        self.put(&Decision { events: kept }, &[]).await
    }

    async fn put(&mut self, decision: &Decision, children: &[(RunId, Requested)]) -> Result<(), HoldError> {
        let id = EventId::new(clock::uuid7().to_string());
        let wire = Wire { state: &self.state, id: &id, now: clock::now() };
        let message = wire.decision(decision)?;
        let bytes = message.body.len() as u64;
        let mut others = wire.signals(decision)?;
        for (child, requested) in children {
            others.push(wire.child(*child, requested.clone())?);
        }
        let kinds = decision.kinds();
        self.probe.at(self.run_id(), self.agent(), Place::BeforeAppend, &kinds);
        let sequence = self.append(message, others).await?;
        self.probe.at(self.run_id(), self.agent(), Place::AfterAppend, &kinds);
        self.state.appended(sequence, bytes);
        if decision.events.iter().any(RunEvent::opens_epoch) {
            self.epoch = sequence;
        }
        if decision.events.iter().any(was_lost) {
            self.tell_earlier().await;
        }
        Ok(())
    }

    /// Tells who held the run before that it was taken over: it may only have been stopped or cut off, and its tools run
    /// still. What does not arrive it finds out when it writes.
    async fn tell_earlier(&self) {
        let subject = Subject::Hold(self.run_id()).to_string();
        let told = self.appender.journal().bus().client().publish(subject, self.state.epoch().to_string().into()).await;
        if let Err(error) = told {
            tracing::debug!(error = %chain(&error), "an earlier holder could not be told");
        }
    }

    /// Waits for the bus as long as it takes: a repeat carries the same id, so that an append whose ack was lost is
    /// found in the log and not written twice.
    async fn append(&self, message: Outgoing, others: Vec<Entry>) -> Result<u64, HoldError> {
        let (run, expected) = (self.run_id(), self.state.last_sequence());
        loop {
            let appended = if others.is_empty() {
                self.appender.append(run, expected, message.clone()).await
            } else {
                let first = Entry { outgoing: message.clone(), expect: Some((run, expected)) };
                let entries = [first].into_iter().chain(others.iter().cloned()).collect();
                self.appender
                    .journal()
                    .append_batch(entries)
                    .await
                    .map(|sequences| sequences.first().copied().unwrap_or(expected))
            };
            match appended {
                Ok(sequence) => return Ok(sequence),
                Err(AppendError::Conflict { .. }) => return Err(HoldError::Lost),
                Err(error) if error.class() == ErrorClass::Transient => {
                    tracing::warn!(error = %chain(&error), "the journal can not be written now");
                }
                Err(error) => return Err(HoldError::Append(error)),
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(HoldError::ShuttingDown),
                () = tokio::time::sleep(APPEND_RETRY) => {}
            }
        }
    }

    /// Whether the run has ended.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state.phase(), Phase::Ended(_))
    }
}

/// Whether the run was taken from a holder that did not answer.
fn was_lost(event: &RunEvent) -> bool {
    matches!(event, RunEvent::Resumed(resumed) if resumed.cause == ResumeCause::HolderLost)
}

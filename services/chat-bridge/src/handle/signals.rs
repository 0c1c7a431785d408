//! Facts for runs that are under way.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::DirectGetErrorKind;
use kit::{
    bus::PublishError,
    class::{Classified, ErrorClass},
    journal::{ReadError, STREAM},
    message::{DecodeError, EncodeError, Outgoing, Stored},
};
use schemas::{
    AgentName, Decision, Envelope, EventId, RunEvent, RunId, Signal, Subject,
    ids::{InvalidName, Token},
};

use super::{Project, SOURCE};
use crate::{domain::inbound::Tell, ports::Cause};

/// The kind of what a person says to a run.
const MESSAGE: &str = "message";

/// A signal was not given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SignalError {
    /// Its name is no token: a mistake of this crate.
    #[error("a signal has no name for its subject")]
    Name(#[source] InvalidName),
    /// It has no wire form.
    #[error("a signal can not be encoded")]
    Encode(#[source] EncodeError),
    /// The bus did not take it.
    #[error("a signal is not published")]
    Publish(#[source] PublishError),
    /// The run can not be looked at.
    #[error("a run can not be looked at")]
    Read(#[source] ReadError),
    /// A decision of the run can not be read.
    #[error("what a run has taken can not be read")]
    Decode(#[source] DecodeError),
    /// The signals of a run can not be looked at.
    #[error("what a run was told can not be looked at")]
    Look(#[source] Cause),
}

impl Classified for SignalError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Name(_) | Self::Encode(_) => ErrorClass::Broken,
            Self::Publish(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Decode(error) => error.class(),
            Self::Look(_) => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "signal_name",
            Self::Encode(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Decode(error) => error.code(),
            Self::Look(_) => "bus_unavailable",
        }
    }
}

/// A signal as a message; the same id is the same signal.
pub(super) fn outgoing(run: RunId, id: EventId, signal: &Signal) -> Result<Outgoing, SignalError> {
    let name = Token::try_new(signal.kind()).map_err(SignalError::Name)?;
    let envelope = Envelope::new(id, signal.kind(), SOURCE, kit::clock::now());
    Outgoing::json(Subject::Signal(run, name), envelope, signal).map_err(SignalError::Encode)
}

/// Publishes a signal.
pub(super) async fn give(project: &Project, signal: &Outgoing) -> Result<(), SignalError> {
    project.bus.publish(signal).await.map_err(SignalError::Publish)?;
    Ok(())
}

/// What became of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    /// The run goes on, or there is none.
    InTime,
    /// The run has ended: it may have taken the signal or not.
    Late,
}

/// Publishes a signal for a run that is there and has not ended. A run may end while that is done, so it is looked at once
/// more; and one that ends later is looked at when its end is said, by [`unheard`].
pub(super) async fn give_if_open(project: &Project, run: RunId, signal: &Outgoing) -> Result<Given, SignalError> {
    let ended = |last: &Stored| last.is_end() || last.has("archived");
    let mut last = project.journal.last(run).await.map_err(SignalError::Read)?;
    if last.as_ref().is_some_and(|last| !ended(last)) {
        give(project, signal).await?;
        last = project.journal.last(run).await.map_err(SignalError::Read)?;
    }
    Ok(if last.as_ref().is_some_and(ended) { Given::Late } else { Given::InTime })
}

/// The messages that a run has ended without.
pub(super) async fn unheard(project: &Project, run: RunId) -> Result<Vec<EventId>, SignalError> {
    let name = Token::try_new(MESSAGE).map_err(SignalError::Name)?;
    let stream =
        project.bus.jetstream().get_stream_no_info(STREAM).await.map_err(|error| SignalError::Look(error.into()))?;
    // Hardly any run has one, and to find the last one costs the server nothing.
    match stream.direct_get_last_for_subject(Subject::Signal(run, name).to_string()).await {
        Ok(_) => {}
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(SignalError::Look(error.into())),
    }
    let signals = project.journal.signals(run, 1).await.map_err(SignalError::Read)?;
    let taken = taken(project, run).await?;
    let messages = signals.into_iter().filter(|signal| signal.envelope.kind == MESSAGE);
    Ok(messages.map(|signal| signal.envelope.id).filter(|id| !taken.contains(id)).collect())
}

/// What is said about a message that a run has ended without; the same about the same one.
pub(super) fn too_late(id: &EventId, agent: &AgentName, room: &str, thread: Option<String>) -> Tell {
    Tell {
        room: room.to_owned(),
        thread,
        key: format!("late/{id}"),
        text: format!(
            "**{agent}** had ended its work before it could read what you changed here. Please write a new message if it matters."
        ),
    }
}

/// The signals that are in the journal of a run.
pub(super) async fn taken(project: &Project, run: RunId) -> Result<BTreeSet<EventId>, SignalError> {
    let mut taken = BTreeSet::new();
    for message in project.journal.read(run, 1).await.map_err(SignalError::Read)? {
        let decision: Decision = message.decode().map_err(SignalError::Decode)?;
        taken.extend(decision.events.into_iter().filter_map(|event| match event {
            RunEvent::SignalTaken(taken) => Some(taken.signal_id),
            _ => None,
        }));
    }
    Ok(taken)
}

//! Facts for runs that are under way.

use std::collections::BTreeSet;

use async_nats::jetstream::stream::LastRawMessageErrorKind;
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
    /// A replica of the log lags behind what is known to be there.
    #[error("the log can not be read up to message {up_to} yet")]
    Lags {
        /// The sequence.
        up_to: u64,
    },
}

impl Classified for SignalError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Name(_) | Self::Encode(_) => ErrorClass::Broken,
            Self::Publish(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Decode(error) => error.class(),
            Self::Look(_) | Self::Lags { .. } => ErrorClass::Transient,
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
            Self::Lags { .. } => "log_lags",
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
    /// The run has ended: it may have taken the signal or not, in what is decided up to here.
    Late(u64),
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
    Ok(last.filter(ended).map_or(Given::InTime, |last| Given::Late(last.sequence)))
}

/// The messages that a run has ended without, its end being at a sequence.
pub(super) async fn unheard(project: &Project, run: RunId, end: u64) -> Result<Vec<EventId>, SignalError> {
    let name = Token::try_new(MESSAGE).map_err(SignalError::Name)?;
    let stream =
        project.bus.jetstream().get_stream_no_info(STREAM).await.map_err(|error| SignalError::Look(error.into()))?;
    // Hardly any run has one, and to find the last one costs the server nothing. The stream's leader has it at once.
    let last = match stream.get_last_raw_message_by_subject(&Subject::Signal(run, name).to_string()).await {
        Ok(last) => last.sequence,
        Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(Vec::new()),
        Err(error) => return Err(SignalError::Look(error.into())),
    };
    let signals = project.journal.signals(run, 1).await.map_err(SignalError::Read)?;
    check_read(&signals, last)?;
    let taken = taken(project, run, 1, end).await?;
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

/// The signals that are in the journal of a run, which begins at `first` or later and is read at least to `end`.
pub(super) async fn taken(
    project: &Project,
    run: RunId,
    first: u64,
    end: u64,
) -> Result<BTreeSet<EventId>, SignalError> {
    let journal = project.journal.read(run, first).await.map_err(SignalError::Read)?;
    check_read(&journal, end)?;
    let mut taken = BTreeSet::new();
    for message in journal {
        let decision: Decision = message.decode().map_err(SignalError::Decode)?;
        taken.extend(decision.events.into_iter().filter_map(|event| match event {
            RunEvent::SignalTaken(taken) => Some(taken.signal_id),
            _ => None,
        }));
    }
    Ok(taken)
}

/// Refuses what was read of a replica that does not have all up to a sequence yet.
fn check_read(messages: &[Stored], up_to: u64) -> Result<(), SignalError> {
    let reaches = messages.last().is_some_and(|last| last.sequence >= up_to);
    if reaches { Ok(()) } else { Err(SignalError::Lags { up_to }) }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn what_a_replica_does_not_have_yet_is_looked_for_again() {
        let run = RunId::from_uuid(kit::clock::uuid7());
        let time = Timestamp::UNIX_EPOCH;
        let message = |sequence: u64| Stored {
            subject: Subject::Journal(run),
            envelope: Envelope::new(EventId::new(sequence.to_string()), "decision", SOURCE, time),
            kinds: Vec::new(),
            sequence,
            after: None,
            time,
            body: "".into(),
        };
        assert!(check_read(&[message(3), message(7)], 7).is_ok());
        assert!(check_read(&[message(9)], 7).is_ok(), "an archived run has only what says so");
        for lagging in [vec![message(3)], Vec::new()] {
            let error = check_read(&lagging, 7).unwrap_err();
            assert_eq!(error.class(), ErrorClass::Transient);
        }
    }
}

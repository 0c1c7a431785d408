//! Facts for runs that are under way.

use kit::{
    bus::PublishError,
    class::{Classified, ErrorClass},
    journal::ReadError,
    message::{EncodeError, Outgoing},
};
use schemas::{
    Envelope, EventId, RunId, Signal, Subject,
    ids::{InvalidName, Token},
};

use super::{Project, SOURCE};

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
}

impl Classified for SignalError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Name(_) | Self::Encode(_) => ErrorClass::Broken,
            Self::Publish(error) => error.class(),
            Self::Read(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "signal_name",
            Self::Encode(error) => error.code(),
            Self::Publish(error) => error.code(),
            Self::Read(error) => error.code(),
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

/// Publishes a signal for a run that is there and has not ended.
pub(super) async fn give_if_open(project: &Project, run: RunId, signal: &Outgoing) -> Result<(), SignalError> {
    match project.journal.last(run).await.map_err(SignalError::Read)? {
        Some(last) if !last.is_end() && !last.has("archived") => give(project, signal).await,
        _ => Ok(()),
    }
}

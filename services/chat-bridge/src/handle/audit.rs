//! One line in the audit room for each run that ends.
//!
//! Consumes: `swarm.run.>`. Emits: messages through the port. Idempotency: a line's id derives from the decision that
//! ends the run. Ordering: none that matters. On failure: a room that can not be reached is tried later; a line that the
//! room does not take is parked.

use kit::{
    class::{Classified, ErrorClass},
    consume::{Delivery, Fate},
    journal::ReadError,
    message::{DecodeError, Stored},
};
use schemas::{Decision, RunEvent, event::Requested};

use super::{Project, SURELY_REMEMBERED};
use crate::{
    domain::{audit, transaction},
    ports::{Body, Deliver, DeliverError, Outgoing},
};

/// Ends that are older when they are first seen are history: a new audit room does not begin with all of it.
const MAX_AGE: jiff::SignedDuration = jiff::SignedDuration::from_hours(24);

/// A line is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// A decision can not be read.
    #[error("the end of a run can not be read")]
    Decode(#[source] DecodeError),
    /// The run can not be read.
    #[error("a run that ended can not be read")]
    Read(#[source] ReadError),
    /// The room did not take it.
    #[error("the audit room is not told")]
    Deliver(#[source] DeliverError),
}

impl Classified for AuditError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(error) => error.class(),
            Self::Read(error) => error.class(),
            Self::Deliver(DeliverError::Refused { .. }) => ErrorClass::Broken,
            Self::Deliver(DeliverError::Unavailable { .. }) => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Deliver(DeliverError::Refused { .. }) => "room_refused",
            Self::Deliver(DeliverError::Unavailable { .. }) => "room_unavailable",
        }
    }
}

/// Tells one room of ends.
#[derive(Debug, Clone)]
pub(crate) struct Audit<D> {
    pub(crate) project: Project,
    pub(crate) sender: D,
    /// The room's name.
    pub(crate) room: String,
}

impl<D: Deliver> Audit<D> {
    pub(crate) async fn handle(&self, delivery: Delivery) -> Result<Fate, AuditError> {
        let stored = &delivery.stored;
        let age = kit::clock::now().duration_since(stored.time);
        let Some(run_id) = stored.run_id() else {
            return Ok(Fate::Ack);
        };
        if !stored.is_end() || age > MAX_AGE {
            return Ok(Fate::Ack);
        }
        let first = self.project.journal.first(run_id).await.map_err(AuditError::Read)?;
        let Some(requested) = first.as_ref().map(requested).transpose()?.flatten() else {
            return Ok(Fate::Ack);
        };
        let decision: Decision = stored.decode().map_err(AuditError::Decode)?;
        for end in &decision.events {
            let Some(line) = audit::line(run_id, &requested, end) else {
                continue;
            };
            let outgoing = Outgoing {
                id: transaction::id(&stored.envelope.id.derive("audit"), 0),
                room: self.room.clone(),
                thread: None,
                body: Body::Text(line),
                run_id: Some(run_id),
                notice: true,
                maybe_sent: delivery.attempt > 1 || age > SURELY_REMEMBERED,
            };
            self.sender.deliver(&outgoing).await.map_err(AuditError::Deliver)?;
        }
        Ok(Fate::Ack)
    }
}

/// What a run was asked; nothing when its beginning is archived already.
fn requested(first: &Stored) -> Result<Option<Requested>, AuditError> {
    let decision: Decision = first.decode().map_err(AuditError::Decode)?;
    Ok(decision.events.into_iter().find_map(|event| match event {
        RunEvent::Requested(requested) => Some(*requested),
        _ => None,
    }))
}

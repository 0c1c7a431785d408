//! One line in the audit room for each run that ends, and one for all that ended long before it could be told.
//!
//! Consumes: `swarm.run.>`. Emits: messages through the port. Idempotency: a line's id derives from the decision that
//! ends the run, or from how far the consumer was when the bridge began. Ordering: before anything is acknowledged, the log
//! behind that place is looked through once for ends that are history, and no end is acknowledged before these are told. On
//! failure: a room that can not be reached is tried later; a line that the room does not take is parked.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{
    class::{Classified, ErrorClass, chain},
    consume::{Delivery, Fate},
    consumer,
    journal::{ReadError, STREAM},
    message::{DecodeError, Stored},
    scan::ScanError,
};
use schemas::{Decision, EventId, RunEvent, RunId, event::Requested, subject::filter};
use tokio::sync::OnceCell;

use super::{Project, SURELY_REMEMBERED};
use crate::{
    domain::{
        audit,
        seen::{self, End, Seen},
        transaction,
    },
    ports::{Body, Cause, Deliver, DeliverError, Outgoing},
};

/// A line is not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AuditError {
    /// A decision can not be read.
    #[error("the end of a run can not be read")]
    Decode(#[source] DecodeError),
    /// The run can not be read.
    #[error("a run that ended can not be read")]
    Read(#[source] ReadError),
    /// It is not known what was told.
    #[error("the consumer of ends can not be looked at")]
    Consumer(#[source] Cause),
    /// The ends that are history can not be counted.
    #[error("the log can not be looked through for ends")]
    Scan(#[source] ScanError),
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
            Self::Scan(error) => error.class(),
            Self::Consumer(_) | Self::Deliver(DeliverError::Unavailable { .. }) => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::Read(error) => error.code(),
            Self::Consumer(_) => "bus_unavailable",
            Self::Scan(error) => error.code(),
            Self::Deliver(DeliverError::Refused { .. }) => "room_refused",
            Self::Deliver(DeliverError::Unavailable { .. }) => "room_unavailable",
        }
    }
}

/// Tells one room of ends.
#[derive(Debug, Clone)]
pub(crate) struct Audit<D> {
    project: Project,
    sender: D,
    /// The room's name.
    room: String,
    beginning: Arc<OnceCell<Beginning>>,
    /// Set once the ends that were history at the beginning are told.
    told: Arc<OnceCell<()>>,
}

/// What there was when the bridge began.
#[derive(Debug)]
struct Beginning {
    /// What the consumer was done with.
    floor: u64,
    /// How many ends behind that were history.
    missed: usize,
    /// These, and all up to `floor`.
    history: Seen,
    /// What is told, these included.
    seen: Mutex<Seen>,
}

impl Beginning {
    /// Whether the end that a message is, or stands for, needs no line.
    ///
    /// That of an end which the consumer was done with says nothing: it may have been parked, and is replayed. A line that is
    /// written again has the same id, and is one.
    fn is_told(&self, stored: &Stored, end: End) -> bool {
        if stored.is_end() {
            return end.sequence > self.floor && self.history.has(end.sequence);
        }
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).has(end.sequence)
    }

    fn add(&self, end: End) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).add(end.sequence);
    }
}

impl<D: Deliver> Audit<D> {
    pub(crate) fn new(project: Project, sender: D, room: String) -> Self {
        Self { project, sender, room, beginning: Arc::default(), told: Arc::default() }
    }

    pub(crate) async fn handle(&self, delivery: Delivery) -> Result<Fate, AuditError> {
        let stored = &delivery.stored;
        let beginning = self.beginning.get_or_try_init(|| self.begin()).await?;
        let (Some(run_id), Some(end)) = (stored.run_id(), end(stored)) else {
            return Ok(Fate::Ack);
        };
        self.told.get_or_try_init(|| self.tell_missed(beginning)).await?;
        if !beginning.is_told(stored, end) && self.tell(run_id, &delivery).await? {
            beginning.add(end);
        }
        Ok(Fate::Ack)
    }

    /// Looks for ends that are history, behind what the consumer was done with.
    async fn begin(&self) -> Result<Beginning, AuditError> {
        let floor = self.floor().await?;
        let now = kit::clock::now();
        let (mut seen, mut missed) = (Seen::up_to(floor), 0);
        let mut next = Some(floor + 1);
        while let Some(from) = next {
            let page = self.project.bus.scan(STREAM, filter::RUNS, from).await.map_err(AuditError::Scan)?;
            // What is not readable is parked when it is delivered.
            for end in page.messages.iter().filter_map(|message| end(&message.stored().ok()?)) {
                if end.is_history(now) && !seen.has(end.sequence) {
                    seen.add(end.sequence);
                    missed += 1;
                }
            }
            next = page.next;
        }
        Ok(Beginning { floor, missed, history: seen.clone(), seen: Mutex::new(seen) })
    }

    /// The sequence up to which the consumer is done.
    async fn floor(&self) -> Result<u64, AuditError> {
        let stream = self.project.bus.jetstream().get_stream_no_info(STREAM).await;
        let stream = stream.map_err(|error| AuditError::Consumer(error.into()))?;
        let info = stream.consumer_info(consumer::CHAT_AUDIT.name).await;
        Ok(info.map_err(|error| AuditError::Consumer(error.into()))?.ack_floor.stream_sequence)
    }

    /// Writes one line about all ends that were history at the beginning.
    async fn tell_missed(&self, beginning: &Beginning) -> Result<(), AuditError> {
        let Beginning { floor, missed, .. } = *beginning;
        if missed == 0 {
            return Ok(());
        }
        let cause = EventId::new(format!("audit/missed/{floor}"));
        match self.write(&cause, seen::missed(missed), None, true).await {
            // There is no message to park for it. The ends themselves stay in the log and its archives.
            Err(error) if error.class() == ErrorClass::Broken => {
                tracing::error!(error = chain(&error), missed, "the audit room is not told of runs that ended");
                Ok(())
            }
            result => result,
        }
    }

    /// Writes the line of a run that ended. False when there is nothing to say yet.
    async fn tell(&self, run_id: RunId, delivery: &Delivery) -> Result<bool, AuditError> {
        let stored = &delivery.stored;
        let age = kit::clock::now().duration_since(stored.time);
        let maybe_sent = delivery.attempt > 1 || age > SURELY_REMEMBERED;
        let cause = stored.envelope.id.derive("audit");
        if !stored.is_end() {
            self.write(&cause, audit::archived(run_id), Some(run_id), maybe_sent).await?;
            return Ok(true);
        }
        let first = self.project.journal.first(run_id).await.map_err(AuditError::Read)?;
        // It is being archived: what says so is read later, and told.
        let Some(requested) = first.as_ref().map(requested).transpose()?.flatten() else {
            return Ok(false);
        };
        let decision: Decision = stored.decode().map_err(AuditError::Decode)?;
        for end in &decision.events {
            if let Some(line) = audit::line(run_id, &requested, end) {
                self.write(&cause, line, Some(run_id), maybe_sent).await?;
            }
        }
        Ok(true)
    }

    async fn write(
        &self,
        cause: &EventId,
        line: String,
        run_id: Option<RunId>,
        maybe_sent: bool,
    ) -> Result<(), AuditError> {
        let outgoing = Outgoing {
            id: transaction::id(cause, 0),
            room: self.room.clone(),
            thread: None,
            body: Body::Text(line),
            run_id,
            notice: true,
            maybe_sent,
        };
        self.sender.deliver(&outgoing).await.map_err(AuditError::Deliver)?;
        Ok(())
    }
}

/// The end that a message is or, archived, stands for.
fn end(stored: &Stored) -> Option<End> {
    if stored.is_end() {
        return Some(End { sequence: stored.sequence, at: Some(stored.time) });
    }
    // Only what has ended is archived, and nothing comes between.
    let sequence = stored.after.filter(|_| stored.has("archived"))?;
    Some(End { sequence, at: None })
}

/// What a run was asked; nothing when its beginning is archived already.
fn requested(first: &Stored) -> Result<Option<Requested>, AuditError> {
    let decision: Decision = first.decode().map_err(AuditError::Decode)?;
    Ok(decision.events.into_iter().find_map(|event| match event {
        RunEvent::Requested(requested) => Some(*requested),
        _ => None,
    }))
}

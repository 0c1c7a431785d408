//! Ticks that wake a run at a point in time: NATS message schedules, no timer of ours.
//!
//! A tick is only a nudge. Whoever hears it looks at the run's journal and at the clock; a tick too many is harmless,
//! and one definition a run (a later one replaces it) bounds how many there are.

use async_nats::header::HeaderMap;
use async_nats::jetstream::context::PublishError;
use jiff::Timestamp;
use schemas::{Envelope, EventId, RunId, Subject, subject::filter};

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};
use crate::clock;
use crate::message::{EncodeError, Outgoing};
use crate::scan::ScanError;

/// The stream of schedules and their ticks.
const STREAM: &str = "SCHEDULES";

/// When the tick fires, as `@at <RFC 3339>`.
const SCHEDULE: &str = "Nats-Schedule";
/// Where the tick goes.
const TARGET: &str = "Nats-Schedule-Target";
/// How long a tick lies in the stream for a consumer that is away.
const TTL: &str = "Nats-Schedule-TTL";
/// A day. What waits then is also woken by its children, and runners assert the ticks of what waits again: a tick that
/// nobody took is missed by none of them for good.
const TICK_TTL: &str = "24h";

/// A tick could not be scheduled.
#[derive(Debug, thiserror::Error)]
pub enum DueError {
    /// The definition has no wire form.
    #[error("the tick of run {run} can not be encoded")]
    Encode {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// The bus did not take it.
    #[error("the tick of run {run} can not be scheduled now")]
    Publish {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: PublishError,
    },
}

impl Classified for DueError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Encode { .. } => ErrorClass::Broken,
            Self::Publish { .. } => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        "due_tick"
    }
}

/// Asks for a tick on `swarm.schedule.due.<run>` at `at`; replaces an earlier one for the run.
pub async fn schedule(bus: &Bus, run: RunId, at: Timestamp) -> Result<(), DueError> {
    let failed = |source| DueError::Publish { run, source };
    let (subject, headers) = definition(bus.service(), run, at).map_err(|source| DueError::Encode { run, source })?;
    let ack = bus.jetstream().publish_with_headers(subject, headers, "{}".into()).await.map_err(failed)?;
    ack.await.map_err(failed)?;
    Ok(())
}

/// The runs that have a tick ahead. Every run that waits is among them, because the tick is scheduled first, unless its tick
/// was lost.
pub async fn scheduled(bus: &Bus) -> Result<Vec<RunId>, ScanError> {
    let definitions = bus.scan_all(STREAM, filter::DUE_AT, 1).await?;
    let run = |subject: &str| subject.parse::<Subject>().ok().and_then(|subject| subject.run_id());
    Ok(definitions.iter().filter_map(|definition| run(&definition.subject)).collect())
}

fn definition(source: &str, run: RunId, at: Timestamp) -> Result<(String, HeaderMap), EncodeError> {
    // Its own: a later definition replaces this one, also when it says the same because this one was lost, and is never a
    // duplicate of it.
    let id = EventId::new(clock::uuid7().to_string());
    let mut envelope = Envelope::new(id, "due", source, clock::now());
    envelope.run_id = Some(run);
    let subject = Subject::DueAt(run);
    let message = Outgoing::json(subject.clone(), envelope, &serde_json::json!({}))?;
    let mut headers = message.headers()?;
    headers.insert(SCHEDULE, format!("@at {at}"));
    headers.insert(TARGET, Subject::Due(run).to_string());
    headers.insert(TTL, TICK_TTL);
    Ok((subject.to_string(), headers))
}

//! From journal messages to KV `runs`.
//!
//! Consumes `swarm.run.>`. Emits KV `runs`; for an `archived` decision it purges what the archive holds. Idempotency: a
//! message that is in its summary changes nothing, a purge that is repeated finds nothing. Ordering: none is needed, a
//! message that comes too early is folded from the log. On failure: the message is naked and comes again; it is acknowledged
//! only once its summary is written and its archive's messages are purged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kit::class::{Classified, ErrorClass};
use kit::consume::{Delivery, Fate};
use schemas::RunId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};

use crate::archive::{Archiver, PurgeError};
use crate::project::{Message, ProjectError, Projector};
use crate::read;

/// Messages that are handled at once, and so the most that a batch holds. Each waits for one write, of all its run's
/// messages; a few hundred keep the writes busy.
pub(crate) const IN_HAND: usize = 512;

/// How long a batch waits for more. A run takes several steps at once at its beginning and end; written together they cost one
/// synced write. Nobody waits for a summary.
const LINGER: Duration = Duration::from_millis(50);

/// A message was not handled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HandleError {
    #[error("the summary of the run is not up to date")]
    Project(#[source] Arc<ProjectError>),
    #[error("the service is ending")]
    Ending,
    #[error("the archived messages of the run can not be purged")]
    Purge(#[from] PurgeError),
}

impl Classified for HandleError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Project(error) => error.class(),
            Self::Ending => ErrorClass::Transient,
            Self::Purge(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Project(error) => error.code(),
            Self::Ending => "ending",
            Self::Purge(error) => error.code(),
        }
    }
}

/// A message on its way into a summary.
#[derive(Debug)]
pub(crate) struct Job {
    run: RunId,
    message: Message,
    done: oneshot::Sender<Result<(), Arc<ProjectError>>>,
}

/// Handles deliveries. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handler {
    pub(crate) jobs: mpsc::Sender<Job>,
    pub(crate) archiver: Archiver,
}

impl Handler {
    pub(crate) async fn handle(self, delivery: Delivery) -> Result<Fate, HandleError> {
        let stored = delivery.stored;
        let Some(run) = stored.run_id() else {
            return Ok(Fate::Ack);
        };
        let (done, outcome) = oneshot::channel();
        let message = Message::of(&stored);
        let job = Job { run, message, done };
        self.jobs.send(job).await.map_err(|_| HandleError::Ending)?;
        let outcome = outcome.await.map_err(|_| HandleError::Ending)?;
        outcome.map_err(HandleError::Project)?;
        if let Some(archived) = read::archive_in(&stored) {
            self.archiver.purge(run, &archived).await?;
        }
        Ok(Fate::Ack)
    }
}

/// Takes what comes within a moment, writes it, answers, and begins again. Ends when no handler is left.
pub(crate) async fn project(mut projector: Projector, mut jobs: mpsc::Receiver<Job>) {
    let mut batch = Vec::with_capacity(IN_HAND);
    while jobs.recv_many(&mut batch, IN_HAND).await > 0 {
        let until = Instant::now() + LINGER;
        while batch.len() < IN_HAND {
            let room = IN_HAND - batch.len();
            match timeout_at(until, jobs.recv_many(&mut batch, room)).await {
                Ok(more) if more > 0 => {}
                _ => break,
            }
        }
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        let mut waiting = Vec::with_capacity(batch.len());
        for job in batch.drain(..) {
            messages.entry(job.run).or_default().push(job.message);
            waiting.push((job.run, job.done));
        }
        let failed = projector.take(messages).await;
        let failed: HashMap<_, _> = failed.into_iter().map(|(run, error)| (run, Arc::new(error))).collect();
        for (run, done) in waiting {
            let outcome = failed.get(&run).map_or(Ok(()), |error| Err(Arc::clone(error)));
            // A handler that was given up waits no more; its message comes again.
            let _ = done.send(outcome);
        }
    }
}

//! Requests for runs: those that come at the same moment go into the log together.
//!
//! One synced publish after another takes a quarter of a second for a thousand; one atomic batch of them 14 ms. So
//! while one group is being written the next one gathers, and a lone request waits for nobody. Each request expects to
//! be its run's first message, so a trigger that comes again starts nothing; a batch that one such request spoils is
//! written again without it.
//!
//! Consumes: nothing. Emits: `swarm.run.<id>.requested.<class>.<agent>`. Idempotency: the run id. Ordering: none
//! between runs. On failure: every caller is told; nothing is retried that the journal did not retry.

mod group;

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};
use crate::fill::{Fill, NoRoom};
use crate::journal::{AppendError, Journal};
use crate::message::Outgoing;
use crate::service::Context;
use schemas::Subject;

use group::Group;

/// Requests that wait to be written. At some kilobytes each it bounds memory; whoever asks beyond it waits.
const QUEUE: usize = 4096;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// It is the first message of its run.
    Started {
        /// Its sequence.
        sequence: u64,
    },
    /// The run was there before: the trigger came again.
    AlreadyThere,
}

/// A run could not be requested.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// The message requests no run.
    #[error("{subject} requests no run")]
    NoRequest {
        /// Its subject.
        subject: String,
    },
    /// The log has no room for new runs, or nobody knows whether it has.
    #[error("no run can be started")]
    Full(#[source] NoRoom),
    /// It could not be written. With `bus_unavailable` it may be: ask again with the same message.
    #[error("the run could not be requested")]
    Append(#[source] Arc<AppendError>),
    /// The service is shutting down; nothing was written.
    #[error("the service is shutting down")]
    ShuttingDown,
}

impl Classified for RequestError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::NoRequest { .. } => ErrorClass::Broken,
            Self::Full(no_room) => no_room.class(),
            Self::Append(error) => error.class(),
            Self::ShuttingDown => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::NoRequest { .. } => "no_request",
            Self::Full(no_room) => no_room.code(),
            Self::Append(error) => error.code(),
            Self::ShuttingDown => "shutting_down",
        }
    }
}

/// One request and who waits for it.
#[derive(Debug)]
struct Job {
    outgoing: Outgoing,
    answer: oneshot::Sender<Result<Request, RequestError>>,
}

/// Requests runs. Clones share the queue.
#[derive(Clone, Debug)]
pub struct Requester {
    queue: mpsc::Sender<Job>,
    fill: Fill,
}

impl Requester {
    /// Starts to write requests, as a vital task of `context`.
    pub fn start(bus: &Bus, context: &Context) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writing = write(Journal::new(bus), jobs, context.shutdown.clone());
        context.spawn_vital("requester", writing);
        Self { queue, fill: Fill::start(bus, context) }
    }

    /// How full the log is.
    pub fn fill(&self) -> &Fill {
        &self.fill
    }

    /// Requests a run, and returns once it is in the log.
    pub async fn request(&self, outgoing: Outgoing) -> Result<Request, RequestError> {
        if !matches!(outgoing.subject, Subject::Requested(..)) {
            let subject = outgoing.subject.to_string();
            return Err(RequestError::NoRequest { subject });
        }
        self.fill.check().await.map_err(RequestError::Full)?;
        let (answer, answered) = oneshot::channel();
        let job = Job { outgoing, answer };
        let queued = self.queue.send(job).await;
        queued.map_err(|_| RequestError::ShuttingDown)?;
        answered.await.unwrap_or(Err(RequestError::ShuttingDown))
    }
}

/// Writes group after group until shutdown; what is queued by then is still written.
async fn write(journal: Journal, mut jobs: mpsc::Receiver<Job>, shutdown: CancellationToken) {
    loop {
        let first = tokio::select! {
            biased;
            first = jobs.recv() => first,
            () = shutdown.cancelled() => {
                jobs.close();
                jobs.recv().await
            }
        };
        let Some(first) = first else { return };
        let mut group = Group::of(first);
        while group.has_room() {
            match jobs.try_recv() {
                Ok(job) => group.add(job),
                Err(_) => break,
            }
        }
        group.write(&journal).await;
    }
}

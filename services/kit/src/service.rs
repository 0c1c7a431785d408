//! The life of a service: its tasks, its health and its end.
//!
//! A [`Context`] is passed down to everything that a service starts. Every task has an owner, the context, and a
//! declared fate: a *vital* task that ends or panics ends the whole process with its reason
//! ([`Context::spawn_vital`]), a *minor* one is logged ([`Context::spawn_minor`]).
//!
//! The end, whether by a signal or by a vital task, has one order: not ready, then [`Context::shutdown`] is cancelled
//! and everybody stops pulling, then what is in hand has a grace period, then the rest is dropped. [`run`] does that.

use std::{
    error::Error,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::FutureExt;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span};

use crate::telemetry;

mod ask;
mod health;
mod signal;

pub use ask::{HealthAskError, answer_health, ask_health};
pub use health::{Check, Health, HealthReport, router};
pub use signal::{Signal, until_signal};

/// How long what is in hand may take after the end was asked for: less than the 30 s after which Kubernetes kills.
pub const GRACE: Duration = Duration::from_secs(10);

/// The check that is red from the moment the end begins.
const ENDING: &str = "ending";

/// The check that [`Context::ready`] turns green.
const STARTED: &str = "started";

/// What a service needs to start tasks, to say how it is and to end. Clones are the same context.
#[derive(Debug, Clone)]
pub struct Context {
    /// Cancelled when the service has to stop taking new work.
    pub shutdown: CancellationToken,
    /// Every task of the service.
    pub tasks: TaskTracker,
    /// How the service is.
    pub health: Health,
    name: Arc<str>,
    span: Span,
    process: Arc<Process>,
}

/// What all contexts of a process share.
#[derive(Debug)]
struct Process {
    shutdown: CancellationToken,
    ended: Mutex<Option<Ended>>,
    trackers: Mutex<Vec<TaskTracker>>,
}

/// Why a process ended without being asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task} of {service} ended: {reason}")]
pub struct Ended {
    /// The service.
    pub service: String,
    /// Its task.
    pub task: String,
    /// The whole chain of causes.
    pub reason: String,
}

/// What a task may return: nothing, a result, or, because it never does, [`Infallible`](std::convert::Infallible).
pub trait TaskEnd {
    /// Why it ended; `None` when it ended well.
    fn failure(self) -> Option<String>;
}

impl TaskEnd for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl TaskEnd for std::convert::Infallible {
    fn failure(self) -> Option<String> {
        match self {}
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> TaskEnd for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| telemetry::chain(error.into().as_ref()))
    }
}

impl Context {
    /// The context of a process, or of the one service in it. Not ready until [`Context::ready`].
    pub fn new(name: &str) -> Self {
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let process =
            Process { shutdown: shutdown.clone(), ended: Mutex::new(None), trackers: Mutex::new(vec![tasks.clone()]) };
        let health = Health::new(name);
        health.set(STARTED, Check::Starting);
        let span = telemetry::service_span(name);
        Self { shutdown, tasks, health, name: name.into(), span, process: Arc::new(process) }
    }

    /// The context of a service in this process: it has tasks of its own and can be shut down by itself, its checks are
    /// also the parent's (as `<name>/<check>`), and a vital task of it ends the process.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let tasks = TaskTracker::new();
        lock(&self.process.trackers).push(tasks.clone());
        let health = self.health.child(name);
        health.set(STARTED, Check::Starting);
        Self {
            shutdown: self.shutdown.child_token(),
            tasks,
            health,
            name: name.into(),
            span: telemetry::service_span(name),
            process: Arc::clone(&self.process),
        }
    }

    /// The service's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Says that the service has started all that it has. It is ready once every other check is green as well.
    pub fn ready(&self) {
        self.health.set(STARTED, Check::Green);
    }

    /// Starts a task without which the service is useless. When it returns before shutdown, fails or panics, the
    /// process ends with that as its reason.
    pub fn spawn_vital<F>(&self, task: &str, future: F)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        let context = self.clone();
        let task = task.to_owned();
        let work = async move {
            let failure = outcome(future).await;
            context.vital_ended(&task, failure);
        };
        self.tasks.spawn(work.instrument(self.span.clone()));
    }

    /// Starts a task whose end concerns nobody else; a failure or panic is logged.
    pub fn spawn_minor<F>(&self, task: &str, future: F)
    where
        F: Future<Output: TaskEnd> + Send + 'static,
    {
        let task = task.to_owned();
        let work = async move {
            if let Some(failure) = outcome(future).await {
                tracing::warn!(task, failure, "a task failed");
            }
        };
        // The caller's span is kept: a minor task often belongs to a run.
        let span = if Span::current().is_none() { self.span.clone() } else { Span::current() };
        self.tasks.spawn(work.instrument(span));
    }

    /// The first vital task that ended, if any did.
    pub fn ended(&self) -> Option<Ended> {
        lock(&self.process.ended).clone()
    }

    /// Begins the end: not ready, and everybody stops taking new work.
    pub fn begin_shutdown(&self) {
        self.health.set(ENDING, Check::Red("the service is shutting down".to_owned()));
        self.shutdown.cancel();
    }

    /// Waits until all tasks of this service ended, at most `grace`. False when some are still running.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.tasks.close();
        tokio::time::timeout(grace, self.tasks.wait()).await.is_ok()
    }

    fn vital_ended(&self, task: &str, failure: Option<String>) {
        if self.shutdown.is_cancelled() {
            if let Some(failure) = failure {
                tracing::warn!(task, failure, "a task failed while the service was shutting down");
            }
            return;
        }
        let reason = failure.unwrap_or_else(|| "it returned, which it never should".to_owned());
        tracing::error!(task, reason, "a vital task ended: the service can not go on");
        self.health.set(task, Check::Red(reason.clone()));
        let ended = Ended { service: self.name.to_string(), task: task.to_owned(), reason };
        lock(&self.process.ended).get_or_insert(ended);
        self.process.shutdown.cancel();
    }

    /// Waits for the tasks of every service in the process.
    async fn drain_process(&self) {
        let trackers = lock(&self.process.trackers).clone();
        for tracker in trackers {
            tracker.close();
            tracker.wait().await;
        }
    }
}

/// Runs `service` until it returns, a signal comes or a vital task ends; then ends everything in order, within
/// `grace`. A second signal ends the process at once.
///
/// `service` gets to its own end by [`Context::shutdown`]. Returning early without an error is a normal end: a command
/// is done.
pub async fn run<F, E>(context: &Context, grace: Duration, service: F) -> Result<(), RunError<E>>
where
    F: Future<Output = Result<(), E>> + Send,
{
    let mut service = std::pin::pin!(service.instrument(context.span.clone()).fuse());
    let early = tokio::select! {
        // Signals first: from the service's first step on they no longer end the process by themselves.
        biased;
        signal = until_signal() => {
            tracing::info!(%signal, "shutting down");
            None
        }
        () = context.shutdown.cancelled() => None,
        result = &mut service => Some(result),
    };
    context.begin_shutdown();
    let rest = async {
        let result = match early {
            Some(result) => result,
            None => service.await,
        };
        context.drain_process().await;
        result
    };
    tokio::select! {
        result = tokio::time::timeout(grace, rest) => match (context.ended(), result) {
            (Some(ended), _) => Err(RunError::Ended(ended)),
            (None, Ok(result)) => result.map_err(RunError::Service),
            (None, Err(_)) => Err(RunError::Grace { grace }),
        },
        signal = until_signal() => signal.exit_process(),
    }
}

/// Why [`run`] did not end well.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The service itself failed.
    #[error(transparent)]
    Service(E),
    /// A vital task ended.
    #[error(transparent)]
    Ended(Ended),
    /// Something was still in hand when the grace period was over; it was dropped.
    #[error("not everything was done within {grace:?} after the end was asked for")]
    Grace {
        /// How long it had.
        grace: Duration,
    },
}

/// Runs a task to its end, a panic included.
async fn outcome<F: Future<Output: TaskEnd>>(future: F) -> Option<String> {
    match AssertUnwindSafe(future).catch_unwind().await {
        Ok(end) => end.failure(),
        Err(panic) => Some(format!("panicked: {}", panic_message(panic.as_ref()))),
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// What is inside is replaced whole, so a panic of another holder left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! run-correlator: what happened, told from the log. Timelines of runs and their trees, summaries in KV `runs`, the
//! completeness check, and the archive that keeps the log from filling up. It also removes blobs that nothing names, because it
//! alone knows what archives name, and tells what all services have parked.
//!
//! Reads `swarm.run.>`, `swarm.signal.>` and `swarm.call.>`; writes KV `runs`, archives in `blobs`, and one `archived`
//! decision to the journal of a run that it archived. It must never write to the journal of a run that has not ended, and
//! never remove a message from the log that is not in an archive which was read back and named in the log.
//!
//! Everything it keeps is a projection: [`rebuild()`] makes KV `runs` anew. Timelines are never stored. The readers
//! ([`timeline`], [`journal()`], [`list`], [`resolve`]) are functions on the bus and not requests to the service, so that a run can be
//! explained while no service is up.

pub mod archive;
pub mod domain;
pub mod room;

mod config;
mod handle;
mod parked;
mod project;
mod read;
mod rebuild;
mod summaries;
mod sweep;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::context::KeyValueError;
use async_nats::jetstream::kv;
use kit::bus::Bus;
use kit::class::chain;
use kit::clock;
use kit::consume::{self, Options};
use kit::consumer::CORRELATOR_RUNS;
use kit::logs::LogStore;
use kit::service::{Check, Context};
use tokio::sync::mpsc;

use archive::Archiver;
use handle::{Handler, IN_HAND};
use project::Projector;

pub use config::{ArchivePolicy, Config};
pub use read::{JournalError, TimelineError, journal, timeline};
pub use rebuild::{RebuildError, Rebuilt, rebuild};
pub use summaries::{Filter, ListError, ResolveError, list, resolve};
pub use sweep::{SweepError, sweep_blobs};

/// How often log lines that are too old are removed. Their writers do so whenever they begin a file; this is for a crew
/// that is idle.
const SWEEP_LOGS_EVERY: Duration = Duration::from_hours(1);

/// A message in hand shows a sign of life this often: folding a run from its archive may take long.
const PROGRESS: Duration = Duration::from_secs(10);

/// Between two tries to start.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// The health check that is red until the bucket is there.
const CHECK: &str = "summaries";

/// What the service needs from outside.
#[derive(Debug, Clone)]
pub struct Deps {
    /// A connection as the bus user `run-correlator`.
    pub bus: Bus,
    /// Stored log lines.
    pub logs: Arc<LogStore>,
}

/// The service can not start yet.
#[derive(Debug, thiserror::Error)]
enum StartError {
    #[error("the bucket of summaries is not to be had")]
    Bucket(#[source] KeyValueError),
    #[error("the summaries of runs can not be made anew")]
    Fill(#[from] RebuildError),
}

/// Serves until shutdown. It is ready once it reads the log; until the bucket is there it tries, and says why it waits.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), Infallible> {
    let Some(store) = prepare(&deps.bus, &context).await else {
        return Ok(());
    };
    let archiver = Archiver::new(&deps.bus);
    let (jobs, queue) = mpsc::channel(IN_HAND);
    let handler = Handler { jobs, archiver: archiver.clone() };
    let projector = Projector::new(deps.bus.clone(), store);
    context.spawn_vital("summaries", handle::project(projector, queue));
    let options = Options { max_in_flight: IN_HAND, progress_every: Some(PROGRESS) };
    consume::spawn(&context, &deps.bus, CORRELATOR_RUNS, options, move |delivery| handler.clone().handle(delivery));
    let keeping = room::keep(archiver, config.archive, context.clone());
    context.spawn_vital("archive", keeping);
    let sweeping = sweep::keep(deps.bus.clone(), context.clone());
    context.spawn_minor("blobs", sweeping);
    context.spawn_vital("dead letters", parked::watch(deps.bus, context.clone()));
    context.spawn_minor("log lines", sweep_logs(deps.logs, context.clone()));
    context.ready();
    context.shutdown.cancelled().await;
    Ok(())
}

/// The bucket, with summaries of what is in the log; none when the end comes first.
async fn prepare(bus: &Bus, context: &Context) -> Option<kv::Store> {
    loop {
        match try_prepare(bus).await {
            Ok(store) => {
                context.health.set(CHECK, Check::Green);
                return Some(store);
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::warn!(reason, "the summaries of runs can not be kept yet");
                context.health.set(CHECK, Check::Red(reason));
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return None,
            () = tokio::time::sleep(TRY_AGAIN) => {}
        }
    }
}

async fn try_prepare(bus: &Bus) -> Result<kv::Store, StartError> {
    let store = summaries::store(bus).await.map_err(StartError::Bucket)?;
    rebuild::fill_if_empty(bus).await?;
    Ok(store)
}

async fn sweep_logs(logs: Arc<LogStore>, context: Context) {
    loop {
        let store = Arc::clone(&logs);
        let swept = tokio::task::spawn_blocking(move || store.sweep(clock::now())).await;
        match swept {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "old log lines can not be removed");
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "old log lines can not be removed");
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(SWEEP_LOGS_EVERY) => {}
        }
    }
}

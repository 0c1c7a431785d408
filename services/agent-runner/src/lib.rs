//! agent-runner: the agent loop. It takes wakes, holds runs, calls models and tools, and journals what it decides.
//!
//! Reads `swarm.run.*.requested.resident.*`, `swarm.signal.>`, `swarm.schedule.due.*` and `swarm.control.>`; answers on
//! `swarm.hold.*`; writes `swarm.run.>`, for parents and children `swarm.signal.>`, and its part of KV `agents`. It must
//! never call a model but through budget-proxy, never run a command but in the sandbox, and never act on a decision that
//! is not in the log.
//!
//! A paused run differs from the design in one point: it appends `waiting`, but keeps its wake and looks at it again
//! every two seconds instead of acknowledging it. An end of a pause is then found by looking, and can not be missed
//! between a fold of the controls and a list of waiting runs.

pub mod config;
pub mod controls;
pub mod harness;
pub mod hold;
pub mod holder;
pub mod holds;
pub mod model;
pub mod native;
pub mod probe;
pub mod run;
pub mod runtime;
pub mod sandbox;
pub mod sweep;
pub mod toolbox;
pub mod tools;
pub mod wake;
pub mod worktree;

mod bearer;
mod context;
mod presence;
mod resume_from;
mod ticks;
mod waiting;

use std::{sync::Arc, time::Duration};

use kit::{
    blobs::Blobs,
    bus::Bus,
    clock, consume, consumer,
    crew::Crew,
    fill::Fill,
    journal::{Appender, Journal},
    logs::LogSink,
    service::Context,
};

pub use config::Config;
use harness::Harness as _;
use holds::Holds;
use holds::MAX_HELD;
use model::ModelClient;
use native::Native;
use presence::Registrar;
use probe::Probe;
use runtime::Runtime;
use sweep::Sweeper;
use toolbox::Toolbox;
use wake::Waker;

/// Wakes are extended this often while their run is held: a third of the consumer's ack wait of 3 s.
const PROGRESS: Duration = Duration::from_secs(1);

/// Signals that are looked at, at once; each may hold a run.
const MAX_SIGNALS: usize = 4_000;

/// What the service needs from its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The bus, as user `agent-runner`.
    pub bus: Bus,
    /// The crew's files.
    pub crew: Arc<Crew>,
    /// Where tool output is kept for timelines.
    pub logs: Option<LogSink>,
}

/// Why the runner could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client could not be made.
    #[error("the model client can not be made")]
    Client(#[source] reqwest::Error),
    /// The sandbox or the worktrees are not to be had.
    #[error("the tools can not be set up")]
    Tools(#[source] toolbox::SetupError),
    /// The controls can not be read.
    #[error("the controls can not be read")]
    Controls(#[source] controls::ControlsError),
}

/// Runs the service until `context` ends.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), StartError> {
    run_probed(config, deps, Probe::default(), context).await
}

/// As [`run()`], with a probe.
pub async fn run_probed(config: Config, deps: Deps, probe: Probe, context: Context) -> Result<(), StartError> {
    let journal = Journal::new(&deps.bus);
    let blobs = Blobs::new(&deps.bus);
    let parts = toolbox::Parts {
        crew: Arc::clone(&deps.crew),
        blobs: blobs.clone(),
        journal: journal.clone(),
        logs: deps.logs,
        probe: probe.clone(),
    };
    let toolbox = Toolbox::new(&config, parts).await.map_err(StartError::Tools)?;
    let health = context.health.clone();
    let (controls, follower) = controls::follow(&deps.bus, health).await.map_err(StartError::Controls)?;
    let runtime = Arc::new(Runtime {
        bus: deps.bus.clone(),
        appender: Appender::start(journal.clone(), &context),
        journal,
        blobs,
        limits: config.limits(&deps.crew.limits),
        crew: deps.crew,
        model: ModelClient::new(config.proxy_url.clone()).map_err(StartError::Client)?,
        toolbox,
        controls,
        fill: Fill::start(&deps.bus, &context),
        runner: config.runner.clone(),
        probe,
        shutdown: context.shutdown.clone(),
    });
    let sweeper = Sweeper::new(runtime.toolbox.worktrees().clone(), runtime.journal.clone());
    context.spawn_vital("worktrees", sweeper.keep(context.shutdown.clone()));
    let holds = Holds::default();
    let native = Native::new(Arc::clone(&runtime));
    let registrar = Registrar {
        bus: deps.bus.clone(),
        crew: Arc::clone(&runtime.crew),
        holds: holds.clone(),
        health: context.health.clone(),
        runner: presence::Runner {
            name: config.runner.clone(),
            harness: native.name(),
            capacity: MAX_HELD,
            since: clock::now(),
        },
    };
    let waker = Waker::new(Arc::clone(&runtime), Arc::new(native), holds.clone());
    context.spawn_vital("controls", follower.run(context.shutdown.clone()));
    let answers = holder::answer_for_held(runtime.journal.clone(), holds, config.runner, context.shutdown.clone());
    context.spawn_vital("holds", answers);
    context.spawn_vital("ticks", ticks::keep(waker.clone(), Arc::clone(&runtime), context.shutdown.clone()));
    context.spawn_vital("waiting", waiting::end_killed(waker.clone(), runtime, context.shutdown.clone()));
    let options = |max_in_flight| consume::Options { max_in_flight, progress_every: Some(PROGRESS) };
    let wakes = waker.clone();
    consume::spawn(&context, &deps.bus, consumer::RUNNER_WAKE, options(MAX_HELD), move |d| wakes.clone().requested(d));
    let signals = waker.clone();
    consume::spawn(&context, &deps.bus, consumer::RUNNER_SIGNAL, options(MAX_SIGNALS), move |d| {
        signals.clone().signal(d)
    });
    consume::spawn(&context, &deps.bus, consumer::RUNNER_DUE, options(MAX_SIGNALS), move |d| waker.clone().due(d));
    context.ready();
    context.spawn_vital("presence", registrar.keep(context.shutdown.clone()));
    context.shutdown.cancelled().await;
    Ok(())
}

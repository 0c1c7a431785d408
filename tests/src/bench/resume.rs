//! `resume`: a thousand runs in the middle of a model call, SIGKILL of everything, and how soon all of them go on.
//!
//! The floor is the restart alone: until then nobody could go on.

use kit::{clock, journal::STREAM, requester::Requester, service};

use super::{
    Scale,
    crew::{self, Project},
    load,
    log::{Follower, since},
    report::{Measured, Target, Times, Unit, count},
};

/// Runs that are interrupted.
const RUNS: usize = 1_000;

/// Seconds after the restart by which all of them go on.
const TARGET: f64 = 5.0;

/// Every answer waits, so that every run is in a model call when it is interrupted.
const SCENARIO: &str = "
name: bench
rules:
  - name: answers-when-let
    gate: hold
    reply: {text: Hello from the rehearsal.}
";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let runs = scale.of(RUNS);
    let project = Project::new(SCENARIO)?;
    let up = project.up().await?;
    let last = interrupted(&project, runs).await?;
    project.kill(up).await?;

    let restarted = clock::now();
    let up = project.up().await?;
    let bus = project.bus().await?;
    let mut log = Follower::after(&bus, last).await?;
    let resumed = log.wait("resumed", runs).await?;
    project.open_gate("hold").await?;
    let finished = log.wait("finished", runs).await?.len();
    let ready = up.ready_after.as_secs_f64();
    up.stop().await?;

    let times = Times::of(resumed.into_iter().map(|at| since(restarted, at)))?;
    let case = |what: &str| format!("{runs} runs after SIGKILL of everything: {what}");
    let seconds = |percent| times.percentile(percent) / 1_000.0;
    Ok(vec![
        Measured::new(case("the crew is ready again"), Unit::Seconds, ready),
        Measured::new(case("half of them go on"), Unit::Seconds, seconds(50.0)),
        Measured::new(case("all of them go on"), Unit::Seconds, seconds(100.0))
            .over(ready)
            .target(Target::AtMost(TARGET)),
        Measured::new(case("finished"), Unit::Runs, count(finished)).target(Target::Exactly(count(runs))),
    ])
}

/// Starts the runs and returns once all of them call their model; gives the last sequence of the log.
async fn interrupted(project: &Project, runs: usize) -> anyhow::Result<u64> {
    let bus = project.bus().await?;
    let context = service::Context::new("bench");
    let requester = Requester::start(&bus, &context);
    let mut log = Follower::start(&bus).await?;
    load::at_once(&requester, &crew::id()?, runs).await?;
    log.wait("model_called", runs).await?;
    context.begin_shutdown();
    drop(requester);
    context.drain(service::GRACE).await;
    Ok(bus.jetstream().get_stream(STREAM).await?.cached_info().state.last_sequence)
}

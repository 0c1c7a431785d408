//! `wake`: from a trigger in the log to the first byte of the model request that it leads to, in an idle crew.
//!
//! It begins when the server took the trigger in, before it was synced, and ends when the rehearsal model has read the
//! head of the request: both by the clock of this machine. The floor is the least that keeps the promise that a model call
//! is in the log before it is made: a reader gets the trigger, publishes one message and waits for its ack, and asks the
//! model directly. It has no journal to read, no bearer and no proxy.

use anyhow::{Context as _, ensure};

use super::{
    Scale, bare, load,
    log::since,
    report::{Measured, Target, Times, Unit},
};
use crate::rig::Rig;

/// Runs that are measured, one after the other.
const RUNS: usize = 300;

/// Runs before: connections are open then.
const WARM_UP: usize = 20;

/// Half of all wakes take at most so many milliseconds.
const TARGET_P50: f64 = 5.0;

/// All but one in a hundred take at most so many.
const TARGET_P99: f64 = 20.0;

/// Answers at once.
pub(super) const SCENARIO: &str = "
name: bench
rules:
  - name: answers
    reply: {text: Hello from the rehearsal.}
";

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let rig = Rig::start(SCENARIO).await?;
    let runner = rig.runner("disk").await?;
    let (warm_up, runs) = (scale.of(WARM_UP), scale.of(RUNS));
    let (mut times, mut floors) = (Times::new()?, Times::new()?);
    let mut reader = bare::Reader::start(&rig).await?;
    for index in 0..warm_up + runs {
        let seen = rig.rehearsal.requests(u64::MAX).seen;
        let (run, message) = load::request(&rig.crew.project)?;
        rig.journal.append(run, 0, message).await?;
        rig.end(run).await?;
        let requests = rig.rehearsal.requests(seen).requests;
        let request = requests.first().context("the run asked no model")?;
        ensure!(requests.len() == 1, "{} model requests of one run", requests.len());
        if index >= warm_up {
            let messages = rig.messages(run).await?;
            let requested = messages.first().context("the run is in the log")?;
            times.add(since(requested.time, request.received_at))?;
        }
        let seen = rig.rehearsal.requests(u64::MAX).seen;
        let triggered = reader.wake().await?;
        let requests = rig.rehearsal.requests(seen).requests;
        let request = requests.first().context("the reader asked no model")?;
        if index >= warm_up {
            floors.add(since(triggered, request.received_at))?;
        }
    }
    runner.stop().await;
    let figure = |percent, target| {
        let case = format!("trigger in the log to the model request's first byte, p{percent} of {runs}");
        Measured::new(case, Unit::Milliseconds, times.percentile(percent))
            .over(floors.percentile(percent))
            .target(Target::AtMost(target))
    };
    Ok(vec![figure(50.0, TARGET_P50), figure(99.0, TARGET_P99)])
}

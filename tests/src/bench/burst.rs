//! `burst`: a thousand triggers at the same moment, while the crew already works on the first of them.
//!
//! The peer is what a service would do that knows nothing of the others: a thousand publishes at the same moment, each
//! with the same expectation, before the crew has anything to do. The floor is one atomic batch of the same messages by a
//! bare client: what the server needs for them.

use std::time::Instant;

use kit::requester::Requester;

use super::{
    Scale, bare, load,
    log::Follower,
    report::{Measured, Target, Times, Unit, count, milliseconds},
    wake,
};
use crate::rig::Rig;

/// Triggers at once.
const TRIGGERS: usize = 1_000;

/// All but one in twenty are in the log before so many milliseconds.
const TARGET: f64 = 50.0;

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let rig = Rig::start(wake::SCENARIO).await?;
    let runner = rig.runner("disk").await?;
    let requester = Requester::start(&rig.client, &rig.services);
    let mut log = Follower::start(&rig.client).await?;
    // The first request waits until it is known how full the log is, and opens the connections of the crew.
    load::at_once(&requester, &rig.crew.project, 1).await?;
    log.wait("finished", 1).await?;
    log.forget();

    let triggers = scale.of(TRIGGERS);
    let alone = Times::of(bare::at_once(&rig.bus, triggers).await?)?;
    let floor = milliseconds(bare::in_one_batch(&rig.bus, triggers).await?);
    let began = Instant::now();
    let times = Times::of(load::at_once(&requester, &rig.crew.project, triggers).await?)?;
    let finished = log.wait("finished", triggers).await?.len();
    let ended = began.elapsed();
    runner.stop().await;
    let case = |what: &str| format!("{triggers} triggers at once: {what}");
    Ok(vec![
        Measured::new(case("in the log, p50"), Unit::Milliseconds, times.percentile(50.0))
            .beside(alone.percentile(50.0))
            .over(floor),
        Measured::new(case("in the log, p95"), Unit::Milliseconds, times.percentile(95.0))
            .beside(alone.percentile(95.0))
            .over(floor)
            .target(Target::Below(TARGET)),
        Measured::new(case("finished"), Unit::Runs, count(finished)).target(Target::Exactly(count(triggers))),
        Measured::new(case("all finished after"), Unit::Seconds, ended.as_secs_f64()),
    ])
}

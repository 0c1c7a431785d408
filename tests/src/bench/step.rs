//! `step`: what it costs to append one decision, next to a bare publish that expects the same sequence.

use std::time::Instant;

use async_nats::{HeaderMap, jetstream};
use kit::{clock, for_test::TestBus, identity::Service, journal::Journal};
use schemas::RunId;

use super::{
    Scale, bare,
    report::{Measured, Target, Times, Unit},
};

/// Appends of each kind that are measured.
const STEPS: usize = 2_000;

/// Appends of each kind before: connections and the server's caches are warm then.
const WARM_UP: usize = 200;

/// An append may cost so many times a bare publish.
const TARGET: f64 = 1.3;

/// A run and where it stands.
struct Place {
    run: RunId,
    last: u64,
}

/// Measures both, one after the other, so that a disk that slows down slows both.
pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let bus = TestBus::with_streams().await;
    let journal = Journal::new(&bus.bus(Service::AgentRunner).await);
    let bare = jetstream::new(bus.connect(Service::AgentRunner).await);
    let (mut ours, mut theirs) = (Place::new(), Place::new());
    let (mut appends, mut publishes) = (Times::new()?, Times::new()?);
    let (warm_up, steps) = (scale.of(WARM_UP), scale.of(STEPS));
    for index in 0..warm_up + steps {
        let message = bare::decision(ours.run)?;
        let began = Instant::now();
        ours.last = journal.append(ours.run, ours.last, message).await?;
        let append = began.elapsed();

        let message = bare::decision(theirs.run)?;
        let began = Instant::now();
        theirs.last = bare::publish(&bare, &message, HeaderMap::new(), theirs.run, theirs.last).await?;
        let publish = began.elapsed();
        if index >= warm_up {
            appends.add(append)?;
            publishes.add(publish)?;
        }
    }
    let figure = |percent| {
        let case = format!("append one decision, p{percent} of {steps}");
        Measured::new(case, Unit::Milliseconds, appends.percentile(percent)).over(publishes.percentile(percent))
    };
    Ok(vec![figure(50.0).target(Target::TimesFloor(TARGET)), figure(99.0)])
}

impl Place {
    fn new() -> Self {
        Self { run: RunId::from_uuid(clock::uuid7()), last: 0 }
    }
}

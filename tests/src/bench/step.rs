//! `step`: what it costs to append one decision, next to a bare publish that expects the same sequence.

use std::time::Instant;

use async_nats::{
    HeaderMap,
    jetstream::{self, Context},
};
use kit::{clock, for_test::TestBus, identity::Service, journal::Journal, message::Outgoing};
use schemas::{
    Decision, Envelope, EventId, RunEvent, RunId, Subject, envelope::DECISION_TYPE, event::Started, subject::filter,
};

use super::{
    Scale,
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
        let message = decision(ours.run)?;
        let began = Instant::now();
        ours.last = journal.append(ours.run, ours.last, message).await?;
        let append = began.elapsed();

        let message = decision(theirs.run)?;
        let began = Instant::now();
        theirs.last = publish(&bare, &theirs, &message).await?;
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

/// The least that keeps a run's single writer: the body, its place and the wait for the ack.
async fn publish(bare: &Context, place: &Place, message: &Outgoing) -> anyhow::Result<u64> {
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Expected-Last-Subject-Sequence", place.last.to_string());
    headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", filter::run(place.run));
    let ack = bare.publish_with_headers(message.subject.to_string(), headers, message.body.clone()).await?;
    Ok(ack.await?.sequence)
}

fn decision(run: RunId) -> anyhow::Result<Outgoing> {
    let envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), DECISION_TYPE, "bench", clock::now());
    let started = Started { runner: "bench".to_owned(), harness: "native".to_owned() };
    let decision = Decision { events: vec![RunEvent::Started(started)] };
    Ok(Outgoing::decision(Subject::Journal(run), envelope, &decision)?)
}

impl Place {
    fn new() -> Self {
        Self { run: RunId::from_uuid(clock::uuid7()), last: 0 }
    }
}

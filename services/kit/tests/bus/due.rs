//! Ticks of a point in time reach the runner, once for each run.

use std::time::Duration;

use jiff::ToSpan as _;
use kit::class::Classified as _;
use kit::consume::{Fate, consumer};
use kit::{clock, due};
use schemas::Subject;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::consume::{Loop, OPTIONS, run_of};
use crate::fixture::{Fixture, new_run, soon};

#[tokio::test]
async fn a_tick_comes_at_its_time_and_a_later_definition_replaces_it() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (arrived, mut arrivals) = mpsc::channel(8);
    let reading = Loop::over(consumer::RUNNER_DUE, &bus, OPTIONS, move |delivery| {
        let arrived = arrived.clone();
        async move {
            let run = run_of(&delivery);
            assert_eq!(delivery.stored.subject, Subject::Due(run));
            arrived.send((run, clock::now())).await.unwrap();
            Ok(Fate::Ack)
        }
    });
    let run = new_run();
    let at = clock::now() + 2.seconds();
    let soonest = clock::now() + 500.milliseconds();
    due::schedule(&bus, run, soonest).await.map_err(|error| error.code()).unwrap();
    due::schedule(&bus, run, at).await.unwrap();
    assert_eq!(due::scheduled(&bus).await.unwrap(), [run]);
    let (ticked, when) = soon("a tick", arrivals.recv()).await.unwrap();
    assert_eq!(ticked, run);
    assert!(when >= at, "{when} is before {at}");
    assert_eq!(due::scheduled(&bus).await.unwrap(), [], "there is no tick ahead");
    let second = timeout(Duration::from_secs(2), arrivals.recv()).await;
    assert!(second.is_err(), "{second:?}");
    reading.stop().await;
}

//! Requests that come together share a batch, and none spoils another.

use std::time::Duration;

use futures::future::join_all;
use kit::bus::Bus;
use kit::class::{Classified as _, ErrorClass};
use kit::journal::Journal;
use kit::requester::{Request, Requester};
use kit::service::Context;
use kit::streams::StreamOptions;
use schemas::RunId;

use crate::fixture::{Fixture, new_run, requested, started};

fn requester(bus: &Bus) -> (Requester, Context) {
    let context = Context::new("test");
    (Requester::start(bus, &context), context)
}

#[tokio::test]
async fn a_thousand_at_once_are_all_there_and_repeats_start_nothing() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (requester, context) = requester(&bus);
    let there: Vec<RunId> = (0..20).map(|_| new_run()).collect();
    let journal = Journal::new(&bus);
    for run in &there {
        journal.append(*run, 0, requested(*run)).await.unwrap();
    }
    let new: Vec<RunId> = (0..1000).map(|_| new_run()).collect();
    // Each of the new ones twice, those that are there among them.
    let asked: Vec<RunId> = new.iter().chain(&there).chain(&new).copied().collect();
    let results = join_all(asked.iter().map(|run| requester.request(requested(*run)))).await;
    let mut sequences = Vec::new();
    let mut repeats = 0;
    for result in results {
        match result.unwrap() {
            Request::Started { sequence } => sequences.push(sequence),
            Request::AlreadyThere => repeats += 1,
        }
    }
    sequences.sort_unstable();
    sequences.dedup();
    assert_eq!((sequences.len(), repeats), (1000, 1020));
    for run in new.iter().chain(&there) {
        assert!(journal.exists(*run).await.unwrap());
    }
    let mut stream = bus.jetstream().get_stream("SWARM").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1020);
    context.begin_shutdown();
    assert!(context.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn one_that_can_not_be_written_fails_alone() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (requester, _context) = requester(&bus);
    let runs: Vec<RunId> = (0..50).map(|_| new_run()).collect();
    let requests = runs.iter().enumerate().map(|(n, run)| {
        let mut message = requested(*run);
        if n == 25 {
            message.body = vec![b' '; 2 * 1024 * 1024].into();
        }
        requester.request(message)
    });
    let results = join_all(requests).await;
    for (n, result) in results.into_iter().enumerate() {
        if n == 25 {
            assert_eq!(result.unwrap_err().code(), "message_too_large");
        } else {
            assert!(matches!(result.unwrap(), Request::Started { .. }));
        }
    }
    let error = requester.request(started(runs[0], "s")).await.unwrap_err();
    assert_eq!(error.code(), "no_request");
}

#[tokio::test]
async fn a_full_log_refuses_new_runs() {
    let options = StreamOptions { swarm_max_bytes: 8 * 1024 * 1024, ..StreamOptions::single_node() };
    let fixture = Fixture::with(options).await;
    let bus = fixture.runner().await;
    let (requester, context) = requester(&bus);
    let journal = Journal::new(&bus);
    let run = new_run();
    let Request::Started { sequence } = requester.request(requested(run)).await.unwrap() else {
        panic!("a new run");
    };
    let mut last = sequence;
    while requester.fill().percent().is_none_or(|percent| percent < 80) {
        let mut big = started(run, &format!("after {last}"));
        big.body = vec![b' '; 4096].into();
        match journal.append(run, last, big).await {
            Ok(sequence) => last = sequence,
            // Quicker than a look each second.
            Err(error) => assert_eq!(error.code(), "stream_full"),
        }
    }
    let refused = requester.request(requested(new_run())).await.unwrap_err();
    assert_eq!(refused.code(), "log_full");
    assert_eq!(refused.class(), ErrorClass::Refused);
    assert!(!context.health.is_ready());
}

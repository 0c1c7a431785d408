//! Appends of many runs at once share batches, and none spoils another.

use std::time::Duration;

use futures::future::{join, join_all};
use kit::bus::Bus;
use kit::journal::{AppendError, Appender, Journal};
use kit::message::Outgoing;
use kit::service::Context;
use schemas::RunId;

use crate::fixture::{Fixture, new_run, requested, started};

fn appender(bus: &Bus) -> (Appender, Context) {
    let context = Context::new("test");
    (Appender::start(Journal::new(bus), &context), context)
}

/// Runs of which each has its first message, at the sequence that is given with it.
async fn requested_runs(journal: &Journal, runs: usize) -> Vec<(RunId, u64)> {
    let begin = (0..runs).map(|_| async {
        let run = new_run();
        (run, journal.append(run, 0, requested(run)).await.unwrap())
    });
    join_all(begin).await
}

fn start(run: RunId) -> Outgoing {
    started(run, &format!("{run}/started"))
}

#[tokio::test]
async fn a_thousand_at_once_are_each_where_they_are_said_to_be() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (appender, context) = appender(&bus);
    let runs = requested_runs(appender.journal(), 1_000).await;
    let append = |(run, first): &(RunId, u64)| appender.append(*run, *first, start(*run));
    let appended = join_all(runs.iter().map(append)).await;
    for ((run, _), sequence) in runs.iter().zip(appended) {
        let last = appender.journal().last(*run).await.unwrap().unwrap();
        assert_eq!(last.sequence, sequence.unwrap());
        assert!(last.has("started"));
    }
    context.begin_shutdown();
    assert!(context.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn who_comes_too_late_is_refused_alone() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (appender, _context) = appender(&bus);
    let runs = requested_runs(appender.journal(), 100).await;
    let (taken, free) = runs.split_at(5);
    for (run, first) in taken {
        appender.journal().append(*run, *first, started(*run, &format!("{run}/earlier"))).await.unwrap();
    }
    let append = |(run, first): &(RunId, u64)| appender.append(*run, *first, start(*run));
    let appended = join_all(runs.iter().map(append)).await;
    for ((run, _), result) in taken.iter().zip(&appended) {
        assert!(matches!(result, Err(AppendError::Conflict { run: at, .. }) if at == run), "{result:?}");
    }
    for ((run, _), result) in free.iter().zip(&appended[taken.len()..]) {
        let last = appender.journal().last(*run).await.unwrap().unwrap();
        assert_eq!(result.as_ref().ok(), Some(&last.sequence));
    }
}

#[tokio::test]
async fn of_two_that_follow_the_same_message_one_is_stored() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (appender, _context) = appender(&bus);
    let runs = requested_runs(appender.journal(), 50).await;
    let append = |who: &'static str| {
        let append =
            |(run, first): &(RunId, u64)| appender.append(*run, *first, started(*run, &format!("{run}/{who}")));
        join_all(runs.iter().map(append))
    };
    let (one, other) = join(append("one"), append("other")).await;
    for (one, other) in one.into_iter().zip(other) {
        assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1, "{one:?} and {other:?}");
    }
}

#[tokio::test]
async fn after_the_shutdown_has_begun_who_still_appends_is_heard() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let (appender, context) = appender(&bus);
    let runs = requested_runs(appender.journal(), 1).await;
    context.begin_shutdown();
    assert!(context.drain(Duration::from_secs(5)).await);
    let (run, first) = runs[0];
    let sequence = appender.append(run, first, start(run)).await.unwrap();
    assert_eq!(appender.journal().last(run).await.unwrap().unwrap().sequence, sequence);
}

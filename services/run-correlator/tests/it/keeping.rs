//! KV `runs`, kept by the service and made anew.

use std::collections::BTreeMap;

use run_correlator::archive::Archiver;
use run_correlator::{Config, Filter, list, rebuild};
use schemas::RunId;
use schemas::summary::{RunState, RunSummary};

use crate::log::*;
use crate::story::*;
use crate::timelines::fixing;

/// Every kept value by its key.
async fn all(log: &Log) -> BTreeMap<RunId, Vec<u8>> {
    let mut all = BTreeMap::new();
    for summary in list(&log.cli, &Filter::newest(10_000)).await.unwrap() {
        all.insert(summary.run_id, log.kept(summary.run_id).await.unwrap());
    }
    all
}

#[tokio::test]
async fn summaries_follow_the_log() {
    let log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    let written = log.write(run_of(1), &Story::asked("x").then(started())).await;
    assert_eq!(log.summary(written).await.state, RunState::Running);
    stop(service).await;

    let finished = schemas::Decision { events: answers("done") };
    let last = log.decide(run_of(1), written.last, "end".into_id(), &finished).await;
    let service = log.serve(Config::SHIPPED);
    let summary = log.summary(Written { last, ..written }).await;
    assert_eq!(summary.state, RunState::Ended);
    assert_eq!((summary.first_sequence, summary.attempts), (written.first, 1));
    assert_eq!(summary.answer, "done");
    stop(service).await;
}

trait IntoId {
    fn into_id(self) -> schemas::EventId;
}

impl IntoId for &str {
    fn into_id(self) -> schemas::EventId {
        schemas::EventId::new(self)
    }
}

#[tokio::test]
async fn replicas_that_share_the_log_agree() {
    const RUNS: u128 = 60;
    let log = Log::start().await;
    let services = [log.serve(Config::SHIPPED), log.serve(Config::SHIPPED)];
    let story = fixing();
    let writes = (1..=RUNS).map(|n| log.write(run_of(n), &story));
    let written = futures::future::join_all(writes).await;
    let mut summaries = Vec::new();
    for written in &written {
        summaries.push(log.summary(*written).await);
    }
    for (written, summary) in written.iter().zip(&summaries) {
        let expected = RunSummary {
            run_id: written.run,
            root_run_id: written.run,
            first_sequence: written.first,
            last_sequence: written.last,
            requested_at: summary.requested_at,
            updated_at: summary.updated_at,
            ..story.told().summary
        };
        assert_eq!(*summary, expected);
    }
    for service in services {
        stop(service).await;
    }
}

#[tokio::test]
async fn a_rebuild_gives_the_same_bytes() {
    let log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    let mut written = Vec::new();
    for n in 1..=12 {
        let story = match n % 3 {
            0 => Story::asked("waits"),
            1 => Story::asked("runs").then(started()),
            _ => fixing(),
        };
        written.push(log.write(run_of(n), &story).await);
    }
    for written in &written {
        log.summary(*written).await;
    }
    // One of them is in an archive.
    let archived = written[1];
    let archiver = Archiver::new(&log.correlator);
    let now = kit::clock::now();
    let done = archiver.archive(archived.run, archived.first, jiff::SignedDuration::ZERO, now);
    done.await.unwrap().unwrap();
    eventually("an archived summary", async || {
        let kept = log.kept(archived.run).await?;
        let summary: RunSummary = serde_json::from_slice(&kept).unwrap();
        summary.archived.then_some(())
    })
    .await;

    let before = all(&log).await;
    assert_eq!(before.len(), 12);
    // Beside the service, and without it.
    assert_eq!(rebuild(&log.cli).await.unwrap().runs, 12);
    assert_eq!(all(&log).await, before);
    stop(service).await;
    assert_eq!(rebuild(&log.cli).await.unwrap().runs, 12);
    assert_eq!(all(&log).await, before);
}

#[tokio::test]
async fn the_service_goes_on_after_a_rebuild_beneath_it() {
    let log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    let written = log.write(run_of(1), &Story::asked("x").then(started())).await;
    log.summary(written).await;
    // Now the service knows a revision that is not there any more.
    rebuild(&log.cli).await.unwrap();
    let finished = schemas::Decision { events: answers("done") };
    let last = log.decide(run_of(1), written.last, "end".into_id(), &finished).await;
    let summary = log.summary(Written { last, ..written }).await;
    assert_eq!(summary.state, RunState::Ended);
    assert_eq!(summary.attempts, 1);
    stop(service).await;
}

#[tokio::test]
async fn an_emptied_bucket_is_filled_at_the_next_start() {
    let log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    let written = log.write(run_of(1), &fixing()).await;
    log.summary(written).await;
    stop(service).await;
    let before = log.kept(run_of(1)).await.unwrap();
    let stream = log.cli.jetstream().get_stream("KV_runs").await.unwrap();
    stream.purge().await.unwrap();
    assert_eq!(log.kept(run_of(1)).await, None);
    let service = log.serve(Config::SHIPPED);
    log.summary(written).await;
    assert_eq!(log.kept(run_of(1)).await.unwrap(), before);
    stop(service).await;
}

#[tokio::test]
async fn the_service_outlives_its_bus() {
    let mut log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    let written = log.write(run_of(1), &Story::asked("x").then(started())).await;
    log.summary(written).await;
    log.restart_bus().await;
    let finished = schemas::Decision { events: answers("done") };
    let last = log.decide(run_of(1), written.last, "end".into_id(), &finished).await;
    let summary = log.summary(Written { last, ..written }).await;
    assert_eq!(summary.state, RunState::Ended);
    stop(service).await;
}

//! Three servers, three replicas, and the leader of the log killed while it is written and read.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::class::{Classified as _, ErrorClass};
use kit::consume::Fate;
use kit::epochs::LiveEpochs;
use kit::for_test::TestCluster;
use kit::identity::Service;
use kit::journal::{AppendError, Entry, Journal};
use kit::message::Outgoing;
use kit::service::Context;
use schemas::RunId;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::consume::{Loop, OPTIONS, run_of};
use crate::fixture::{new_run, requested, started, until};

/// Runs that are written at once.
const RUNS: usize = 12;

/// Decisions of each, some of them with a child's request in one batch.
const DECISIONS: u64 = 40;

/// An election and a few tries.
const OUTAGE: Duration = Duration::from_mins(1);

/// Appends as a runner does: what nobody answered for is appended again as it is.
async fn append(journal: &Journal, run: RunId, expected: u64, message: &Outgoing) -> u64 {
    let deadline = Instant::now() + OUTAGE;
    loop {
        match journal.append(run, expected, message.clone()).await {
            Ok(sequence) => return sequence,
            Err(error) => again(&error, deadline).await,
        }
    }
}

async fn append_batch(journal: &Journal, entries: &[Entry]) -> u64 {
    let deadline = Instant::now() + OUTAGE;
    loop {
        match journal.append_batch(entries.to_vec()).await {
            Ok(sequences) => return sequences[0],
            Err(error) => again(&error, deadline).await,
        }
    }
}

/// Nobody else writes to these runs, so a conflict would be a lie.
async fn again(error: &AppendError, deadline: Instant) {
    assert!(!matches!(error, AppendError::Conflict { .. }), "{error:?}");
    assert_eq!(error.class(), ErrorClass::Transient, "{error:?}");
    assert!(Instant::now() < deadline, "{error:?}");
    sleep(Duration::from_millis(20)).await;
}

/// Writes a whole run and gives it with its children.
async fn write(journal: Journal) -> (RunId, Vec<RunId>) {
    let run = new_run();
    let mut children = Vec::new();
    let mut last = append(&journal, run, 0, &requested(run)).await;
    for n in 0..DECISIONS {
        let decision = started(run, &format!("{run}/{n}"));
        if n % 10 == 5 {
            let child = new_run();
            children.push(child);
            let batch = [Entry::journal(run, last, decision), Entry::journal(child, 0, requested(child))];
            last = append_batch(&journal, &batch).await;
        } else {
            last = append(&journal, run, last, &decision).await;
        }
    }
    (run, children)
}

async fn leader(journal: &Journal) -> String {
    until("a leader", || async {
        let mut stream = journal.bus().jetstream().get_stream("SWARM").await.ok()?;
        stream.info().await.ok()?.cluster.clone()?.leader
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_or_written_twice_when_the_leader_is_killed() {
    let mut cluster = TestCluster::with_streams().await;
    let bus = cluster.bus(Service::AgentRunner).await;
    let journal = Journal::new(&bus);
    let context = Context::new("test");
    let proxy = cluster.bus(Service::BudgetProxy).await;
    let epochs = LiveEpochs::start(&proxy, &context).await.unwrap();
    let woken: Arc<Mutex<HashSet<RunId>>> = Arc::default();
    let heard = Arc::clone(&woken);
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        heard.lock().unwrap().insert(run_of(&delivery));
        async { Ok(Fate::Ack) }
    });

    let mut writers = JoinSet::new();
    for _ in 0..RUNS {
        writers.spawn(write(journal.clone()));
    }
    until("some writing", || async { (woken.lock().unwrap().len() >= RUNS).then_some(()) }).await;
    let name = leader(&journal).await;
    let index = cluster.index_of(&name).expect("a leader among the servers");
    cluster.server(index).kill().await.unwrap();
    let other = leader(&journal).await;
    assert_ne!(other, name);
    cluster.server(index).restart().await.unwrap();

    for (run, children) in writers.join_all().await {
        let tail = journal.last(run).await.unwrap().unwrap();
        let read = until("a replica that has all", || async {
            let read = journal.read(run, 1).await.ok()?;
            (read.last()?.sequence == tail.sequence).then_some(read)
        })
        .await;
        assert_eq!(read.len() as u64, DECISIONS + 1);
        for pair in read.windows(2) {
            assert_eq!(pair[1].after, Some(pair[0].sequence));
        }
        let wait = Duration::from_secs(20);
        epochs.check(run, tail.sequence, wait).await.unwrap();
        for child in children {
            assert!(journal.exists(child).await.unwrap());
            until("the child's wake", || async { woken.lock().unwrap().contains(&child).then_some(()) }).await;
        }
    }
    reading.stop().await;
}

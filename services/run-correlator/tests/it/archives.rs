//! Ended runs leave the log, and nobody notices but the disk.

use jiff::SignedDuration;
use kit::blobs::Blobs;
use kit::journal::{AppendError, Journal};
use kit::streams::StreamOptions;
use run_correlator::archive::{Archiver, NotNow, Part};
use run_correlator::{ArchivePolicy, Config, journal, sweep_blobs, timeline};
use schemas::event::Archived;
use schemas::subject::filter;
use schemas::summary::RunSummary;
use schemas::timeline::{Entry, Gap, Source, Timeline};
use schemas::{BlobRef, RunEvent, RunId, Signal, Subject, Text};

use crate::log::*;
use crate::story::*;
use crate::timelines::fixing;

/// Archives whatever has ended.
const AT_ONCE: ArchivePolicy = ArchivePolicy {
    settled: SignedDuration::ZERO,
    every: std::time::Duration::from_millis(20),
    ..ArchivePolicy::SHIPPED
};

async fn told(log: &Log, run: RunId) -> Timeline {
    timeline(&log.cli, &log.logs, run, false).await.unwrap()
}

/// The timeline without what its archive adds to it.
fn without_archive(timeline: &Timeline) -> (RunSummary, Vec<Entry>, Vec<Gap>) {
    let entries = timeline.entries.iter().filter(|entry| entry.kind != "archived");
    let summary = RunSummary { archived: false, last_sequence: 0, ..timeline.summary.clone() };
    (summary, entries.cloned().collect(), timeline.gaps.clone())
}

/// What is left of a run in the log: messages of its journal, signals, calls.
async fn left(log: &Log, run: RunId) -> [usize; 3] {
    [
        log.count(&filter::run(run)).await,
        log.count(&filter::signals_of(run)).await,
        log.count(&Subject::Call(run).to_string()).await,
    ]
}

async fn trigger_again(log: &Log, run: RunId) -> Result<u64, AppendError> {
    let story = fixing();
    let first = &story.evidence.journal[0];
    // The same trigger derives the same message.
    let message = decision_message(run, own_id(run, &first.id), &first.decision);
    Journal::new(&log.runner).append(run, 0, message).await
}

#[tokio::test]
async fn an_archived_run_reads_like_one_in_the_log() {
    let log = Log::start().await;
    let written = log.write(run_of(1), &fixing()).await;
    let other = log.write(run_of(2), &fixing()).await;
    let before = told(&log, run_of(1)).await;
    assert!(before.is_complete());
    let decided_before = journal(&log.cli, run_of(1)).await.unwrap();
    assert_eq!(decided_before.len(), fixing().evidence.journal.len());
    let archiver = Archiver::new(&log.correlator);
    let now = kit::clock::now();
    let archived = archiver.archive(run_of(1), written.first, SignedDuration::ZERO, now);
    archived.await.unwrap().unwrap();

    assert_eq!(left(&log, run_of(1)).await, [1, 0, 0]);
    assert_eq!(left(&log, run_of(2)).await, [6, 1, 2]);
    let after = told(&log, run_of(1)).await;
    assert!(after.is_complete(), "{:?}", after.gaps);
    assert_eq!(without_archive(&after), without_archive(&before));
    assert!(after.summary.archived);
    let mut decided = journal(&log.cli, run_of(1)).await.unwrap();
    assert!(decided.pop().unwrap().decision.kinds() == "archived" && decided == decided_before);
    let last = after.entries.iter().rev().find(|entry| entry.source == Source::Journal);
    assert!(last.unwrap().line.starts_with("9 messages went into an archive"));

    let refused = trigger_again(&log, run_of(1)).await.unwrap_err();
    assert!(matches!(refused, AppendError::Conflict { last: Some(_), .. }));
    // What comes later is told too.
    let message = schemas::signal::Message { from: "@ada:example.org".to_owned(), text: "thanks".into() };
    log.signal(run_of(1), schemas::EventId::new("late"), &Signal::Message(message)).await;
    let later = told(&log, run_of(1)).await;
    assert!(later.entries.iter().any(|entry| entry.line.contains("thanks")));
    assert_eq!(later.entries.len(), after.entries.len() + 1);
    let again = archiver.archive(run_of(1), written.first, SignedDuration::ZERO, now);
    assert_eq!(again.await.unwrap(), Err(NotNow::Done));
    let read = told(&log, run_of(2)).await;
    assert_eq!(read.summary.last_sequence, other.last);
}

#[tokio::test]
async fn what_was_refused_is_archived_a_day_later_and_told_from_the_archive() {
    let log = Log::start().await;
    let archiver = Archiver::new(&log.correlator);
    let written = log.write(run_of(1), &Story::asked("x").then(answers("y")).refused()).await;
    let now = kit::clock::now();
    let soon = archiver.archive(written.run, written.first, SignedDuration::ZERO, now).await.unwrap();
    assert_eq!(soon, Err(NotNow::Unconfirmed), "it may be replayed");
    let later = now + SignedDuration::from_hours(25);
    archiver.archive(written.run, written.first, SignedDuration::ZERO, later).await.unwrap().unwrap();
    let told = told(&log, written.run).await;
    let entry = told.entries.iter().find(|entry| entry.kind == "undelivered").unwrap();
    assert!(told.summary.archived && entry.line.contains("not in the room"), "{}", entry.line);
}

#[tokio::test]
async fn what_is_still_needed_is_not_archived() {
    let log = Log::start().await;
    let archiver = Archiver::new(&log.correlator);
    let now = kit::clock::now();
    let try_it = async |run, first, settled| archiver.archive(run, first, settled, now).await.unwrap();
    let zero = SignedDuration::ZERO;
    let live = log.write(run_of(1), &Story::asked("x").then(started())).await;
    assert_eq!(try_it(live.run, live.first, zero).await, Err(NotNow::Live));
    let said = log.write(run_of(2), &Story::asked("x").then(answers("y"))).await;
    assert_eq!(try_it(said.run, said.first, zero).await, Err(NotNow::Unconfirmed));
    let fresh = log.write(run_of(3), &fixing()).await;
    let hour = SignedDuration::from_hours(1);
    assert_eq!(try_it(fresh.run, fresh.first, hour).await, Err(NotNow::Live));
    for run in [1, 2, 3].map(run_of) {
        assert!(!told(&log, run).await.summary.archived);
    }
}

/// What a process did before it was killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Until {
    Packed,
    Stored,
    Recorded,
    SignalsPurged,
    CallsPurged,
    JournalPurged,
}

async fn archive_until(log: &Log, written: Written, until: Until) -> Option<Archived> {
    let archiver = Archiver::new(&log.correlator);
    let ready = archiver.pack(written.run, written.first, kit::clock::now()).await.unwrap().unwrap();
    if until < Until::Stored {
        return None;
    }
    let blob = archiver.store(&ready).await.unwrap();
    if until < Until::Recorded {
        return None;
    }
    let held = log.cli.scan_all("SWARM", ">", written.first).await.unwrap();
    let archived = archiver.record(&ready, blob).await.unwrap().unwrap();
    let purges = [
        (Until::SignalsPurged, Part::Signals),
        (Until::CallsPurged, Part::Calls),
        (Until::JournalPurged, Part::Journal),
    ];
    for (step, part) in purges {
        if step <= until {
            archiver.purge_part(written.run, part, &held).await.unwrap();
        }
    }
    Some(archived)
}

#[tokio::test]
async fn killed_between_any_two_steps_it_goes_on_without_loss() {
    let steps =
        [Until::Packed, Until::Stored, Until::Recorded, Until::SignalsPurged, Until::CallsPurged, Until::JournalPurged];
    // So small that two runs fill it beyond any threshold.
    let policy = ArchivePolicy { from_percent: 0, to_percent: 0, ..AT_ONCE };
    for until in steps {
        let log = Log::start().await;
        let written = log.write(run_of(1), &fixing()).await;
        let before = told(&log, run_of(1)).await;
        archive_until(&log, written, until).await;
        let between = told(&log, run_of(1)).await;
        assert_eq!(without_archive(&between), without_archive(&before), "{until:?}");

        let service = log.serve(Config { archive: policy });
        eventually("an empty place", async || (left(&log, run_of(1)).await == [1, 0, 0]).then_some(())).await;
        let after = told(&log, run_of(1)).await;
        assert_eq!(without_archive(&after), without_archive(&before), "{until:?}");
        let archives = after.entries.iter().filter(|entry| entry.kind == "archived");
        assert_eq!(archives.count(), 1, "{until:?}");
        assert!(trigger_again(&log, run_of(1)).await.is_err(), "{until:?}");
        eventually("an archived summary", async || {
            let kept = log.kept(run_of(1)).await?;
            let summary: RunSummary = serde_json::from_slice(&kept).unwrap();
            (summary == after.summary).then_some(())
        })
        .await;
        stop(service).await;
    }
}

#[tokio::test]
async fn an_archive_that_can_not_be_read_back_purges_nothing() {
    let log = Log::start().await;
    let written = log.write(run_of(1), &fixing()).await;
    let archived = archive_until(&log, written, Until::Recorded).await.unwrap();
    let wrong = Archived { digest: "00".repeat(32), ..archived.clone() };
    let archiver = Archiver::new(&log.correlator);
    archiver.purge(run_of(1), &wrong).await.unwrap_err();
    assert_eq!(left(&log, run_of(1)).await, [7, 1, 2]);

    // Lost for good once purged: then it is a gap, and the summary is the last one known.
    let service = log.serve(Config { archive: AT_ONCE });
    eventually("a purge", async || (left(&log, run_of(1)).await == [1, 0, 0]).then_some(())).await;
    let last = told(&log, run_of(1)).await.summary.last_sequence;
    log.summary(Written { last, ..written }).await;
    stop(service).await;
    let blobs = log.correlator.jetstream().get_object_store("blobs").await.unwrap();
    blobs.delete(&archived.archive.blob).await.unwrap();
    let told = told(&log, run_of(1)).await;
    let unreadable = |gap: &Gap| matches!(gap, Gap::ArchiveUnreadable { .. });
    assert!(told.gaps.iter().any(unreadable), "{:?}", told.gaps);
    assert!(told.gaps.iter().any(|gap| matches!(gap, Gap::MissingSequence { .. })));
    assert!(told.summary.archived);
    assert_eq!(told.summary.answer, "Done.");
}

#[tokio::test]
async fn the_oldest_ended_runs_make_room() {
    const ROOM: u64 = 512 * 1024;
    let log = Log::with(StreamOptions { swarm_max_bytes: ROOM, ..StreamOptions::single_node() }).await;
    let used = async || {
        let mut stream = log.cli.jetstream().get_stream("SWARM").await.unwrap();
        stream.info().await.unwrap().state.bytes * 100 / ROOM
    };
    let service = log.serve(Config { archive: ArchivePolicy { from_percent: 100, ..AT_ONCE } });
    let held = log.write(run_of(1), &Story::asked("x").then(answers("unheard"))).await;
    let live = log.write(run_of(2), &Story::asked("x").then(started())).await;
    let mut ended = Vec::new();
    while used().await < 62 {
        let n = ended.len() as u128 + 3;
        ended.push(log.write(run_of(n), &fixing()).await);
    }
    for written in [held, live].iter().chain(&ended) {
        log.summary(*written).await;
    }
    let archiver = Archiver::new(&log.correlator);
    let made = archiver.make_room(AT_ONCE, kit::clock::now()).await.unwrap();
    assert!(made.percent <= AT_ONCE.to_percent && made.archived > 0, "{made:?}");
    assert_eq!(made.held_back, 1);
    // The oldest went, and no more than had to.
    let count = usize::try_from(made.archived).unwrap();
    assert!(count < ended.len(), "{count} of {}", ended.len());
    for (n, written) in ended.iter().enumerate() {
        let archived = told(&log, written.run).await.summary.archived;
        assert_eq!(archived, n < count, "run {n} of {count}");
    }
    for written in [held, live] {
        assert!(!told(&log, written.run).await.summary.archived);
    }
    let nothing = archiver.make_room(AT_ONCE, kit::clock::now()).await.unwrap();
    assert_eq!(nothing.archived, 0);
    stop(service).await;
}

#[tokio::test]
async fn blobs_are_kept_as_long_as_something_names_them() {
    let log = Log::start().await;
    let blobs = Blobs::new(&log.runner);
    let put = async |content: &'static str| blobs.put(content.into()).await.unwrap();
    let (orphan, live, archived) = (put("orphan").await, put("live").await, put("archived").await);
    let (parked, state) = (put("parked").await, put("state").await);
    let named = |blob: &BlobRef| Text::Blob(blob.clone());
    let with = |blob| {
        let mut story = fixing();
        for event in &mut story.evidence.journal[0].decision.events {
            if let RunEvent::Requested(requested) = event {
                requested.prompt = named(blob);
            }
        }
        story
    };
    log.write(run_of(1), &with(&live)).await;
    let first = with(&parked).evidence.journal[0].clone();
    let unroutable = decision_message(run_of(3), own_id(run_of(3), &first.id), &first.decision);
    kit::dead::park_outgoing(&log.runner, &unroutable, "unroutable", "nobody is there").await.unwrap();
    let mut going_on = with(&live);
    for event in &mut going_on.evidence.journal[0].decision.events {
        if let RunEvent::Requested(requested) = event {
            requested.state = Some(state.clone());
        }
    }
    log.write(run_of(4), &going_on).await;
    let written = log.write(run_of(2), &with(&archived)).await;
    let archiver = Archiver::new(&log.correlator);
    let now = kit::clock::now();
    let done = archiver.archive(run_of(2), written.first, SignedDuration::ZERO, now);
    done.await.unwrap().unwrap();

    let young = now - SignedDuration::from_hours(24);
    assert_eq!(sweep_blobs(&log.correlator, young).await.unwrap(), 0);
    let later = now + SignedDuration::from_hours(24);
    assert_eq!(sweep_blobs(&log.correlator, later).await.unwrap(), 1);
    blobs.get(&orphan).await.unwrap_err();
    blobs.get(&live).await.unwrap();
    blobs.get(&archived).await.unwrap();
    blobs.get(&parked).await.unwrap();
    blobs.get(&state).await.unwrap();
    assert!(told(&log, run_of(2)).await.is_complete());
    assert_eq!(sweep_blobs(&log.correlator, later).await.unwrap(), 0);
}

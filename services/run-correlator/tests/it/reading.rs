//! Timelines, lists and names, read from a real log as the command line does.

use jiff::SignedDuration;
use kit::journal::{Entry, Journal};
use kit::logs::{Limits, LogStore};
use kit::message::Stored;
use run_correlator::{Config, Filter, ResolveError, TimelineError, list, resolve, timeline};
use schemas::event::{HandedOff, Outcome};
use schemas::subject::filter;
use schemas::timeline::{Gap, Source};
use schemas::{EventId, RunEvent};
use serde_json::json;

use crate::log::*;
use crate::story::*;
use crate::timelines::fixing;

#[tokio::test]
async fn a_timeline_is_read_from_log_and_log_lines() {
    let log = Log::start().await;
    let story = fixing();
    log.write(run_of(1), &story).await;
    log.write(run_of(2), &Story::asked("something else")).await;
    let read = timeline(&log.cli, &log.logs, run_of(1), false).await.unwrap();
    assert!(read.is_complete(), "{:?}", read.gaps);
    let expected: Vec<_> = story.told().entries.into_iter().map(|e| e.line).collect();
    let mut lines: Vec<_> = read.entries.iter().map(|e| e.line.clone()).collect();
    // Log lines have times of the story, messages those of the server.
    let is_log = |line: &String| expected.contains(line);
    assert!(lines.iter().all(is_log), "{lines:#?}");
    lines.retain(|line| !line.contains("warning: unused"));
    assert_eq!(lines.len(), expected.len() - 1);
    assert_eq!(read.summary.run_id, run_of(1));
    assert_eq!(read.summary.outcome, Some(Outcome::Finished));
    let signal = read.entries.iter().find(|e| e.source == Source::Signal);
    assert!(signal.unwrap().sequence.is_some());
}

#[tokio::test]
async fn a_message_says_which_it_came_after() {
    let log = Log::start().await;
    let written = log.write(run_of(1), &fixing()).await;
    let runs = filter::run(run_of(1));
    let messages = log.cli.scan_all("SWARM", &runs, 1).await.unwrap();
    let stored: Vec<Stored> = messages.iter().map(|m| m.stored().unwrap()).collect();
    let mut previous = 0;
    for message in &stored {
        assert_eq!(message.after, Some(previous));
        previous = message.sequence;
    }
    assert_eq!(previous, written.last);

    // Somebody removes one from the middle, which nobody but the archiver could do.
    let stream = log.correlator.jetstream().get_stream("SWARM").await.unwrap();
    let victim = &stored[2];
    let purge = stream.purge().filter(victim.subject.to_string());
    let gone: Vec<_> = stored.iter().filter(|m| m.subject == victim.subject).collect();
    purge.await.unwrap();
    let read = timeline(&log.cli, &log.logs, run_of(1), false).await.unwrap();
    let missing =
        Gap::MissingSequence { before: Some(stored.last().unwrap().sequence), expected: gone.last().unwrap().sequence };
    assert!(read.gaps.contains(&missing), "{:?}", read.gaps);
}

#[tokio::test]
async fn messages_of_a_batch_say_so_too() {
    let log = Log::start().await;
    let before = log.write(run_of(1), &Story::asked("x")).await;
    let story = Story::asked("y").then(started());
    let [asked, taken] = [0, 1].map(|n| &story.evidence.journal[n].decision);
    let message = |n, decision| decision_message(run_of(n), own_id(run_of(n), &EventId::new("b")), decision);
    let batch = vec![
        Entry::journal(run_of(1), before.last, message(1, taken)),
        Entry::journal(run_of(2), 0, message(2, asked)),
    ];
    Journal::new(&log.runner).append_batch(batch).await.unwrap();
    for run in [1, 2].map(run_of) {
        let read = timeline(&log.cli, &log.logs, run, false).await.unwrap();
        assert_eq!(read.gaps, []);
        let messages = Journal::new(&log.cli).read(run, 1).await.unwrap();
        let expected = if run == run_of(1) { before.last } else { 0 };
        assert_eq!(messages.last().unwrap().after, Some(expected));
    }
}

#[tokio::test]
async fn a_message_that_is_not_readable_hides_no_other() {
    let log = Log::start().await;
    let story = Story::asked("x").then(started());
    let written = log.write(run_of(1), &story).await;
    let mut garbage = decision_message(run_of(1), EventId::new("garbage"), &story.evidence.journal[1].decision);
    garbage.body = "{\"events\": 7}".into();
    let journal = Journal::new(&log.runner);
    let garbled = journal.append(run_of(1), written.last, garbage).await.unwrap();
    let finished = schemas::Decision { events: vec![finished("done")] };
    log.decide(run_of(1), garbled, EventId::new("end"), &finished).await;
    let read = timeline(&log.cli, &log.logs, run_of(1), false).await.unwrap();
    assert_eq!(read.summary.outcome, Some(Outcome::Finished));
    let [Gap::Unreadable { sequence, reason }] = read.gaps.as_slice() else {
        panic!("{:?}", read.gaps);
    };
    assert_eq!(*sequence, garbled);
    assert!(reason.contains("line 1"), "{reason}");
}

#[tokio::test]
async fn a_tree_holds_its_children() {
    let log = Log::start().await;
    let (parent, child, lost) = (run_of(1), run_of(2), run_of(3));
    let hands = |call_id: &str, child_run_id| {
        RunEvent::HandedOff(HandedOff {
            call_id: call_id.to_owned(),
            child_run_id,
            agent: agent("scout"),
            task: "look".into(),
        })
    };
    let story = Story::asked("x").then([started(), vec![called(1, 1)]].concat());
    let blocks = vec![wants("a", "handoff", json!({})), wants("b", "handoff", json!({}))];
    let handing = vec![
        replied(1, blocks),
        tool("a", 1, "handoff", json!({})),
        hands("a", child),
        tool("b", 1, "handoff", json!({})),
        hands("b", lost),
    ];
    log.write(parent, &story.metered(1, |_| {}).then(handing)).await;
    // The child names its parent as its own child: that must not be followed for ever.
    let back = vec![called(1, 1), replied(1, vec![]), tool("c", 1, "handoff", json!({}))];
    let back = Story::asked("look").then([started(), back, vec![hands("c", parent)]].concat());
    log.write(child, &back.metered(1, |_| {})).await;

    let flat = timeline(&log.cli, &log.logs, parent, false).await.unwrap();
    assert_eq!((flat.children.len(), flat.gaps.len()), (0, 0));
    let tree = timeline(&log.cli, &log.logs, parent, true).await.unwrap();
    let [told] = tree.children.as_slice() else {
        panic!("{:?}", tree.children);
    };
    assert_eq!(told.summary.run_id, child);
    assert_eq!(tree.gaps, [Gap::ChildMissing { child_run_id: lost }]);
    assert!(!tree.is_complete());
}

#[tokio::test]
async fn a_run_that_is_not_there_is_said_not_to_be() {
    let log = Log::start().await;
    let none = timeline(&log.cli, &log.logs, run_of(1), false).await;
    assert!(matches!(none, Err(TimelineError::NotFound(run)) if run == run_of(1)));
    assert_eq!(list(&log.cli, &Filter::newest(10)).await.unwrap(), []);
}

#[tokio::test]
async fn expired_log_lines_are_a_gap() {
    let log = Log::start().await;
    log.write(run_of(1), &fixing()).await;
    let later = kit::clock::now() + SignedDuration::from_hours(24 * 30);
    // What a living process writes to is left alone: the writer is gone.
    log.logs.sweep(later).unwrap();
    let read = timeline(&log.cli, &log.logs, run_of(1), false).await.unwrap();
    let [Gap::LogsExpired { .. }] = read.gaps.as_slice() else {
        panic!("{:?}", read.gaps);
    };
    assert_eq!(read.entries[0].kind, "logs_expired");
}

#[tokio::test]
async fn log_lines_that_are_not_here_are_a_gap() {
    let log = Log::start().await;
    log.write(run_of(1), &fixing()).await;
    let gaps = async |logs: &LogStore| timeline(&log.cli, logs, run_of(1), false).await.unwrap().gaps;
    assert_eq!(gaps(&log.logs).await, []);

    let elsewhere = log.logs.dir().with_file_name("elsewhere");
    let never = LogStore::at(&elsewhere, Limits::SHIPPED);
    assert_eq!(gaps(&never).await, [Gap::LogsMissing { before: None }]);
    assert!(!elsewhere.exists(), "who reads makes no store");

    let later = LogStore::open(&elsewhere, Limits::SHIPPED).unwrap();
    let missing = gaps(&later).await;
    assert!(matches!(missing.as_slice(), [Gap::LogsMissing { before: Some(_) }]), "{missing:?}");

    std::fs::remove_dir_all(log.logs.dir()).unwrap();
    assert_eq!(gaps(&log.logs).await, [Gap::LogsMissing { before: None }]);
}

#[tokio::test]
async fn log_lines_that_a_crash_cut_are_a_gap_of_the_runs_of_that_time() {
    let log = Log::start().await;
    log.write(run_of(1), &fixing()).await;
    let mut files = std::fs::read_dir(log.logs.dir()).unwrap().map(|entry| entry.unwrap().path());
    let file = files.find(|path| path.extension().is_some_and(|e| e == "jsonl")).unwrap();
    let mut text = std::fs::read_to_string(&file).unwrap();
    text.truncate(text.len() - 5);
    std::fs::write(&file, text).unwrap();

    let read = timeline(&log.cli, &log.logs, run_of(1), false).await.unwrap();
    assert_eq!(read.gaps, [Gap::LogsBroken { lines: 1 }]);
    assert!(read.entries.iter().any(|entry| entry.kind == "logs_broken"));
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_named_by_either_end() {
    let log = Log::start().await;
    let service = log.serve(Config::SHIPPED);
    for n in [1, 2, 3] {
        let story = if n == 2 { Story::asked("wait") } else { fixing() };
        let written = log.write(run_of(n), &story).await;
        log.summary(written).await;
    }
    let newest = |filter: Filter| {
        let cli = log.cli.clone();
        async move {
            let found = list(&cli, &filter).await.unwrap();
            found.into_iter().map(|summary| summary.run_id).collect::<Vec<_>>()
        }
    };
    let all = Filter::newest(10);
    assert_eq!(newest(all.clone()).await, [run_of(3), run_of(2), run_of(1)]);
    assert_eq!(newest(Filter::newest(1)).await, [run_of(3)]);
    let live = Filter { ended: Some(false), ..all.clone() };
    assert_eq!(newest(live).await, [run_of(2)]);
    let nobodys = Filter { agent: Some(agent("scout")), ..all };
    assert_eq!(newest(nobodys).await, []);

    let id = run_of(2).to_string();
    for text in [&id, "00000002", &id[..10], &run_of(2).short(), &id[4..].replace('-', "")] {
        assert_eq!(resolve(&log.cli, text).await.unwrap(), run_of(2), "{text}");
    }
    let ambiguous = resolve(&log.cli, "0000").await.unwrap_err();
    let ResolveError::Ambiguous { candidates, more: false, .. } = &ambiguous else {
        panic!("{ambiguous}");
    };
    assert_eq!(candidates, &[run_of(1), run_of(2), run_of(3)]);
    assert!(matches!(resolve(&log.cli, "ffff").await, Err(ResolveError::Unknown(_))));
    assert!(matches!(resolve(&log.cli, "lead").await, Err(ResolveError::NoId(_))));
    stop(service).await;
}

//! The store of log lines: bounded, shared by processes, and honest about what is not in it any more.

use std::{
    fs::{self, File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use kit::{
    clock,
    logs::{Level, Limits, LogLine, LogSink, LogStore, MAX_LINE_BYTES, RunLines, Stream},
};
use proptest::prelude::*;
use schemas::RunId;
use tempfile::TempDir;

fn store(limits: Limits) -> (TempDir, LogStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path().join("logs"), limits).unwrap();
    (dir, store)
}

fn run() -> RunId {
    RunId::from_uuid(clock::uuid7())
}

fn line(run: RunId, time: Timestamp, message: &str) -> LogLine {
    LogLine::tool_output(time, "agent-runner", run, "shell", Stream::Stdout, message)
}

fn messages(store: &LogStore, run: RunId) -> Vec<String> {
    store.lines_of(run).unwrap().lines.into_iter().map(|line| line.message).collect()
}

fn files(store: &LogStore) -> Vec<PathBuf> {
    let entries = fs::read_dir(store.dir()).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "jsonl")).collect();
    files.sort();
    files
}

fn append_raw(path: &Path, bytes: &[u8]) {
    OpenOptions::new().append(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn lines_of_a_run_come_in_order_from_all_writers() {
    let (_dir, store) = store(Limits::SHIPPED);
    let (mine, other) = (run(), run());
    let at = |second| clock::now() + SignedDuration::from_secs(second);
    let (mut first, mut second) = (store.writer(), store.writer());
    first.append(&[line(mine, at(1), "a"), line(other, at(2), "x"), line(mine, at(3), "c")], at(3)).unwrap();
    second.append(&[line(mine, at(2), "b"), line(mine, at(4), "d")], at(4)).unwrap();

    assert_eq!(files(&store).len(), 2);
    let found = store.lines_of(mine).unwrap();
    let texts: Vec<_> = found.lines.iter().map(|line| line.message.as_str()).collect();
    assert_eq!(texts, ["a", "b", "c", "d"]);
    assert_eq!((found.broken, found.omitted, found.expired_before), (0, 0, None));
    assert_eq!(found.lines[0].stream, Some(Stream::Stdout));
}

#[test]
fn half_a_line_is_skipped_and_counted() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let now = clock::now();
    store.writer().append(&[line(run, now, "whole")], now).unwrap();
    let half = serde_json::to_string(&line(run, now, "cut by a crash")).unwrap();
    append_raw(&files(&store)[0], &half.as_bytes()[..half.len() - 5]);

    let found = store.lines_of(run).unwrap();
    assert_eq!(messages(&store, run), ["whole"]);
    assert_eq!(found.broken, 1);
}

#[test]
fn half_a_line_that_is_being_written_is_not_broken() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let now = clock::now();
    let mut writer = store.writer();
    writer.append(&[line(run, now, "whole")], now).unwrap();
    append_raw(&files(&store)[0], b"{\"time\":");

    assert_eq!(store.lines_of(run).unwrap().broken, 0);
    drop(writer);
    assert_eq!(store.lines_of(run).unwrap().broken, 1, "nobody writes the rest any more");
}

#[test]
fn what_is_broken_after_the_end_of_a_run_is_not_counted() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let end = clock::now();
    let later = end + SignedDuration::from_hours(1);
    store.writer().append(&[line(run, end, "last")], end).unwrap();
    let between = |store: &LogStore| store.lines_between(run, Timestamp::MIN, end).unwrap();
    append_raw(&files(&store)[0], b"broken\n");
    assert_eq!(between(&store).broken, 1);
    store.writer().append(&[line(RunId::from_uuid(clock::uuid7()), later, "of another")], later).unwrap();
    append_raw(&files(&store)[1], b"broken\n");
    assert_eq!(between(&store).broken, 1);
    assert_eq!(store.lines_of(run).unwrap().broken, 2);
}

#[test]
fn a_store_says_since_when_it_keeps_lines() {
    let before = clock::now();
    let (_dir, store) = store(Limits::SHIPPED);
    let since = store.lines_of(run()).unwrap().kept_since.unwrap();
    assert!(before <= since && since <= clock::now());
    let again = LogStore::open(store.dir(), Limits::SHIPPED).unwrap();
    assert_eq!(again.lines_of(run()).unwrap().kept_since, Some(since));

    // Whoever deletes everything deletes the mark as well, and what is written next makes another.
    fs::remove_dir_all(store.dir()).unwrap();
    assert_eq!(store.lines_of(run()).unwrap(), RunLines::default());
    store.sweep(clock::now()).unwrap();
    assert!(!store.dir().exists(), "who reads or sweeps makes no store");
    fs::create_dir(store.dir()).unwrap();
    assert_eq!(store.lines_of(run()).unwrap().kept_since, None);
    let now = clock::now();
    store.writer().append(&[line(run(), now, "new")], now).unwrap();
    assert_eq!(store.lines_of(run()).unwrap().kept_since, Some(now));
}

#[test]
fn a_store_without_the_mark_keeps_lines_since_its_oldest_file() {
    let (_dir, store) = store(Limits::SHIPPED);
    let then = Timestamp::from_millisecond(clock::now().as_millisecond() - 3_600_000).unwrap();
    store.writer().append(&[line(run(), then, "old")], then).unwrap();
    fs::remove_file(store.dir().join("kept.json")).unwrap();
    let again = LogStore::open(store.dir(), Limits::SHIPPED).unwrap();
    assert_eq!(again.lines_of(run()).unwrap().kept_since, Some(then));
}

#[test]
fn garbage_is_counted_and_hides_nothing() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let now = clock::now();
    let mut writer = store.writer();
    writer.append(&[line(run, now, "before")], now).unwrap();
    append_raw(&files(&store)[0], format!("\u{0}\n{{\"run_id\":\"{run}\"}}\n").as_bytes());
    append_raw(&files(&store)[0], &[0xff, b'\n']);
    writer.append(&[line(run, now, "after")], now).unwrap();

    assert_eq!(messages(&store, run), ["before", "after"]);
    assert_eq!(store.lines_of(run).unwrap().broken, 3);
}

#[test]
fn a_line_that_is_too_long_is_cut_and_says_so() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let now = clock::now();
    for text in ["\u{1}".repeat(MAX_LINE_BYTES), "ä".repeat(MAX_LINE_BYTES)] {
        let mut long = line(run, now, &text);
        long.fields.insert("huge".to_owned(), text.clone().into());
        long.fields.insert("small".to_owned(), 1.into());
        store.writer().append(&[long, line(run, now, "next")], now).unwrap();
    }
    let found = store.lines_of(run).unwrap();
    assert_eq!((found.lines.len(), found.broken), (4, 0));
    let cut = &found.lines[0];
    assert_eq!(cut.fields["truncated"], true);
    assert_eq!(cut.fields["small"], 1);
    assert!(!cut.message.is_empty() && !cut.fields.contains_key("huge"));
    assert!(files(&store).iter().all(|file| fs::metadata(file).unwrap().len() < 2 * MAX_LINE_BYTES as u64));
}

#[test]
fn the_oldest_files_go_and_leave_a_mark() {
    let small = Limits { file_bytes: 1000, store_bytes: 4000, ..Limits::SHIPPED };
    let (_dir, store) = store(small);
    let run = run();
    let begin = clock::now();
    let at = |n: i64| begin + SignedDuration::from_millis(n);
    let mut writer = store.writer();
    for n in 0..100 {
        writer.append(&[line(run, at(n), &n.to_string())], at(n)).unwrap();
    }

    let found = store.lines_of(run).unwrap();
    let expired = found.expired_before.expect("something expired");
    let kept: Vec<i64> = messages(&store, run).iter().map(|text| text.parse().unwrap()).collect();
    assert_eq!(*kept.last().unwrap(), 99);
    assert!(kept.len() < 40, "bounded: {}", kept.len());
    assert_eq!(kept, (kept[0]..100).collect::<Vec<_>>(), "no hole after the mark");
    assert_eq!(expired, at(kept[0] - 1), "the mark is the time of the last line that is gone");
    let bytes: u64 = files(&store).iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(bytes <= small.store_bytes + 2 * small.file_bytes, "{bytes}");
}

#[test]
fn lines_expire_with_age_but_never_under_their_writer() {
    let (_dir, store) = store(Limits::SHIPPED);
    let (gone, kept) = (run(), run());
    let now = clock::now();
    let mut closed = store.writer();
    closed.append(&[line(gone, now, "old")], now).unwrap();
    drop(closed);
    let mut open = store.writer();
    open.append(&[line(kept, now, "old as well")], now).unwrap();

    store.sweep(now + SignedDuration::from_hours(24 * 15)).unwrap();
    assert_eq!(messages(&store, gone), Vec::<String>::new());
    assert_eq!(store.lines_of(gone).unwrap().expired_before, Some(now));
    assert_eq!(messages(&store, kept), ["old as well"]);

    store.sweep(now).unwrap();
    assert_eq!(store.lines_of(gone).unwrap().expired_before, Some(now), "the mark stays");
}

#[test]
fn files_from_before_a_run_are_not_read() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let now = clock::now();
    store.writer().append(&[line(run, now, "early")], now).unwrap();
    File::options()
        .append(true)
        .open(&files(&store)[0])
        .unwrap()
        .set_modified((now - SignedDuration::from_hours(2)).into())
        .unwrap();
    store.writer().append(&[line(run, now, "late")], now).unwrap();

    let since = store.lines_between(run, now - SignedDuration::from_hours(1), now).unwrap();
    assert_eq!(since.lines.len(), 1);
    assert_eq!(messages(&store, run).len(), 2);
}

#[test]
fn whatever_the_queue_could_not_take_is_counted_by_run() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let (sink, guard) = LogSink::start(&store, "test").unwrap();
    // More than the queue holds, from four threads, faster than any disk: what is stored and what is said to be lost
    // must add up whatever the thread managed.
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for n in 0..10_000 {
                    sink.try_append(line(run, clock::now(), &n.to_string()));
                }
            });
        }
    });
    drop(guard);

    let lines = store.lines_of(run).unwrap().lines;
    let lost: u64 = lines.iter().filter_map(|line| line.fields.get("lost_lines")?.as_u64()).sum();
    let stored = lines.iter().filter(|line| line.stream.is_some()).count() as u64;
    assert_eq!(stored + lost, 40_000);
}

#[tokio::test]
async fn lines_lost_to_a_failing_disk_are_told_once_it_works_again() {
    let (_dir, store) = store(Limits::SHIPPED);
    let run = run();
    let (sink, guard) = LogSink::start(&store, "test").unwrap();
    fs::remove_dir_all(store.dir()).unwrap();
    sink.append(line(run, clock::now(), "lost")).await;
    until(|| sink.failing().is_some()).await;
    fs::create_dir(store.dir()).unwrap();
    sink.append(line(run, clock::now(), "kept")).await;
    drop(guard);

    let lines = store.lines_of(run).unwrap().lines;
    assert_eq!(lines.len(), 2);
    let (loss, kept): (Vec<_>, Vec<_>) = lines.iter().partition(|line| line.level == Level::Warn);
    assert_eq!(loss[0].fields["lost_lines"], 1);
    assert_eq!(kept[0].message, "kept");
    assert_eq!(sink.failing(), None);
}

/// Waits for a condition that another thread makes true.
async fn until(condition: impl Fn() -> bool) {
    let poll = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), poll).await.expect("the condition within 10 s");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_file_cut_anywhere_gives_its_whole_lines(cut in 0usize..2000) {
        let (_dir, store) = store(Limits::SHIPPED);
        let run = run();
        let now = clock::now();
        let lines: Vec<_> = (0..8).map(|n| line(run, now, &n.to_string())).collect();
        store.writer().append(&lines, now).unwrap();
        let path = &files(&store)[0];
        let bytes = fs::read(path).unwrap();
        let cut = cut.min(bytes.len());
        fs::write(path, &bytes[..cut]).unwrap();

        let whole = bytes[..cut].split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")).count();
        let rest = u64::from(cut > 0 && bytes[cut - 1] != b'\n');
        let found = store.lines_of(run).unwrap();
        prop_assert_eq!(found.lines.len(), whole);
        prop_assert_eq!(found.broken, rest);
    }
}

//! Timelines line by line, as people read them. `UPDATE_GOLDEN=1` writes the files anew.

use std::fmt::Write as _;
use std::path::Path;

use jiff::SignedDuration;
use kit::logs::{Level, Stream};
use schemas::call::CallOutcome;
use schemas::event::{
    ChildEnded, CodeCommitted, FailReason, Failed, FileChange, FileChanged, HandedOff, ModelErrorClass, ModelFailed,
    Outcome, ToolOutcome, WaitReason, Waiting, Work,
};
use schemas::published;
use schemas::signal::{ByWhom, Message};
use schemas::timeline::{Source, Timeline};
use schemas::{RunEvent, RunId, Signal};
use serde_json::json;

use crate::story::*;

/// The timeline as text: seconds since the beginning, source, kind, line.
fn text(timeline: &Timeline) -> String {
    let mut text = String::new();
    for entry in &timeline.entries {
        let after = entry.at.duration_since(begin()).as_millis();
        let source = serde_json::to_value(entry.source).unwrap();
        let source = source.as_str().unwrap();
        let kind = &entry.kind;
        let (whole, part) = (after / 1000, after % 1000);
        let line = &entry.line;
        let _ = writeln!(text, "{whole:>4}.{part:03} {source:<7} {kind:<18} {line}");
    }
    text
}

fn is_golden(name: &str, timeline: &Timeline) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
    let text = text(timeline);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, golden, "{name} differs from its golden file");
    is_valid(timeline);
}

/// Every timeline validates against the published schema, and is read back as what it was.
fn is_valid(timeline: &Timeline) {
    let all = published::schemas();
    let schema = all.iter().find(|schema| schema.name == "timeline").unwrap();
    let validator = jsonschema::validator_for(schema.schema.as_value()).unwrap();
    let json = serde_json::to_value(timeline).unwrap();
    let errors: Vec<_> = validator.iter_errors(&json).map(|e| e.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let back: Timeline = serde_json::from_value(json).unwrap();
    assert_eq!(back, *timeline);
}

fn work() -> Work {
    Work {
        repository: "shop".to_owned(),
        branch: "nightcrew/5a2f".to_owned(),
        commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
    }
}

pub(crate) fn fixing() -> Story {
    let changed = FileChanged {
        call_id: "t1".to_owned(),
        path: "src/price.rs".to_owned(),
        change: FileChange::Modified,
        added: 3,
        removed: 1_000,
        diff: "…".into(),
    };
    let committed = CodeCommitted { call_id: "t1".to_owned(), work: work(), subject: "fix: round prices".to_owned() };
    Story::asked("@lead the test in shop fails,\nplease fix it")
        .then([started(), vec![called(1, 1)]].concat())
        .logged(Level::Info, "calling the model", &json!({"attempt": 1, "route": "default"}))
        .metered(1, |_| {})
        .then(vec![
            replied(1, vec![says("I'll run it."), wants("t1", "shell", json!({"command": "cargo test"}))]),
            tool("t1", 1, "shell", json!({"command": "cargo test"})),
        ])
        .printed("shell", Stream::Stdout, "\u{1b}[32mtest result: ok\u{1b}[0m")
        .printed("shell", Stream::Stderr, "warning: unused")
        .then(vec![
            RunEvent::FileChanged(changed),
            RunEvent::CodeCommitted(committed),
            returned("t1", ToolOutcome::Ok, "test result: ok. 3 passed"),
        ])
        .then(vec![called(2, 1)])
        .metered(2, |_| {})
        .then([vec![replied(2, vec![says("Done.")])], answers("Done.")].concat())
        .delivered()
}

#[test]
fn a_run_from_question_to_answer() {
    let timeline = fixing().told();
    assert!(timeline.is_complete(), "{:?}", timeline.gaps);
    is_golden("answer", &timeline);
}

#[test]
fn a_run_that_was_taken_over_twice_explains_every_repeat() {
    let story = Story::asked("look")
        .then([started(), vec![called(1, 1)]].concat())
        .metered(1, |call| call.outcome = CallOutcome::CallerGone)
        .then(vec![taken_over(2), called(1, 2)])
        .then(vec![
            replied(
                1,
                vec![wants("t1", "read", json!({"path": "a.rs"})), wants("t2", "shell", json!({"command": "make"}))],
            ),
            tool("t1", 1, "read", json!({"path": "a.rs"})),
            tool("t2", 1, "shell", json!({"command": "make"})),
        ])
        .then(vec![
            taken_over(3),
            tool("t1", 1, "read", json!({"path": "a.rs"})),
            returned("t2", ToolOutcome::Uncertain, "The runner was lost."),
        ])
        .then(vec![returned("t1", ToolOutcome::Ok, "fn main() {}")])
        .then(vec![called(2, 1)])
        .metered(2, |_| {})
        .then([vec![replied(2, vec![says("Read.")])], answers("Read.")].concat())
        .delivered();
    let timeline = story.told();
    assert!(timeline.is_complete(), "{:?}", timeline.gaps);
    assert_eq!(timeline.summary.attempts, 3);
    is_golden("takeover", &timeline);
}

#[test]
fn a_run_that_hands_off_and_hears_its_child() {
    let child = RunId::from_uuid(uuid::Uuid::from_u128(0xc0de));
    let ended = ChildEnded {
        call_id: "t1".to_owned(),
        child_run_id: child,
        outcome: Outcome::Finished,
        answer: "It is price.rs.".into(),
        totals: totals(),
        work: Some(work()),
    };
    let handed =
        HandedOff { call_id: "t1".to_owned(), child_run_id: child, agent: agent("scout"), task: "find the bug".into() };
    let waiting = Waiting { reason: WaitReason::Child, until: Some(begin() + SignedDuration::from_mins(30)) };
    let taken = json!({"kind": "signal_taken", "signal_id": "s1", "name": "child_ended"});
    let arguments = json!({"agent": "scout", "task": "find the bug"});
    let resumed = json!({"kind": "resumed", "runner": "r-two", "attempt": 2, "cause": "signal"});
    let story = Story::asked("fix")
        .then([started(), vec![called(1, 1)]].concat())
        .metered(1, |_| {})
        .then(vec![
            replied(1, vec![wants("t1", "handoff", arguments.clone())]),
            tool("t1", 1, "handoff", arguments),
            RunEvent::HandedOff(handed),
        ])
        .then(vec![RunEvent::Waiting(waiting)])
        .signal(Signal::ChildEnded(ended.clone()))
        .then(vec![
            serde_json::from_value(resumed).unwrap(),
            serde_json::from_value(taken).unwrap(),
            RunEvent::ChildEnded(ended),
            returned("t1", ToolOutcome::Ok, "It is price.rs."),
        ])
        .then(vec![called(2, 1)])
        .metered(2, |_| {})
        .then([vec![replied(2, vec![says("ok")])], answers("ok")].concat())
        .delivered();
    let timeline = story.told();
    assert!(timeline.is_complete(), "{:?}", timeline.gaps);
    is_golden("handoff", &timeline);
}

fn failure(attempt: u32, class: ModelErrorClass, retry_after_ms: Option<u64>) -> RunEvent {
    RunEvent::ModelFailed(ModelFailed {
        step: 1,
        attempt,
        class,
        status: Some(429),
        message: "slow down".to_owned(),
        billed: None,
        retry_after_ms,
        retry_at: None,
    })
}

#[test]
fn a_run_that_fails_says_what_was_tried() {
    let failed =
        Failed { reason: FailReason::Budget, message: "the budget of the run is used up".to_owned(), totals: totals() };
    let story = Story::asked("try")
        .then([started(), vec![called(1, 1)]].concat())
        .metered(1, |call| {
            call.outcome = CallOutcome::UpstreamError;
            call.status = Some(429);
            call.cost = None;
        })
        .then(vec![failure(1, ModelErrorClass::RateLimited, Some(2_000))])
        .then(vec![called(1, 2)])
        .then(vec![failure(2, ModelErrorClass::Budget, None), RunEvent::Failed(failed)]);
    let timeline = story.told();
    assert!(timeline.is_complete(), "{:?}", timeline.gaps);
    is_golden("failure", &timeline);
}

#[test]
fn a_run_that_is_called_off_names_what_was_cut_off() {
    let by = ByWhom { by: "@ada:example.org".to_owned(), reason: "wrong repository".to_owned() };
    let cancelled = json!({
        "kind": "cancelled", "by": by.by, "reason": by.reason, "totals": totals(),
    });
    let story = Story::asked("try")
        .then([started(), vec![called(1, 1)]].concat())
        .metered(1, |_| {})
        .then(vec![
            replied(1, vec![wants("t1", "shell", json!({"command": "sleep 600"}))]),
            tool("t1", 1, "shell", json!({"command": "sleep 600"})),
        ])
        .signal(Signal::Message(Message { from: "@ada:example.org".to_owned(), text: "stop!".into() }))
        .signal(Signal::Cancel(by))
        .then(vec![serde_json::from_value(cancelled).unwrap()]);
    let timeline = story.told();
    assert!(timeline.is_complete(), "{:?}", timeline.gaps);
    is_golden("cancelled", &timeline);
}

#[test]
fn what_is_missing_stands_where_it_is_missing() {
    let story = Story::asked("fix")
        .then([started(), vec![called(1, 1)]].concat())
        .lost()
        .garbled()
        .then(vec![called(2, 1)])
        .then([vec![replied(2, vec![says("Done.")])], answers("Done.")].concat());
    let timeline = story.told();
    assert!(!timeline.is_complete());
    is_golden("gaps", &timeline);
}

#[test]
fn nothing_that_is_quoted_can_pretend_to_be_something_else() {
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}\r\nall is well\u{202e}";
    let story = Story::asked(evil)
        .then([started(), vec![called(1, 1)]].concat())
        .then(vec![
            replied(1, vec![says(evil), wants(evil, evil, json!({evil: evil}))]),
            tool(evil, 1, evil, json!({evil: evil})),
        ])
        .printed(evil, Stream::Stdout, evil)
        .logged(Level::Warn, evil, &json!({evil: evil}))
        .then(vec![returned(evil, ToolOutcome::Error, evil), finished(evil)]);
    let timeline = story.told();
    for entry in &timeline.entries {
        let bad = entry.line.chars().find(|c| c.is_control() || *c == '\u{202e}');
        assert_eq!(bad, None, "{:?}", entry.line);
    }
    assert!(!timeline.summary.prompt.contains('\u{1b}'));
    assert!(!timeline.summary.answer.contains('\n'));
    // What it really was is in the detail.
    let detail = timeline.entries[0].detail.to_string();
    assert!(detail.contains(r"\u001b[2J"), "{detail}");
    is_valid(&timeline);
}

#[test]
fn an_event_of_a_newer_version_is_shown() {
    let dreamt = json!({"kind": "dreamt", "of": "sheep"});
    let story = Story::asked("x").then(vec![serde_json::from_value(dreamt).unwrap()]);
    let timeline = story.told_after(SignedDuration::ZERO);
    let last = timeline.entries.last().unwrap();
    assert_eq!((last.source, last.kind.as_str()), (Source::Journal, "dreamt"));
    assert!(last.line.contains("does not know"), "{}", last.line);
    assert_eq!(last.detail["of"], "sheep");
}

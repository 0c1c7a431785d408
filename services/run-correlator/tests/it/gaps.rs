//! The completeness check: what is a gap, and what is none.

use jiff::SignedDuration;
use schemas::event::{HandedOff, ToolOutcome};
use schemas::timeline::Gap;
use schemas::{EventId, RunEvent, RunId, Signal};
use serde_json::json;

use crate::story::*;

const SOON: SignedDuration = SignedDuration::from_secs(5);

fn asked_and_called() -> Story {
    Story::asked("x").then([started(), vec![called(1, 1)]].concat())
}

fn with_open_tool() -> Story {
    asked_and_called()
        .metered(1, |_| {})
        .then(vec![replied(1, vec![wants("t1", "shell", json!({}))]), tool("t1", 1, "shell", json!({}))])
}

#[test]
fn a_live_run_is_in_the_middle_of_something_and_lacks_nothing() {
    assert_eq!(asked_and_called().told_after(SOON).gaps, []);
    assert_eq!(with_open_tool().told_after(SOON).gaps, []);
}

#[test]
fn a_run_beyond_its_deadline_lacks_its_end_and_what_was_open() {
    let deadline = begin() + SignedDuration::from_mins(30);
    assert_eq!(asked_and_called().gaps(), [Gap::NotReplied { step: 1 }, Gap::NotEnded { deadline }]);
    let call_id = "t1".to_owned();
    assert_eq!(with_open_tool().gaps(), [Gap::NotReturned { call_id }, Gap::NotEnded { deadline }]);
    assert_eq!(Story::asked("x").gaps(), [Gap::NotEnded { deadline }]);
}

#[test]
fn a_call_without_outcome_is_a_gap_once_the_run_went_on() {
    let went_on = with_open_tool().then(vec![called(2, 1)]);
    let call_id = "t1".to_owned();
    assert_eq!(went_on.told_after(SOON).gaps, [Gap::NotReturned { call_id }]);

    let went_on = asked_and_called().then(vec![called(2, 1)]);
    assert_eq!(went_on.told_after(SOON).gaps, [Gap::NotReplied { step: 1 }]);
}

#[test]
fn a_call_of_a_lost_holder_is_no_gap_when_its_successor_settled_it() {
    let again = asked_and_called()
        .then(vec![taken_over(2), called(1, 2)])
        .metered(1, |_| {})
        .then(vec![replied(1, vec![says("ok")]), finished("ok")]);
    assert_eq!(again.gaps(), []);
    let uncertain = with_open_tool()
        .then(vec![taken_over(2), returned("t1", ToolOutcome::Uncertain, "")])
        .then(vec![finished("ok")]);
    assert_eq!(uncertain.gaps(), []);
}

#[test]
fn an_end_that_cuts_calls_off_explains_them() {
    for kind in ["killed", "cancelled"] {
        let end = json!({"kind": kind, "by": "x", "reason": "y", "totals": totals()});
        let end: RunEvent = serde_json::from_value(end).unwrap();
        assert_eq!(with_open_tool().then(vec![end]).gaps(), []);
    }
    let finished = with_open_tool().then(vec![finished("ok")]);
    let call_id = "t1".to_owned();
    assert_eq!(finished.gaps(), [Gap::NotReturned { call_id }]);
}

#[test]
fn what_was_said_must_have_been_delivered() {
    let said = Story::asked("x").then(started()).then(answers("y"));
    let decision_id = EventId::new("d103");
    assert_eq!(said.told_after(SOON).gaps, [], "it may be on its way");
    assert_eq!(said.gaps(), [Gap::NotDelivered { decision_id }]);
    assert_eq!(said.delivered().gaps(), []);
    let refused = Story::asked("x").then(started()).then(answers("y")).refused();
    assert_eq!(refused.gaps(), [Gap::NotDelivered { decision_id: EventId::new("d103") }]);
    assert_eq!(
        line_of(&refused, "undelivered"),
        "matrix does not take what it said, in !crew:example.org: “not in the room”"
    );
    assert_eq!(refused.delivered().gaps(), []);
}

#[test]
fn an_answer_that_nobody_was_there_to_see_is_told_as_such() {
    let unattended = schemas::signal::Delivered {
        decision_id: EventId::new("d102"),
        channel: "terminal".to_owned(),
        room: "terminal-1".to_owned(),
        external_id: "unattended".to_owned(),
    };
    let story = Story::asked("x").then(answers("y")).signal(Signal::Delivered(unattended));
    assert_eq!(line_of(&story, "delivered"), "nobody was there to see what it said, in terminal-1 of terminal");
    assert_eq!(story.gaps(), []);
}

fn line_of(story: &Story, kind: &str) -> String {
    story.told().entries.into_iter().find(|entry| entry.kind == kind).unwrap().line
}

#[test]
fn an_effect_must_have_been_done() {
    let wanted = Story::asked("x").effect("forge", started());
    let done = json!({
        "kind": "effect_done", "decision_id": "d102", "system": "forge", "external_id": "1",
    });
    let done: Signal = serde_json::from_value(done).unwrap();
    let gap = Gap::EffectNotDone { decision_id: EventId::new("d102"), system: "forge".to_owned() };
    let ended = |story: Story| story.then(vec![finished("y")]).gaps();
    assert_eq!(ended(wanted), [gap]);
    let done = Story::asked("x").effect("forge", started()).signal(done);
    assert_eq!(ended(done), []);
}

#[test]
fn an_answer_must_have_been_metered() {
    let answered = || asked_and_called().then(vec![replied(1, vec![says("ok")]), finished("ok")]);
    assert_eq!(answered().told_after(SOON).gaps, [], "it may be on its way");
    assert_eq!(answered().gaps(), [Gap::NotMetered { step: 1 }]);
    assert_eq!(answered().metered(1, |_| {}).gaps(), []);
    let other = answered().metered(1, |call| call.idempotency_key = "another/1".to_owned());
    assert_eq!(other.gaps(), [Gap::NotMetered { step: 1 }]);
}

#[test]
fn a_child_must_have_ended() {
    let child = RunId::from_uuid(uuid::Uuid::from_u128(9));
    let handed = RunEvent::HandedOff(HandedOff {
        call_id: "t1".to_owned(),
        child_run_id: child,
        agent: agent("scout"),
        task: "look".into(),
    });
    let story = || with_open_tool().then(vec![handed.clone()]);
    assert_eq!(story().told_after(SOON).gaps, []);
    let gap = [Gap::ChildNotEnded { child_run_id: child }];
    assert_eq!(story().then(vec![finished("ok")]).gaps(), gap);
    let without = story().then(vec![returned("t1", ToolOutcome::Ok, "")]);
    assert_eq!(without.told_after(SOON).gaps, gap);
    let ended = json!({
        "kind": "child_ended", "call_id": "t1", "child_run_id": child, "outcome": "failed",
        "answer": "", "totals": totals(),
    });
    let ended: RunEvent = serde_json::from_value(ended).unwrap();
    let returned = returned("t1", ToolOutcome::Error, "");
    let complete = story().then(vec![ended, returned]).then(vec![finished("ok")]);
    assert_eq!(complete.gaps(), []);
}

#[test]
fn a_missing_message_is_missed_by_the_one_after_it() {
    let finish = |story: Story| story.then(vec![finished("ok")]);
    let middle = finish(Story::asked("x").lost().lost().then(started()));
    let missing = |before, expected| Gap::MissingSequence { before, expected };
    assert_eq!(middle.gaps(), [missing(Some(104), 103)]);

    let mut end = Story::asked("x").then(started());
    end.evidence.known_last = 109;
    assert_eq!(end.told_after(SOON).gaps, [missing(None, 109)]);
    end.evidence.known_last = 102;
    assert_eq!(end.told_after(SOON).gaps, []);
}

#[test]
fn an_unreadable_message_is_no_missing_one() {
    let story = Story::asked("x").garbled().then(started());
    let reason = "its body is no decision".to_owned();
    assert_eq!(story.told_after(SOON).gaps, [Gap::Unreadable { sequence: 102, reason }]);
}

#[test]
fn a_gap_is_named_as_it_is_written() {
    let (reason, blob) = (String::new(), String::new());
    let (child_run_id, at) = (run(), begin());
    let (decision_id, call_id) = (EventId::new("d"), "t".to_owned());
    let all = [
        Gap::NotEnded { deadline: at },
        Gap::NotReplied { step: 1 },
        Gap::NotMetered { step: 1 },
        Gap::NotReturned { call_id },
        Gap::ChildNotEnded { child_run_id },
        Gap::ChildMissing { child_run_id },
        Gap::NotDelivered { decision_id: decision_id.clone() },
        Gap::EffectNotDone { decision_id, system: "forge".to_owned() },
        Gap::MissingSequence { before: None, expected: 1 },
        Gap::Unreadable { sequence: 1, reason: reason.clone() },
        Gap::ArchiveUnreadable { blob, reason: reason.clone() },
        Gap::LogsExpired { before: at },
        Gap::LogsMissing { before: None },
        Gap::LogsMissing { before: Some(at) },
        Gap::LogsBroken { lines: 1 },
        Gap::LogsOmitted { lines: 1 },
        Gap::LogsUnreadable { reason },
    ];
    for gap in all {
        assert_eq!(serde_json::to_value(&gap).unwrap()["gap"], gap.name());
        assert!(!gap.to_string().is_empty());
    }
}

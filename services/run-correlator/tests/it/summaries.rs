//! The fold of a summary.

use proptest::prelude::*;
use proptest::sample::Index;
use run_correlator::domain::summary::{self, Folded};
use schemas::event::{Outcome, ToolOutcome, WaitReason};
use schemas::summary::{RunState, RunSummary};
use schemas::{MicroUsd, RunEvent};
use serde_json::json;

use crate::story::*;

fn event(event: serde_json::Value) -> RunEvent {
    serde_json::from_value(event).unwrap()
}

fn whole() -> Story {
    Story::asked("please\nlook")
        .then([started(), vec![called(1, 1)]].concat())
        .then(vec![replied(1, vec![wants("t1", "shell", json!({}))]), tool("t1", 1, "shell", json!({}))])
        .then(vec![event(json!({"kind": "waiting", "reason": "child"}))])
        .garbled()
        .then(vec![taken_over(2), returned("t1", ToolOutcome::Ok, "fine")])
        .then(vec![called(2, 1)])
        .then([vec![replied(2, vec![says("ok")])], answers("It works.")].concat())
}

fn folded(story: &Story) -> RunSummary {
    summary::fold(run(), &story.evidence.links()).unwrap()
}

#[test]
fn a_summary_says_where_the_run_stands() {
    let links_until = |n: usize| {
        let story = whole();
        let links = story.evidence.links();
        summary::fold(run(), &links[..n]).unwrap()
    };
    assert_eq!(links_until(1).state, RunState::Requested);
    assert_eq!(links_until(2).state, RunState::Running);
    assert_eq!(links_until(3).totals.cost, MicroUsd(4_120));
    assert_eq!(links_until(4).state, RunState::Waiting(WaitReason::Child));
    assert_eq!(links_until(5).last_sequence, 105, "unreadable but seen");
    assert_eq!(links_until(6).totals.tool_calls, 1);
    assert_eq!(links_until(6).totals.millis, 5_000);

    let end = folded(&whole());
    assert_eq!(end.state, RunState::Ended);
    assert_eq!(end.outcome, Some(Outcome::Finished));
    assert_eq!((end.prompt.as_str(), end.answer.as_str()), ("please look", "It works."));
    assert_eq!((end.first_sequence, end.last_sequence), (101, 108));
    assert_eq!(end.attempts, 2);
    assert_eq!(end.totals, totals(), "the end's own totals count");
}

#[test]
fn an_archive_tells_nothing_new_about_the_run() {
    let archived = event(json!({
        "kind": "archived", "archive": {"blob": "00", "bytes": 1}, "digest": "00",
        "messages": {}, "first_sequence": 101, "last_sequence": 108,
    }));
    let before = folded(&whole());
    let after = folded(&whole().then(vec![archived]));
    let expected = RunSummary { archived: true, last_sequence: 109, ..before };
    assert_eq!(after, expected);
}

#[test]
fn a_message_that_does_not_follow_is_not_applied() {
    let story = whole();
    let links = story.evidence.links();
    let mut partial = summary::fold(run(), &links[..2]).unwrap();
    let before = partial.clone();
    assert_eq!(summary::apply(&mut partial, links[3]), Folded::Hole);
    assert_eq!(partial, before);
    assert_eq!(summary::apply(&mut partial, links[2]), Folded::Applied);
    assert_eq!(summary::apply(&mut partial, links[3]), Folded::Applied);
}

#[test]
fn a_run_begins_with_its_request() {
    assert_eq!(summary::fold(run(), &[]), None);
    let story = Story::empty().then(started());
    assert_eq!(summary::fold(run(), &story.evidence.links()), None);
}

proptest! {
    /// Deliveries come again, late and out of order: whatever comes, a summary is that of a beginning of the journal, and
    /// once all came in order after that it is that of the whole.
    #[test]
    fn whatever_comes_twice_or_too_early_changes_nothing(noise in prop::collection::vec(any::<Index>(), 0..40)) {
        let story = whole();
        let links = story.evidence.links();
        let mut folded = summary::begin(run(), links[0]).unwrap();
        let prefixes: Vec<_> = (1..=links.len())
            .map(|n| summary::fold(run(), &links[..n]).unwrap())
            .collect();
        for index in noise {
            summary::apply(&mut folded, links[index.index(links.len())]);
            prop_assert!(prefixes.contains(&folded));
        }
        for link in &links {
            summary::apply(&mut folded, *link);
        }
        prop_assert_eq!(Some(&folded), prefixes.last());
    }
}

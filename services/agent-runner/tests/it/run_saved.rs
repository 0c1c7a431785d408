//! Saving the state of a run, and going on from it in another.

use agent_runner::run::{Command, RunState, Turn, decide, decide::Returned, next::Asked};
use proptest::prelude::*;
use schemas::{
    Block, SavedState, Text, Usage,
    event::{ContextLoaded, ModelCalled, ModelReplied, StopReason, ToolOutcome, ToolReturned},
    state,
};
use serde_json::json;

use crate::{
    run_invariants::requested,
    run_progress::{Play, happens, now},
};

/// What is saved can always be read again.
fn saved(state: &RunState) -> SavedState {
    let saved = state.save().unwrap();
    let read = SavedState::parse(&serde_json::to_vec(&saved).unwrap());
    assert_eq!(read.unwrap_or_else(|error| panic!("{error:?}: {saved:#?}")), saved);
    saved
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn a_run_goes_on_from_what_another_saved_whenever_it_is_loaded(
        first in proptest::collection::vec(happens(), 0..40),
        then in proptest::collection::vec(happens(), 0..40),
    ) {
        let mut before = Play::new("a");
        for what in &first {
            before.happen(what);
        }
        let state = saved(&before.live);
        let mut play = Play::new("b");
        play.live.go_on_from(&state);
        for what in &then {
            play.happen(what);
        }
        for loaded_at in 0..=play.journal.len() {
            let mut replayed = RunState::begin(play.live.run_id(), 1, now(), &play.journal[0]).unwrap();
            for (n, decision) in play.journal.iter().enumerate() {
                if n == loaded_at {
                    replayed.go_on_from(&state);
                }
                replayed.apply_message(n as u64 + 1, 10, decision).unwrap();
            }
            replayed.go_on_from(&state);
            prop_assert_eq!(&replayed, &play.live);
        }
        let again = saved(&play.live);
        prop_assert!(again.turns.starts_with(&state.turns), "what was before stays before");
        prop_assert!(again.tools.starts_with(&state.tools));
        prop_assert_eq!(again.turns.get(state.turns.len()), Some(&state::Turn::User { texts: vec!["do it".into()] }));
    }
}

fn after(state: &RunState, command: Command) -> RunState {
    decide(state, command).unwrap().0
}

fn held() -> RunState {
    let (run, first) = requested();
    let state = RunState::begin(run, 1, now(), &first).unwrap();
    let state = after(&state, Command::Take { runner: "r".into(), harness: "native".into() });
    let context = ContextLoaded { model: "strong".into(), context_window: 1_000, system: "s".into(), tools: vec![] };
    after(&state, Command::LoadContext(context))
}

/// The model thinks, speaks, and makes these calls.
fn replied(state: &RunState, step: u32, calls: &[&str]) -> RunState {
    let called = ModelCalled { step, attempt: 1, model: "strong".into(), input_estimate: 1, dropped_messages: 0 };
    let thought = Block::Thinking { thinking: "hm".into(), signature: "s".into() };
    let said = Block::Text { text: format!("step {step}") };
    let call = |id: &&str| Block::ToolUse { id: (*id).to_owned(), name: "shell".into(), input: json!({}) };
    let reply = ModelReplied {
        step,
        model: "m".into(),
        content: [thought, said].into_iter().chain(calls.iter().map(call)).collect(),
        stop: StopReason::ToolUse,
        usage: Usage::default(),
        cost: None,
        estimated: false,
        millis: 1,
    };
    after(&after(state, Command::CallModel(called)), Command::Reply(reply))
}

fn called(state: &RunState, id: &str) -> RunState {
    let asked = Asked { call_id: id.to_owned(), tool: "shell".into(), arguments: json!({}) };
    after(state, Command::CallTool { asked, idempotent: false })
}

fn returned(state: &RunState, id: &str, output: impl Into<Text>) -> RunState {
    let result = ToolReturned { call_id: id.to_owned(), outcome: ToolOutcome::Ok, output: output.into(), millis: 1 };
    let returned = Returned { result, changes: vec![], saved: None, committed: None };
    after(state, Command::ReturnTool(Box::new(returned)))
}

#[test]
fn a_call_that_has_not_returned_is_uncertain_and_thinking_is_left_out() {
    let state = replied(&held(), 1, &["a", "b", "c"]);
    let state = returned(&called(&called(&state, "a"), "b"), "a", "done");
    let saved = saved(&state);
    let [state::Turn::User { .. }, state::Turn::Assistant { blocks }, state::Turn::Tools { results }] =
        saved.turns.as_slice()
    else {
        panic!("{:#?}", saved.turns)
    };
    assert_eq!(blocks.len(), 4, "text and calls: {blocks:?}");
    let outcomes: Vec<_> = results.iter().map(|result| (result.call_id.as_str(), result.outcome)).collect();
    let uncertain = ToolOutcome::Uncertain;
    assert_eq!(outcomes, [("a", ToolOutcome::Ok), ("b", uncertain), ("c", uncertain)]);
    assert!(results[1].output.preview().contains("uncertain whether it took effect"));
    assert_eq!((saved.outcome, saved.tools.len()), (None, 3));
    assert_eq!(saved.data["native"], json!({ "model": "strong", "steps": 1 }));
}

#[test]
fn what_no_model_could_be_sent_is_left_out_and_said() {
    let step_bytes = 100_000;
    let state = (1..=60).fold(held(), |state, step| {
        let id = format!("call-{step}");
        returned(&called(&replied(&state, step, &[&id]), &id), &id, format!("{step} {}", "x".repeat(step_bytes)))
    });
    let first = saved(&state);
    assert!(first.left_out > 0 && first.turns.len() < state.turns().len(), "{}", first.left_out);
    assert_eq!(first.tools.len(), 60, "all calls are listed");
    let state::Turn::User { texts } = &first.turns[0] else { panic!("the task stays first") };
    assert!(texts[1].preview().contains(&format!("{} earlier messages", first.left_out)), "{texts:?}");
    let Some(state::Turn::Tools { results }) = first.turns.last() else { panic!("the last step stays") };
    assert!(results[0].output.preview().starts_with("60 "));

    let mut next = held();
    next.go_on_from(&first);
    assert_eq!(saved(&next).left_out, first.left_out, "also after a run that added nothing");

    let huge = returned(&called(&replied(&held(), 1, &["a"]), "a"), "a", "x".repeat(5_000_000));
    assert!(huge.save().is_err(), "a step that no window holds can not be gone on from");
}

#[test]
fn the_task_of_a_run_stands_after_what_it_goes_on_from() {
    let state = saved(&replied(&held(), 1, &[]));
    let mut next = held();
    next.go_on_from(&state);
    next.go_on_from(&state);
    assert_eq!((next.task(), next.turns().len()), (2, 3), "a second time changes nothing");
    assert_eq!(next.turns()[2], Turn::User(vec!["do it".into()]));
}

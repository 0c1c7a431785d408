//! What is read as a saved state, and what is refused.

use schemas::{
    AgentName, ProjectId, SavedState,
    state::{InvalidState, MAX_STATE_BYTES, STATE_VERSION},
};
use serde_json::{Value, json};

use crate::golden::samples;

fn sample() -> Value {
    samples("saved_state").into_iter().find(|sample| sample.name == "saved_state").unwrap().value
}

fn parse(value: &Value) -> Result<SavedState, InvalidState> {
    SavedState::parse(&serde_json::to_vec(value).unwrap())
}

/// The sample with something else at a JSON pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut sample = sample();
    *sample.pointer_mut(pointer).unwrap() = value;
    sample
}

#[test]
fn a_state_is_read_as_it_was_written() {
    let state = parse(&sample()).unwrap();
    assert_eq!(serde_json::to_value(&state).unwrap(), sample());
}

#[test]
fn what_a_newer_build_wrote_is_told_from_what_is_damaged() {
    let mut future = with("/version", json!(STATE_VERSION + 1));
    future["turns"] = json!("another shape");
    assert!(matches!(parse(&future), Err(InvalidState::Future { found }) if found == STATE_VERSION + 1));
    assert!(matches!(parse(&with("/turns", json!("another shape"))), Err(InvalidState::Damaged(_))));
    assert!(matches!(parse(&json!({ "version": "1" })), Err(InvalidState::Damaged(_))));
    let text = serde_json::to_string(&sample()).unwrap();
    for cut in [0, 1, text.len() / 2, text.len() - 1] {
        assert!(matches!(SavedState::parse(&text.as_bytes()[..cut]), Err(InvalidState::Damaged(_))), "{cut}");
    }
    assert!(matches!(SavedState::parse(b"\xff\xfe"), Err(InvalidState::Damaged(_))));
}

#[test]
fn what_is_too_large_is_not_even_looked_at() {
    let bytes = usize::try_from(MAX_STATE_BYTES).unwrap() + 1;
    assert!(matches!(SavedState::parse(&vec![b' '; bytes]), Err(InvalidState::TooLarge { .. })));
}

#[test]
fn a_conversation_that_no_provider_takes_is_refused_with_its_turn() {
    let words = json!({ "role": "user", "texts": ["hello"] });
    let said = json!({ "role": "assistant", "blocks": [{ "type": "text", "text": "yes" }] });
    let call = |id: &str| json!({ "type": "tool_use", "id": id, "name": "read", "input": {} });
    let called =
        |ids: &[&str]| json!({ "role": "assistant", "blocks": ids.iter().map(|id| call(id)).collect::<Vec<_>>() });
    let result = |id: &str| json!({ "call_id": id, "tool": "read", "outcome": "ok", "output": "x" });
    let returned =
        |ids: &[&str]| json!({ "role": "tools", "results": ids.iter().map(|id| result(id)).collect::<Vec<_>>() });
    let good = [words.clone(), called(&["a", "b"]), returned(&["a", "b"]), words.clone(), said.clone()];
    assert!(parse(&with("/turns", json!(good))).is_ok());
    for (turn, turns) in [
        (0, vec![]),
        (1, vec![said.clone()]),
        (1, vec![returned(&["a"])]),
        (1, vec![json!({ "role": "user", "texts": [] })]),
        (2, vec![words.clone(), json!({ "role": "assistant", "blocks": [] })]),
        (2, vec![words.clone(), called(&["a"])]),
        (2, vec![words.clone(), called(&["a", "a"]), returned(&["a", "a"])]),
        (3, vec![words.clone(), called(&["a"]), words.clone()]),
        (3, vec![words.clone(), called(&["a"]), said.clone()]),
        (3, vec![words.clone(), called(&["a", "b"]), returned(&["a"])]),
        (3, vec![words.clone(), called(&["a", "b"]), returned(&["b", "a"])]),
        (4, vec![words.clone(), called(&["a"]), returned(&["a"]), returned(&["a"])]),
        (4, vec![words.clone(), called(&["a"]), returned(&["a"]), called(&["a"]), returned(&["a"])]),
    ] {
        match parse(&with("/turns", json!(turns))) {
            Err(InvalidState::Conversation { turn: found, .. }) => assert_eq!(found, turn, "{turns:?}"),
            other => panic!("{other:?}: {turns:?}"),
        }
    }
}

#[test]
fn another_projects_or_agents_state_is_foreign() {
    let state = parse(&sample()).unwrap();
    let (project, agent) = (|name| ProjectId::try_new(name).unwrap(), |name| AgentName::try_new(name).unwrap());
    assert!(state.check_for(&project("demo"), &agent("coder")).is_ok());
    let other = state.check_for(&project("other"), &agent("coder")).unwrap_err();
    assert_eq!(other.to_string(), "it is of project demo, and this is other");
    let other = state.check_for(&project("demo"), &agent("lead")).unwrap_err();
    assert_eq!(other.to_string(), "it is the state of coder, and lead can not go on from it");
}

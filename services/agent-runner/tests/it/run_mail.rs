//! What is said to a run comes to its model whole.

use agent_runner::run::{Command, RunState, decide};
use jiff::Timestamp;
use kit::for_test;
use schemas::{BlobRef, EventId, Text, event::ContextLoaded, signal::Message};

fn hear(state: &RunState, id: &str, text: Text) -> RunState {
    decide(state, Command::Hear(EventId::new(id), Message { from: "ada".into(), text })).unwrap().0
}

#[test]
fn a_long_message_is_not_cut_to_its_beginning() {
    let (run, request) = for_test::request("coder");
    let state = RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &for_test::first(request)).unwrap();
    let (state, _) = decide(&state, Command::Take { runner: "r".into(), harness: "native".into() }).unwrap();
    let context = ContextLoaded { model: "m".into(), context_window: 9, system: "s".into(), tools: vec![] };
    let (state, _) = decide(&state, Command::LoadContext(context)).unwrap();
    let long = Text::Blob(BlobRef { blob: "b".into(), bytes: 70_000, preview: Some("Once".into()) });
    let state = hear(&hear(&state, "1", "Go on.".into()), "2", long.clone());
    assert_eq!(state.mail(), ["Message from ada:\nGo on.".into(), "Message from ada:".into(), long]);
}

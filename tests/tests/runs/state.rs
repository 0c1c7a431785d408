//! What an agent knows after a run is saved, and another run goes on from it: its conversation, and its work as it stood.

use std::path::Path;

use agent_runner::wake::fold;
use kit::{blobs::Blobs, identity::Service, message::Outgoing};
use nightcrew_tests::{
    process::{Process, Spec},
    rig::Rig,
};
use rehearsal::Outcome;
use schemas::{
    BlobRef, Decision, RunEvent, RunId, SavedState,
    event::{FailReason, Failed, Requested},
    state::Turn,
};

use crate::RUNNER;

/// The steps are those of the whole conversation: a model that did not see the first two could not be at its third.
const SCENARIO: &str = "
name: state
rules:
  - name: writes
    when: {agent: coder, step: 1, last_user: 'colour'}
    reply:
      text: I note it.
      tools: [{name: write, arguments: {path: note.txt, content: 'noted before'}}]
  - name: says-so
    when: {agent: coder, step: 2, tool_result: {tool: write}}
    reply: {text: It is noted.}
  - name: looks
    when: {agent: coder, step: 3, last_user: 'Which was it', any_message: 'The colour is teal'}
    reply:
      tools: [{name: read, arguments: {path: note.txt}}]
  - name: remembers
    when: {agent: coder, step: 4, tool_result: {tool: read, content: 'noted before'}, any_message: 'The colour is (?<colour>[a-z]+)'}
    reply: {text: 'It was {{capture.colour}}.'}
";

/// The first run, which leaves a note that it does not commit, and what the agent knows after it.
async fn first_run(rig: &Rig) -> SavedState {
    let runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("coder", "Note this. The colour is teal.").await.expect("a run");
    let end = rig.end(run).await.expect("an end");
    assert_eq!(answer(&end), Some("It is noted."), "{end:?}");
    runner.stop().await;
    state_after(rig, run).await
}

async fn state_after(rig: &Rig, run: RunId) -> SavedState {
    let messages = rig.messages(run).await.expect("a journal");
    fold(run, &messages).expect("a state").save().expect("a saved state")
}

async fn put(rig: &Rig, content: Vec<u8>) -> BlobRef {
    Blobs::new(&rig.bus.bus(Service::Nightcrew).await).put(content.into()).await.expect("a blob")
}

async fn keep(rig: &Rig, state: &SavedState) -> BlobRef {
    put(rig, serde_json::to_vec(state).expect("JSON")).await
}

/// Asks for a run that goes on from `state`.
async fn go_on(rig: &Rig, agent: &str, state: BlobRef) -> RunId {
    let key = kit::clock::uuid7().to_string();
    let (run, message) = rig.request(agent, "Which was it?", &key).expect("a request");
    let mut decision: Decision = serde_json::from_slice(&message.body).expect("a decision");
    let Some(RunEvent::Requested(requested)) = decision.events.first_mut() else {
        unreachable!("a run begins with requested")
    };
    **requested = Requested { state: Some(state), ..(**requested).clone() };
    let message = Outgoing::decision(message.subject, message.envelope, &decision).expect("a message");
    rig.journal.append(run, 0, message).await.expect("it is requested");
    run
}

/// What a run answered, when it ended well.
fn answer(end: &RunEvent) -> Option<&str> {
    match end {
        RunEvent::Finished(finished) => Some(finished.answer.preview()),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_on_from_what_the_agent_knew_and_where_it_worked() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let state = first_run(&rig).await;
    assert_eq!((state.turns.len(), state.tools.len(), state.worktree.len()), (4, 1, 1), "{state:#?}");
    let _runner = rig.runner("another-disk").await.expect("a runner");
    let run = go_on(&rig, "coder", keep(&rig, &state).await).await;
    let end = rig.end(run).await.expect("an end");
    assert_eq!(answer(&end), Some("It was teal."), "{end:?}");

    // And what it knows after that is all of it.
    let mut after = fold(run, &rig.messages(run).await.expect("a journal")).expect("a state");
    after.go_on_from(&state);
    let after = after.save().expect("a saved state");
    assert_eq!((after.turns.len(), after.tools.len(), after.run_id), (8, 2, run));
    assert!(after.turns.starts_with(&state.turns) && after.worktree == state.worktree);
    let Turn::User { texts } = &after.turns[4] else { panic!("the new task: {:?}", after.turns[4]) };
    assert_eq!(texts[0].preview(), "Which was it?");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_killed_goes_on_from_the_same_state() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let state = first_run(&rig).await;
    let seen = rig.rehearsal.requests(u64::MAX).seen;
    let points = Some(rig.folder().join("points"));
    let crash_at = Some("coder AfterTool read #1".to_owned());
    let first = Spec { points, crash_at, ..rig.spec("disk-1").expect("a spec") };
    let mut first = Process::start(Path::new(RUNNER), first).await.expect("a runner");
    let run = go_on(&rig, "coder", keep(&rig, &state).await).await;
    first.exited().await.expect("it is killed in the middle");
    let _second = Process::start(Path::new(RUNNER), rig.spec("disk-2").expect("a spec")).await.expect("a runner");
    let end = rig.end(run).await.expect("an end");
    assert_eq!(answer(&end), Some("It was teal."), "{end:?}");
    let requests = rig.rehearsal.requests(seen).requests;
    assert!(requests.iter().all(|request| request.outcome == Outcome::Completed), "{requests:?}");
    assert_eq!(requests.len(), 2, "each call was paid once: {requests:?}");
    let resumed = rig.events(run).await.expect("events").iter().filter(|event| event.kind() == "resumed").count();
    assert_eq!(resumed, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_lost_damaged_or_anothers_ends_the_run_with_that_as_its_reason() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let state = first_run(&rig).await;
    let _runner = rig.runner("disk").await.expect("a runner");
    let whole = keep(&rig, &state).await;
    let json = serde_json::to_vec(&state).expect("JSON");
    let cut = put(&rig, json[..json.len() / 2].to_vec()).await;
    let future = put(&rig, serde_json::to_vec(&serde_json::json!({ "version": 99 })).expect("JSON")).await;
    let lost = BlobRef { blob: "0".repeat(64), ..whole.clone() };
    for (agent, blob, why) in [
        ("coder", cut, "damaged"),
        ("coder", future, "version 99"),
        ("coder", lost, "there is no blob"),
        ("scout", whole, "the state of coder, and scout can not go on from it"),
    ] {
        let run = go_on(&rig, agent, blob).await;
        let end = rig.end(run).await.expect("an end");
        let RunEvent::Failed(Failed { reason: FailReason::State, message, .. }) = &end else { panic!("{end:?}") };
        assert!(message.contains(why), "{message}");
    }
    assert_eq!(rig.rehearsal.requests(0).requests.len(), 2, "no model was called without the state");
}

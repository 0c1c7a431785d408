//! What people tell agents, through the real service: pause, resume, stop and kill, of one agent and of all, and calling a
//! run off, at every place where a run can be: requested, at a model call, at a running tool, waiting for children.

use kit::{clock, message::Outgoing, service::Check};
use nightcrew_tests::rig::{PATIENCE, Rig, Runner};
use schemas::{AgentName, Envelope, EventId, RunEvent, Subject, control::Control, subject::Target};
use serde_json::json;

use crate::stage::Stage;

/// What the room is told of a run that was ended.
const ENDED: &str = "Ended at once by ada. A test.";

/// The same of a run that had not begun.
const REFUSED: &str = "Ended at once by ada. The crew was stopped. A test.";

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_agent_takes_no_step_until_it_is_resumed() {
    let stage = Stage::start().await;
    let (model, tool) = (stage.at_model("coder").await, stage.at_tool("coder").await);
    stage.tell("coder", Control::Pause).await;
    let new = stage.rig.ask("coder", "Anything.").await.expect("a run");
    let other = stage.rig.ask("scout", "Anything.").await.expect("a run");
    stage.is_finished(other).await;
    stage.rig.rehearsal.open_gate("model").expect("a gate");
    stage.end_tool(tool);
    for run in [model, tool] {
        stage.paused(run).await;
        let kinds = stage.kinds(run).await;
        assert_eq!(kinds.last().map(String::as_str), Some("waiting"), "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| *kind == "model_called").count(), 1, "{kinds:?}");
    }
    assert_eq!(stage.kinds(model).await.iter().filter(|kind| *kind == "tool_called").count(), 0);
    assert_eq!(stage.kinds(new).await, ["requested"]);
    stage.tell("coder", Control::Resume).await;
    for run in [model, tool, new] {
        stage.is_finished(run).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_of_all_also_holds_who_waits_for_children() {
    let stage = Stage::start().await;
    let (parent, [scout, coder]) = stage.at_children(1).await;
    stage.tell("all", Control::Pause).await;
    stage.rig.rehearsal.open_gate("model").expect("a gate");
    stage.end_tool(coder);
    stage.paused(scout).await;
    stage.paused(coder).await;
    assert_eq!(stage.kinds(parent).await.last().map(String::as_str), Some("waiting"));
    // One agent may go on: the later word counts. Its end wakes its parent, which may not.
    stage.tell("scout", Control::Resume).await;
    let end = stage.end(scout, None).await;
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    stage.tell("all", Control::Resume).await;
    stage.is_finished(parent).await;
    let end = stage.end(coder, None).await;
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    let kinds = stage.kinds(parent).await;
    assert_eq!(kinds.iter().filter(|kind| *kind == "child_ended").count(), 2, "{kinds:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_agent_ends_its_runs_at_their_next_step_and_refuses_new_ones() {
    let stage = Stage::start().await;
    let (model, tool) = (stage.at_model("coder").await, stage.at_tool("coder").await);
    stage.tell("coder", Control::Stop).await;
    let new = stage.rig.ask("coder", "Anything.").await.expect("a run");
    stage.is_killed(new, Some(REFUSED)).await;
    // What is under way may end, and then the runs do.
    for (run, under_way) in [(model, "model_called"), (tool, "tool_called")] {
        assert_eq!(stage.kinds(run).await.last().map(String::as_str), Some(under_way));
    }
    stage.rig.rehearsal.open_gate("model").expect("a gate");
    stage.end_tool(tool);
    stage.is_killed(model, Some(ENDED)).await;
    stage.is_killed(tool, Some(ENDED)).await;
    assert!(stage.kinds(model).await.iter().any(|kind| kind == "model_replied"), "the answer is in the log");
    assert!(stage.kinds(tool).await.iter().any(|kind| kind == "tool_returned"), "the result is in the log");
    let other = stage.rig.ask("scout", "Anything.").await.expect("a run");
    stage.is_finished(other).await;
    stage.tell("coder", Control::Resume).await;
    let again = stage.rig.ask("coder", "Anything.").await.expect("a run");
    stage.is_finished(again).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_of_all_ends_a_tree_with_the_first_child_that_ends() {
    let stage = Stage::start().await;
    let (parent, [scout, coder]) = stage.at_children(1).await;
    stage.tell("all", Control::Stop).await;
    stage.end_tool(coder);
    stage.is_killed(coder, None).await;
    // The end of one child is the parent's next step, and nobody waits for the other child any more.
    stage.is_killed(parent, Some(ENDED)).await;
    let end = stage.end(scout, None).await;
    assert!(matches!(end, RunEvent::Cancelled(_)), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_all_ends_everything_at_once() {
    let stage = Stage::start().await;
    let (parent, children) = stage.at_children(1).await;
    stage.tell("all", Control::Kill).await;
    stage.is_killed(parent, Some(ENDED)).await;
    for child in children {
        stage.is_killed(child, None).await;
    }
    stage.no_tool_runs().await;
    stage.asked(0).await;
    let new = stage.rig.ask("scout", "Anything.").await.expect("a run");
    stage.is_killed(new, Some(REFUSED)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_one_agent_ends_its_runs_at_once_and_no_others() {
    let stage = Stage::start().await;
    let (model, tool) = (stage.at_model("coder").await, stage.at_tool("coder").await);
    let other = stage.rig.ask("scout", "The case model.").await.expect("a run");
    stage.asked(2).await;
    stage.tell("coder", Control::Kill).await;
    stage.is_killed(model, Some(ENDED)).await;
    stage.is_killed(tool, Some(ENDED)).await;
    stage.no_tool_runs().await;
    // From the run's end on nobody pays for its call.
    stage.asked(1).await;
    stage.rig.rehearsal.open_gate("model").expect("a gate");
    stage.is_finished(other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kill_of_an_agent_that_waits_ends_its_runs_and_their_children() {
    let stage = Stage::start().await;
    let (parent, children) = stage.at_children(1).await;
    stage.tell("lead", Control::Kill).await;
    stage.is_killed(parent, Some(ENDED)).await;
    for child in children {
        let end = stage.end(child, None).await;
        assert!(matches!(end, RunEvent::Cancelled(_)), "{end:?}");
    }
    stage.no_tool_runs().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_run_that_is_called_off_takes_its_children_with_it() {
    let stage = Stage::start().await;
    let (parent, children) = stage.at_children(1).await;
    stage.rig.cancel(parent).await.expect("a signal");
    let end = stage.end(parent, Some("Called off by ada. A test.")).await;
    assert!(matches!(end, RunEvent::Cancelled(_)), "{end:?}");
    for child in children {
        let end = stage.end(child, None).await;
        assert!(matches!(&end, RunEvent::Cancelled(off) if off.reason.contains(&parent.to_string())), "{end:?}");
    }
    stage.no_tool_runs().await;
    stage.asked(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_called_off_ends_at_its_model_call_and_at_its_tool() {
    let stage = Stage::start().await;
    for run in [stage.at_model("coder").await, stage.at_tool("coder").await] {
        stage.rig.cancel(run).await.expect("a signal");
        let end = stage.end(run, Some("Called off by ada. A test.")).await;
        assert!(matches!(end, RunEvent::Cancelled(_)), "{end:?}");
    }
    stage.no_tool_runs().await;
    stage.asked(0).await;
}

/// Waits until the check of a runner's controls is as wanted.
async fn is_told(runner: &Runner, wanted: impl Fn(&Check) -> bool) {
    let mut checks = runner.health().subscribe();
    let told = checks.wait_for(|checks| checks.get("controls").is_some_and(&wanted));
    tokio::time::timeout(PATIENCE, told).await.expect("health tells it in time").expect("checks");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_that_can_not_be_read_holds_whom_it_means_and_is_told_by_health() {
    let rig = Rig::start("{name: controls, rules: [{name: answers, reply: {text: done}}]}").await.expect("a crew");
    let runner = rig.runner("disk").await.expect("a runner");
    let coder = Target::Agent(AgentName::try_new("coder").expect("a name"));
    // Of a later version, and malformed.
    for control in [json!({ "kind": "quarantine", "by": "ada" }), json!({ "kind": "stop" })] {
        let id = EventId::new(clock::uuid7().to_string());
        let envelope = Envelope::new(id, "control", "test", clock::now());
        let control = Outgoing::json(Subject::Control(coder.clone()), envelope, &control).expect("a control");
        rig.client.publish(&control).await.expect("told");
        is_told(&runner, |check| matches!(check, Check::Warn(why) if why.contains("to coder"))).await;
        let held = rig.ask("coder", "Anything.").await.expect("a run");
        let other = rig.ask("scout", "Anything.").await.expect("a run");
        rig.end(other).await.expect("an end");
        assert_eq!(rig.events(held).await.expect("events").len(), 1, "it waits");
        rig.tell(coder.clone(), Control::Resume).await.expect("a control");
        is_told(&runner, |check| *check == Check::Green).await;
        let end = rig.end(held).await.expect("an end");
        assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    }
}

//! A runner that was cut off is let go while its successor holds the run; then the successor is killed, and the first one,
//! which is there again, takes the run a third time. So it must have noticed that it had lost the run, whatever it was
//! doing, and must not have acknowledged the wake that brings the run back.

use std::path::Path;

use anyhow::{Context as _, ensure};
use nightcrew_tests::{process::Process, rig::Rig};
use rehearsal::Outcome;
use schemas::{
    RunEvent, RunId,
    event::{ResumeCause, Resumed, ToolOutcome},
};

use crate::{
    RUNNER,
    cut::{Cut, Remote},
};

/// Where the first runner is cut off, and what it must have done wrong for the case to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It calls the model with the bearer of its epoch.
    Model,
    /// It runs a command that does not end by itself.
    Tool,
    /// It releases a run that waits for a child.
    Wait,
}

/// The answer at the gate is what the second and the third runner wait for.
const SCENARIO: &str = "
name: relay
rules:
  - name: answers-late
    when: {agent: coder, step: 1, last_user: model}
    gate: late
    reply: {text: done}
  - name: runs-on
    when: {agent: coder, step: 1, last_user: tool}
    reply:
      tools: [{name: shell, arguments: {command: 'echo x >> log.txt; exec sleep 600', timeout_s: 600}}]
  - name: answers-after-the-tool
    when: {agent: coder, step: 2}
    gate: late
    reply: {text: done}
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: handoff, arguments: {agent: coder, task: 'A child of the model case.'}}]
  - name: tells
    when: {agent: lead, step: 2}
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_model_call_of_an_old_epoch_is_refused_and_the_run_comes_back() {
    relay(Place::Model, Cut::Held).await.expect("the run goes from hand to hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_tool_of_an_old_epoch_is_ended_and_the_run_comes_back() {
    relay(Place::Tool, Cut::Held).await.expect("the run goes from hand to hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_tool_of_a_runner_that_reconnects_is_ended_and_the_run_comes_back() {
    relay(Place::Tool, Cut::Ended).await.expect("the run goes from hand to hand");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_of_an_old_epoch_is_refused_and_the_runs_come_back() {
    relay(Place::Wait, Cut::Held).await.expect("the run goes from hand to hand");
}

impl Place {
    const fn asks(self) -> (&'static str, &'static str) {
        match self {
            Self::Model => ("coder", "A case of the model."),
            Self::Tool => ("coder", "A case of a tool."),
            Self::Wait => ("lead", "A case of a wait."),
        }
    }

    const fn point(self) -> &'static str {
        match self {
            Self::Model => "coder BeforeModel 1 #1",
            Self::Tool => "coder BeforeTool shell #1",
            Self::Wait => "lead BeforeAppend waiting #1",
        }
    }
}

async fn relay(place: Place, cut: Cut) -> anyhow::Result<()> {
    let rig = Rig::start(SCENARIO).await?;
    let mut first = Remote::start(&rig, "first", place.point()).await?;
    let (agent, prompt) = place.asks();
    let root = rig.ask(agent, prompt).await?;
    first.cut_off(cut).await?;
    if place == Place::Tool {
        first.process.children(|children| children > 0).await.context("its tool runs")?;
    }

    let mut second = Process::start(Path::new(RUNNER), rig.spec("second")?).await?;
    let said = || format!("the second runner said:\n{}", second.log());
    resumed(&rig, root, &second).await.with_context(said)?;
    let run = if place == Place::Wait { child(&rig, root, &second).await.with_context(said)? } else { root };
    asked_at_gate(&rig).await?;

    if place == Place::Model {
        // Before it can hear of its successor.
        first.proxy.open();
        first.process.logged("a later epoch", 1).await.context("budget-proxy refuses its bearer")?;
    }
    first.let_go();
    first.process.logged("letting go", 1).await?;
    first.process.children(|children| children == 0).await.context("its tool ends")?;
    second.kill().await?;
    let said = || format!("the first runner said:\n{}", first.process.log());
    resumed(&rig, run, &first.process).await.with_context(said)?;

    rig.rehearsal.open_gate("late")?;
    let end = rig.end(root).await?;
    ensure!(matches!(end, RunEvent::Finished(_)), "the run ended otherwise: {end:?}");
    check(&rig, root, run, place).await
}

/// Waits until `runner` has taken the run from a holder that was lost.
async fn resumed(rig: &Rig, run: RunId, runner: &Process) -> anyhow::Result<()> {
    let lost = |resumed: &Resumed| resumed.runner == runner.spec().runner && resumed.cause == ResumeCause::HolderLost;
    rig.wait(run, |event| matches!(event, RunEvent::Resumed(resumed) if lost(resumed))).await.map(drop)
}

/// Waits until the run waits for its child, and the child is in the hands of `runner`; gives the child.
async fn child(rig: &Rig, root: RunId, runner: &Process) -> anyhow::Result<RunId> {
    rig.wait(root, |event| matches!(event, RunEvent::Waiting(_))).await?;
    let handed = rig.wait(root, |event| matches!(event, RunEvent::HandedOff(_))).await?;
    let RunEvent::HandedOff(handed) = handed else { unreachable!("it was matched") };
    let name = &runner.spec().runner;
    let taken = rig.wait(handed.child_run_id, |event| match event {
        RunEvent::Started(started) => started.runner == *name,
        RunEvent::Resumed(resumed) => resumed.runner == *name,
        _ => false,
    });
    taken.await?;
    Ok(handed.child_run_id)
}

/// Waits until the answer at the gate is asked for.
async fn asked_at_gate(rig: &Rig) -> anyhow::Result<()> {
    let is_there = || rig.rehearsal.requests(0).requests.iter().any(|request| request.outcome == Outcome::InProgress);
    rig.until("a request at the gate", || async { is_there().then_some(()) }).await
}

/// Nothing was done twice.
async fn check(rig: &Rig, root: RunId, run: RunId, place: Place) -> anyhow::Result<()> {
    let events = rig.events(root).await?;
    let count = |kind: &str| events.iter().filter(|event| event.kind() == kind).count();
    ensure!(count("message_sent") == 1 && count("finished") == 1, "the reply is one message: {events:?}");
    let asked = rig.rehearsal.requests(0).requests;
    let steps = if place == Place::Wait { 3 } else { usize::from(place == Place::Tool) + 1 };
    ensure!(asked.len() == steps, "the model was asked otherwise: {asked:?}");
    ensure!(asked.iter().all(|request| request.outcome == Outcome::Completed), "a request was cut: {asked:?}");
    if place == Place::Tool {
        let called = rig.events(run).await?;
        let called: Vec<_> = called.iter().filter(|event| matches!(event, RunEvent::ToolCalled(_))).collect();
        ensure!(called.len() == 1, "the command ran twice: {called:?}");
        let returned = rig.wait(run, |event| matches!(event, RunEvent::ToolReturned(_))).await?;
        let RunEvent::ToolReturned(returned) = returned else { unreachable!("it was matched") };
        ensure!(returned.outcome == ToolOutcome::Uncertain, "{returned:?}");
    }
    Ok(())
}

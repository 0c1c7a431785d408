//! Worktrees of runs that have ended are removed from the disk; those of runs that wait stay.

use std::{path::PathBuf, sync::Arc, time::Instant};

use agent_runner::{
    sandbox::{Bubblewrap, BubblewrapConfig},
    sweep::Sweeper,
    worktree::Worktrees,
};
use kit::{clock, identity::Service, journal::Journal, message::Outgoing};
use nightcrew_tests::rig::{PATIENCE, Rig};
use schemas::{
    AgentName, Envelope, EventId, RunEvent, RunId, Subject,
    control::Control,
    event::{WaitReason, Waiting},
    signal::ByWhom,
    subject::Target,
};

const SCENARIO: &str = "
name: worktrees
rules:
  - name: writes
    when: {agent: coder, step: 1}
    reply:
      tools: [{name: write, arguments: {path: new.txt, content: 'made here'}}]
  - name: reports
    when: {agent: coder, step: 2}
    reply: {text: done}
  - name: looks
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: hands-off
    when: {agent: lead, step: 2}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: look}}]
  - name: looks-again
    when: {agent: lead, step: 3}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: answers
    when: {agent: lead, step: 4, tool_result: {tool: read, content: hello}}
    reply: {text: seen}
  - name: finds
    when: {agent: scout}
    reply: {text: found}
";

async fn tell(rig: &Rig, agent: &str, control: Control) {
    let subject = Subject::Control(Target::Agent(AgentName::try_new(agent).expect("a name")));
    let id = EventId::new(clock::uuid7().to_string());
    let envelope = Envelope::new(id, control.kind(), "test", clock::now());
    rig.client.publish(&Outgoing::json(subject, envelope, &control).expect("a control")).await.expect("told");
}

fn by() -> ByWhom {
    ByWhom { by: "ada".to_owned(), reason: String::new() }
}

fn worktree(rig: &Rig, run: RunId) -> PathBuf {
    rig.folder().join("disk/runs").join(run.to_string())
}

/// Passes until the worktree of `run` is gone: its holder may have it for a moment after the end.
async fn swept(rig: &Rig, sweeper: &mut Sweeper, run: RunId) {
    let deadline = Instant::now() + PATIENCE;
    while worktree(rig, run).exists() {
        assert!(Instant::now() < deadline, "the worktree of {run} stays");
        sweeper.pass().await.expect("a pass");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_runs_leave_no_worktree_and_waiting_runs_keep_theirs() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    tell(&rig, "scout", Control::Pause(by())).await;
    let _runner = rig.runner("disk").await.expect("a runner");
    let waits = rig.ask("lead", "Look.").await.expect("a run");
    let ends = rig.ask("coder", "Make a file.").await.expect("a run");
    rig.end(ends).await.expect("an end");
    let for_child = |event: &RunEvent| matches!(event, RunEvent::Waiting(Waiting { reason: WaitReason::Child, .. }));
    rig.wait(waits, for_child).await.expect("it waits");

    let disk = rig.folder().join("disk");
    let sandbox = Bubblewrap::new(BubblewrapConfig::new(rig.folder().join("sandbox"))).expect("a sandbox");
    let journal = Journal::new(&rig.bus.bus(Service::AgentRunner).await);
    let mut sweeper = Sweeper::new(Worktrees::new(&disk, Arc::new(sandbox)), journal);
    // Nobody knows this run: it may be another project's.
    let foreign = RunId::from_uuid(uuid::Uuid::from_u128(1));
    std::fs::create_dir_all(worktree(&rig, foreign).join("0")).expect("a folder");
    swept(&rig, &mut sweeper, ends).await;
    assert!(worktree(&rig, waits).exists(), "a run that waits keeps its worktree");
    assert!(worktree(&rig, foreign).exists(), "what is not in the log is left alone");

    tell(&rig, "scout", Control::Resume(by())).await;
    let end = rig.end(waits).await.expect("an end");
    assert!(matches!(&end, RunEvent::Finished(finished) if finished.answer.preview() == "seen"), "{end:?}");
    let handed = rig.wait(waits, |event| matches!(event, RunEvent::HandedOff(_))).await.expect("a handoff");
    let RunEvent::HandedOff(handed) = handed else { unreachable!("it was matched") };
    assert!(!worktree(&rig, handed.child_run_id).exists(), "a run that needs no files has no worktree");
    swept(&rig, &mut sweeper, waits).await;
}

//! A crew whose runs can be brought to any place where a run can be, and kept there: at a model call, at a running tool,
//! waiting for children.

use std::path::{Path, PathBuf};

use nightcrew_tests::{
    process::Process,
    rig::{PATIENCE, Rig},
};
use rehearsal::Outcome;
use schemas::{AgentName, RunEvent, RunId, control::Control, event::WaitReason, signal::ByWhom, subject::Target};

use crate::RUNNER;

/// Each of its prompts leads to a place where a run can be found.
const SCENARIO: &str = "
name: stage
rules:
  - name: asks
    when: {last_user: 'case model', step: 1}
    gate: model
    reply:
      text: I look.
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: acts
    when: {last_user: 'case tool', step: 1}
    reply:
      tools: [{name: shell, arguments: {command: 'echo x >> acted; until [ -e go ]; do sleep 0.02; done; cat acted', timeout_s: 600}}]
  - name: hands-off
    when: {last_user: 'case child', step: 1}
    reply:
      tools:
        - {name: handoff, arguments: {agent: scout, task: 'The case model, below.'}}
        - {name: handoff, arguments: {agent: coder, task: 'The case tool, below.'}}
  - name: answers
    reply: {text: done}
";

/// A crew with a runner in a process of its own, whose tools can be counted.
pub(crate) struct Stage {
    pub(crate) rig: Rig,
    pub(crate) runner: Process,
    disk: PathBuf,
}

impl Stage {
    pub(crate) async fn start() -> Self {
        let rig = Rig::start(SCENARIO).await.expect("a crew");
        let spec = rig.spec("disk").expect("a spec");
        let disk = spec.state_dir.clone();
        let runner = Process::start(Path::new(RUNNER), spec).await.expect("a runner");
        Self { rig, runner, disk }
    }

    pub(crate) async fn tell(&self, whom: &str, control: fn(ByWhom) -> Control) {
        let target = if whom == "all" { Target::All } else { Target::Agent(AgentName::try_new(whom).expect("a name")) };
        self.rig.tell(target, control).await.expect("a control");
    }

    /// A run that stands at its model call.
    pub(crate) async fn at_model(&self, agent: &str) -> RunId {
        let run = self.rig.ask(agent, "The case model.").await.expect("a run");
        self.asked(1).await;
        run
    }

    /// Waits until so many answers wait at the gate.
    pub(crate) async fn asked(&self, wanted: usize) {
        let waiting = || {
            let seen = self.rig.rehearsal.requests(0).requests;
            seen.iter().filter(|request| request.outcome == Outcome::InProgress).count()
        };
        self.until("requests at the gate", || waiting() == wanted).await;
    }

    /// A run whose tool runs.
    pub(crate) async fn at_tool(&self, agent: &str) -> RunId {
        let run = self.rig.ask(agent, "The case tool.").await.expect("a run");
        self.tool_runs(run).await;
        run
    }

    async fn tool_runs(&self, run: RunId) {
        let marker = self.tree(run).join("acted");
        self.until("a running tool", || marker.exists()).await;
    }

    /// Lets the tool of a run end.
    pub(crate) fn end_tool(&self, run: RunId) {
        std::fs::write(self.tree(run).join("go"), "").expect("the worktree can be written");
    }

    fn tree(&self, run: RunId) -> PathBuf {
        self.disk.join("runs").join(run.to_string()).join("0/tree")
    }

    /// A run that waits for two children, one at its model call and one with a running tool. With it `at_gate` answers
    /// wait at the gate.
    pub(crate) async fn at_children(&self, at_gate: usize) -> (RunId, [RunId; 2]) {
        let run = self.rig.ask("lead", "The case child.").await.expect("a run");
        self.rig.wait(run, |event| matches!(event, RunEvent::Waiting(_))).await.expect("it waits");
        let events = self.rig.events(run).await.expect("events");
        let child = |agent: &str| {
            let handed = events.iter().find_map(|event| match event {
                RunEvent::HandedOff(handed) if handed.agent.as_str() == agent => Some(handed.child_run_id),
                _ => None,
            });
            handed.expect("a child")
        };
        let children = [child("scout"), child("coder")];
        self.asked(at_gate).await;
        self.tool_runs(children[1]).await;
        (run, children)
    }

    pub(crate) async fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let holds = || async { holds().then_some(()) };
        self.rig.until(what, holds).await.expect("in time");
    }

    pub(crate) async fn kinds(&self, run: RunId) -> Vec<String> {
        self.rig.events(run).await.expect("events").iter().map(|event| event.kind().to_owned()).collect()
    }

    /// Waits until a run waits for the end of a pause.
    pub(crate) async fn paused(&self, run: RunId) {
        let paused = |event: &RunEvent| matches!(event, RunEvent::Waiting(w) if w.reason == WaitReason::Pause);
        self.rig.wait(run, paused).await.expect("it is paused");
    }

    /// The run's end, which is said once in its room if it has one.
    pub(crate) async fn end(&self, run: RunId, says: Option<&str>) -> RunEvent {
        let end = self.rig.end(run).await.expect("an end");
        let events = self.rig.events(run).await.expect("events");
        let said: Vec<&str> = events
            .iter()
            .filter_map(|event| match event {
                RunEvent::MessageSent(sent) => Some(sent.text.preview()),
                _ => None,
            })
            .collect();
        assert_eq!(said, says.into_iter().collect::<Vec<_>>(), "what the room is told of {end:?}");
        end
    }

    pub(crate) async fn is_finished(&self, run: RunId) {
        let end = self.end(run, Some("done")).await;
        assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    }

    pub(crate) async fn is_killed(&self, run: RunId, says: Option<&str>) {
        let end = self.end(run, says).await;
        assert!(matches!(&end, RunEvent::Killed(killed) if killed.by == "ada"), "{end:?}");
    }

    /// Every command of the runner is gone.
    pub(crate) async fn no_tool_runs(&self) {
        let gone = self.runner.children(|children| children == 0);
        tokio::time::timeout(PATIENCE, gone).await.expect("in time").expect("the tools are ended");
    }
}

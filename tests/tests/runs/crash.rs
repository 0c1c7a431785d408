//! Kill at every line: a run with model calls, an idempotent and a non-idempotent tool, a commit, a handoff and a reply,
//! whose runner is ended by SIGKILL at each journal boundary and in each gap between an effect and its journal. Another
//! runner goes on, on the same disk and on an empty one.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex},
};

use anyhow::{Context as _, ensure};
use nightcrew_tests::{
    process::{Process, Spec},
    rig::Rig,
};
use rehearsal::Outcome;
use schemas::{
    RunEvent, RunId,
    call::{CallOutcome, ModelCall},
    event::{Finished, ToolOutcome},
};

/// The run's model, by steps and never by what tools returned: a call that was lost changes nothing of what is said.
const SCENARIO: &str = "
name: crash
rules:
  - name: lead-hands-off
    when: {agent: lead, step: 1, last_user: 'case (?<n>[0-9]+)'}
    reply:
      text: I look, and hand it on.
      tools:
        - {name: read, arguments: {path: hello.txt}}
        - {name: handoff, arguments: {agent: coder, task: 'Write the log of case {{capture.n}}.'}}
  - name: lead-answers
    when: {agent: lead, step: 2, any_message: 'case (?<n>[0-9]+)'}
    reply: {text: 'Case {{capture.n}} is written.'}
  - name: coder-reads
    when: {agent: coder, step: 1}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: coder-writes
    when: {agent: coder, step: 2}
    reply:
      tools: [{name: shell, arguments: {command: 'echo x >> log.txt'}}]
  - name: coder-marks
    when: {agent: coder, step: 3}
    reply:
      tools: [{name: write, arguments: {path: mark.txt, content: 'marked'}}]
  - name: coder-commits
    when: {agent: coder, step: 4}
    reply:
      tools: [{name: git, arguments: {operation: commit, message: Write the log}}]
  - name: coder-reports
    when: {agent: coder, step: 5}
    reply: {text: done}
";

/// Model calls of the whole tree.
const CALLS: usize = 7;

/// Crews that play cases side by side. A case mostly waits: 3 s for the lost wake to come back, 1 s for its holder's
/// silence.
const LANES: usize = 8;

const RUNNER: &str = env!("CARGO_BIN_EXE_test-runner");

/// The disk of the runner that goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Disk {
    Same,
    Empty,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_at_any_line_is_followed_by_one_that_goes_on() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let points = clean(&rig).await.expect("a run without a crash");
    assert!(points.len() > 50, "the run passes all its gaps: {points:#?}");
    let cases: Vec<(String, Disk)> =
        [Disk::Same, Disk::Empty].iter().flat_map(|disk| points.iter().map(|point| (point.clone(), *disk))).collect();
    let total = cases.len();
    let queue = Arc::new(Mutex::new(cases.into_iter().enumerate()));
    let mut lanes = tokio::task::JoinSet::new();
    let mut rigs = vec![rig];
    for _ in 1..LANES {
        rigs.push(Rig::start(SCENARIO).await.expect("a crew"));
    }
    for rig in rigs {
        let queue = Arc::clone(&queue);
        lanes.spawn(async move {
            let mut failures = Vec::new();
            loop {
                let next = queue.lock().expect("no lane panics").next();
                let Some((n, (point, disk))) = next else { return failures };
                if let Err(error) = case(&rig, n + 1, &point, disk).await {
                    failures.push(format!("{point} ({disk:?} disk): {error:#}"));
                }
            }
        });
    }
    let failures = lanes.join_all().await.concat();
    assert!(failures.is_empty(), "{} of {total} cases failed:\n{}", failures.len(), failures.join("\n"));
}

/// A run that nothing happens to. Gives the points that it passes.
async fn clean(rig: &Rig) -> anyhow::Result<Vec<String>> {
    let spec = Spec { points: Some(rig.folder().join("points-0")), ..rig.spec("disk-0")? };
    let runner = Process::start(Path::new(RUNNER), spec).await?;
    let run = rig.ask("lead", "Please do case 0.").await?;
    rig.end(run).await?;
    check(rig, run, 0, 0, false).await?;
    runner.points()
}

/// A run whose runner ends itself at `point`; another one goes on.
async fn case(rig: &Rig, n: usize, point: &str, disk: Disk) -> anyhow::Result<()> {
    let seen = rig.rehearsal.requests(0).seen;
    let first = Spec {
        points: Some(rig.folder().join(format!("points-{n}"))),
        crash_at: Some(point.to_owned()),
        ..rig.spec(&format!("disk-{n}"))?
    };
    let mut first = Process::start(Path::new(RUNNER), first).await?;
    let run = rig.ask("lead", &format!("Please do case {n}.")).await?;
    first.exited().await.context("the point is reached")?;
    let disk = match disk {
        Disk::Same => format!("disk-{n}"),
        Disk::Empty => format!("disk-{n}-other"),
    };
    let mut second = Process::start(Path::new(RUNNER), rig.spec(&disk)?).await?;
    let ended = rig.end(run).await;
    ended.with_context(|| format!("the second runner said:\n{}", second.log()))?;
    second.kill().await?;
    check(rig, run, n, seen, true).await
}

/// How the run ended is the same in every case.
async fn check(rig: &Rig, run: RunId, n: usize, seen: u64, crashed: bool) -> anyhow::Result<()> {
    let events = rig.events(run).await?;
    let Some(RunEvent::Finished(Finished { answer, totals })) = events.last() else {
        anyhow::bail!("the run ended otherwise: {:?}", events.last());
    };
    ensure!(answer.preview() == format!("Case {n} is written."), "another answer: {answer:?}");
    ensure!(totals.model_calls as usize == CALLS, "the run counts {} model calls", totals.model_calls);
    ensure!(count(&events, "message_sent") == 1, "the reply is one message");
    let children: Vec<RunId> = events
        .iter()
        .filter_map(|event| if let RunEvent::HandedOff(handed) = event { Some(handed.child_run_id) } else { None })
        .collect();
    ensure!(children.len() == 1, "one child, not {children:?}");
    ensure!(count(&events, "child_ended") == 1, "a child ends once");
    let child = rig.events(children[0]).await?;
    ensure!(matches!(child.last(), Some(RunEvent::Finished(_))), "the child ended otherwise: {:?}", child.last());
    let epochs = count(&events, "resumed") + count(&child, "resumed");
    // One resume is the parent's, after its child.
    ensure!(epochs <= if crashed { 3 } else { 1 }, "the runs were taken {epochs} times");
    paid_once(rig, run, children[0], seen).await?;
    acted_once(rig, &child, children[0])
}

fn count(events: &[RunEvent], kind: &str) -> usize {
    events.iter().filter(|event| event.kind() == kind).count()
}

/// Each call was answered once by the model, and is in the log once.
async fn paid_once(rig: &Rig, run: RunId, child: RunId, seen: u64) -> anyhow::Result<()> {
    let mut answered = BTreeMap::new();
    for request in rig.rehearsal.requests(seen).requests {
        ensure!(request.outcome == Outcome::Completed, "a request was not answered: {request:?}");
        *answered.entry((request.agent.clone(), request.step)).or_insert(0) += 1;
    }
    ensure!(answered.len() == CALLS, "the model was asked {answered:?}");
    ensure!(answered.values().all(|times| *times == 1), "the model was paid twice: {answered:?}");
    let mut keys = BTreeMap::new();
    for run in [run, child] {
        for call in rig.journal.calls(run, 1).await? {
            let call: ModelCall = call.decode()?;
            ensure!(
                matches!(call.outcome, CallOutcome::Completed | CallOutcome::CallerGone),
                "a call ended otherwise: {call:?}"
            );
            *keys.entry(call.idempotency_key).or_insert(0) += 1;
        }
    }
    ensure!(keys.len() == CALLS && keys.values().all(|times| *times == 1), "the log has the calls {keys:?}");
    Ok(())
}

/// The command ran at most once, and what is on the branch is what the journal says.
fn acted_once(rig: &Rig, child: &[RunEvent], run: RunId) -> anyhow::Result<()> {
    let mut shell = None;
    for event in child {
        match event {
            RunEvent::ToolCalled(call) if call.tool == "shell" => {
                ensure!(shell.is_none(), "the command was journaled twice");
                shell = Some((call.call_id.clone(), None));
            }
            RunEvent::ToolReturned(returned) => {
                if let Some((id, outcome)) = &mut shell
                    && *id == returned.call_id
                {
                    *outcome = Some(returned.outcome);
                }
            }
            _ => {}
        }
    }
    let outcome = shell.and_then(|(_, outcome)| outcome).context("the command returned")?;
    let committed = child
        .iter()
        .filter_map(|event| if let RunEvent::CodeCommitted(committed) = event { Some(&committed.work) } else { None })
        .next_back()
        .context("a commit is in the journal")?;
    ensure!(committed.branch == format!("nightcrew/{run}"), "another branch: {}", committed.branch);
    let head = git(rig, &["rev-parse", &committed.branch])?.trim().to_owned();
    ensure!(head == committed.commit, "the branch is at {head}, the journal says {}", committed.commit);
    ensure!(git(rig, &["rev-list", "--count", &format!("main..{head}")])?.trim() == "1", "one commit");
    ensure!(git(rig, &["show", &format!("{head}:mark.txt")])? == "marked", "what an idempotent tool wrote is there");
    let log = git(rig, &["show", &format!("{head}:log.txt")]).unwrap_or_default();
    match outcome {
        ToolOutcome::Ok => ensure!(log == "x\n", "the command ran once, and its file holds {log:?}"),
        ToolOutcome::Uncertain => ensure!(log.is_empty() || log == "x\n", "the command ran at most once: {log:?}"),
        other => anyhow::bail!("the command came to {other:?}"),
    }
    Ok(())
}

fn git(rig: &Rig, args: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("git").args(args).current_dir(rig.repository()).output()?;
    ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

//! The run that the crash tests play, and what must be true of it however often its runner was lost.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use chat_bridge::adapters::terminal::Session;
use futures::FutureExt as _;
use kit::{clock, journal::STREAM};
use nightcrew_tests::{
    process::Process,
    rig::{Nats, PATIENCE, Rig},
};
use rehearsal::Outcome;
use schemas::{
    RunEvent, RunId, Signal,
    call::{CallOutcome, ModelCall},
    event::{Finished, Requested, ToolOutcome},
    subject::filter,
};

/// The run's model, by steps and never by what tools returned: a call that was lost changes nothing of what is said.
pub(crate) const SCENARIO: &str = "
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

/// A run that was asked for, and its child.
pub(crate) struct Tree {
    /// The run.
    pub(crate) root: RunId,
    n: usize,
    seen: u64,
    /// Where a person waits for the answer.
    session: Session,
    /// What the person has heard.
    heard: Vec<String>,
}

impl Tree {
    /// Asks for the run of case `n`, which answers through a real chat-bridge. No other run may be asked for on this rig
    /// until it is checked.
    pub(crate) async fn ask<B: Nats>(rig: &Rig<B>, n: usize) -> anyhow::Result<Self> {
        let seen = rig.rehearsal.requests(u64::MAX).seen;
        let session = Session::open(&rig.client, clock::uuid7()).await?;
        let answer_here = |request: &mut Requested| {
            if let Some(reply_to) = &mut request.reply_to {
                session.room().clone_into(&mut reply_to.room);
            }
        };
        let root = rig.ask_with("lead", &format!("Please do case {n}."), answer_here).await?;
        Ok(Self { root, n, seen, session, heard: Vec::new() })
    }

    /// The sequences of the journals' messages.
    pub(crate) async fn messages<B: Nats>(&self, rig: &Rig<B>) -> anyhow::Result<Vec<u64>> {
        let mut sequences = Vec::new();
        for run in runs(rig, self.root).await? {
            sequences.extend(rig.messages(run).await?.iter().map(|message| message.sequence));
        }
        Ok(sequences)
    }

    /// How many of its runs are in the hands of a runner that stands at `point`.
    pub(crate) async fn held_at<B: Nats>(&self, rig: &Rig<B>, point: &str) -> anyhow::Result<usize> {
        let mut held = usize::from(point.contains("BeforeAppend started") || point.contains("BeforeAppend resumed"));
        for run in runs(rig, self.root).await? {
            let open = rig.messages(run).await?.iter().fold(false, |open, message| {
                (open || message.opens_epoch()) && !message.is_end() && !message.has("waiting")
            });
            held += usize::from(open);
        }
        Ok(held)
    }

    /// How the run ended is the same in every case; its runs were taken `extra` times more than needed at most.
    pub(crate) async fn check<B: Nats>(&mut self, rig: &Rig<B>, extra: usize) -> anyhow::Result<()> {
        let events = rig.events(self.root).await?;
        let Some(RunEvent::Finished(Finished { answer, totals })) = events.last() else {
            anyhow::bail!("the run ended otherwise: {:?}", events.last());
        };
        ensure!(answer.preview() == format!("Case {} is written.", self.n), "another answer: {answer:?}");
        ensure!(totals.model_calls as usize == CALLS, "the run counts {} model calls", totals.model_calls);
        ensure!(count(&events, "message_sent") == 1, "the reply is one message");
        self.heard_once(rig).await?;
        let runs = runs(rig, self.root).await?;
        let [_, child] = runs[..] else { anyhow::bail!("one child, not {runs:?}") };
        ensure!(count(&events, "child_ended") == 1, "a child ends once");
        let events_of_child = rig.events(child).await?;
        let end = events_of_child.last();
        ensure!(matches!(end, Some(RunEvent::Finished(_))), "the child ended otherwise: {end:?}");
        let resumed = count(&events, "resumed") + count(&events_of_child, "resumed");
        // One resume is the parent's, after its child.
        ensure!(resumed <= 1 + extra, "the runs were resumed {resumed} times");
        self.paid_once(rig, &runs).await?;
        acted_once(rig, &events_of_child, child)
    }

    /// A runner that had lost the run says so once it can go on, and changes nothing of what stood in the journals `before`.
    pub(crate) async fn is_let_go_by<B: Nats>(
        &mut self,
        rig: &Rig<B>,
        runner: &Process,
        held: usize,
        before: Vec<u64>,
    ) -> anyhow::Result<()> {
        runner.logged("letting go", held).await?;
        ensure!(self.messages(rig).await? == before, "a runner that had lost the run wrote to its journal");
        self.check(rig, 2).await.context("after a runner that had lost the run went on")
    }

    /// The person heard the answer, once, and the log says so.
    async fn heard_once<B: Nats>(&mut self, rig: &Rig<B>) -> anyhow::Result<()> {
        if self.heard.is_empty() {
            let said = tokio::time::timeout(PATIENCE, self.session.next()).await.context("the person hears nothing")?;
            self.heard.push(said.context("the session is over")?.text);
        }
        let delivered = rig.until("the answer is delivered", || async {
            let delivered = delivered(rig, self.root).await.ok()?;
            (!delivered.is_empty()).then_some(delivered)
        });
        let delivered = delivered.await?;
        while let Some(said) = self.session.next().now_or_never() {
            self.heard.push(said.context("the session is over")?.text);
        }
        let answer = format!("Case {} is written.", self.n);
        ensure!(self.heard.len() == 1 && self.heard[0].starts_with(&answer), "the person heard {:?}", self.heard);
        ensure!(delivered.len() == 1 && delivered[0] != "unattended", "the log has it delivered as {delivered:?}");
        Ok(())
    }

    /// Each call was answered once by the model, and is in the log once.
    async fn paid_once<B: Nats>(&self, rig: &Rig<B>, runs: &[RunId]) -> anyhow::Result<()> {
        let mut answered = BTreeMap::new();
        for request in rig.rehearsal.requests(self.seen).requests {
            ensure!(request.outcome == Outcome::Completed, "a request was not answered: {request:?}");
            *answered.entry((request.agent.clone(), request.step)).or_insert(0) += 1;
        }
        ensure!(answered.len() == CALLS, "the model was asked {answered:?}");
        ensure!(answered.values().all(|times| *times == 1), "the model was paid twice: {answered:?}");
        let mut keys = BTreeMap::new();
        for run in runs {
            for call in rig.journal.calls(*run, 1).await? {
                let call: ModelCall = call.decode()?;
                let whole = matches!(call.outcome, CallOutcome::Completed | CallOutcome::CallerGone);
                ensure!(whole, "a call ended otherwise: {call:?}");
                *keys.entry(call.idempotency_key).or_insert(0) += 1;
            }
        }
        ensure!(keys.len() == CALLS && keys.values().all(|times| *times == 1), "the log has the calls {keys:?}");
        Ok(())
    }
}

/// The run and its children.
pub(crate) async fn runs<B: Nats>(rig: &Rig<B>, root: RunId) -> anyhow::Result<Vec<RunId>> {
    let mut runs = vec![root];
    for event in rig.events(root).await? {
        if let RunEvent::HandedOff(handed) = event {
            runs.push(handed.child_run_id);
        }
    }
    Ok(runs)
}

/// As what the channel knows the messages of a run that were delivered.
async fn delivered<B: Nats>(rig: &Rig<B>, run: RunId) -> anyhow::Result<Vec<String>> {
    let mut delivered = Vec::new();
    for message in rig.client.scan_all(STREAM, &filter::signals_of(run), 1).await? {
        if let Signal::Delivered(told) = message.stored()?.decode()? {
            delivered.push(told.external_id);
        }
    }
    Ok(delivered)
}

fn count(events: &[RunEvent], kind: &str) -> usize {
    events.iter().filter(|event| event.kind() == kind).count()
}

/// The command ran at most once, and what is on the branch is what the journal says.
fn acted_once<B: Nats>(rig: &Rig<B>, child: &[RunEvent], run: RunId) -> anyhow::Result<()> {
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

pub(crate) fn git<B: Nats>(rig: &Rig<B>, args: &[&str]) -> anyhow::Result<String> {
    let output = std::process::Command::new("git").args(args).current_dir(rig.repository()).output()?;
    ensure!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

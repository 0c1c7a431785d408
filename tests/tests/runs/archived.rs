//! A runner that was stopped sleeps through the end of its run and through its archive, of which one message is left. When
//! it goes on, the branch stays what its successor made of it.

use anyhow::{Context as _, ensure};
use jiff::SignedDuration;
use kit::{clock, identity::Service};
use nightcrew_tests::{process::Process, rig::Rig};
use run_correlator::archive::Archiver;
use schemas::{RunEvent, RunId};

use crate::{RUNNER, cut::Remote, tree};

/// The first runner stops itself here: its commit is made, and it is not seen yet how the branch stands at its source.
const POINT: &str = "coder AfterTool git #1";

/// The second commit is the successor's alone.
const SCENARIO: &str = "
name: archived
rules:
  - name: writes
    when: {step: 1}
    reply:
      tools: [{name: write, arguments: {path: a.txt, content: 'a'}}]
  - name: commits
    when: {step: 2}
    reply:
      tools: [{name: git, arguments: {operation: commit, message: Write a}}]
  - name: writes-more
    when: {step: 3}
    reply:
      tools: [{name: write, arguments: {path: b.txt, content: 'b'}}]
  - name: commits-more
    when: {step: 4}
    reply:
      tools: [{name: git, arguments: {operation: commit, message: Write b}}]
  - name: reports
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_slept_through_an_archive_leaves_the_branch_alone() {
    archived().await.expect("the branch is the successor's");
}

async fn archived() -> anyhow::Result<()> {
    let rig = Rig::start(SCENARIO).await?;
    let mut first = Remote::start(&rig, "first", POINT).await?;
    let run = rig.ask_with("coder", "Write a and b.", |request| request.reply_to = None).await?;
    first.process.frozen().await.context("the point is reached")?;
    // What others tell it while it is stopped does not reach it.
    first.bus.cut();
    let second = Process::start(std::path::Path::new(RUNNER), rig.spec("second")?).await?;
    let end = rig.end(run).await.with_context(|| format!("the second runner said:\n{}", second.log()))?;
    ensure!(matches!(end, RunEvent::Finished(_)), "the run ended otherwise: {end:?}");
    let published = branch(&rig, run)?;
    archive(&rig, run).await?;

    first.bus.open();
    first.process.thaw()?;
    first.process.logged("letting go", 1).await?;
    first.process.children(|children| children == 0).await.context("its tool ends")?;
    ensure!(branch(&rig, run)? == published, "the branch was put back to {}", branch(&rig, run)?);
    let left = rig.messages(run).await?;
    ensure!(left.len() == 1 && left[0].has("archived"), "the run's journal went on: {left:?}");
    Ok(())
}

async fn archive(rig: &Rig, run: RunId) -> anyhow::Result<()> {
    let first = rig.messages(run).await?[0].sequence;
    let archiver = Archiver::new(&rig.bus.bus(Service::RunCorrelator).await);
    let archived = archiver.archive(run, first, SignedDuration::ZERO, clock::now()).await?;
    archived.map_err(|not_now| anyhow::anyhow!("the run stays in the log: {not_now:?}"))
}

fn branch(rig: &Rig, run: RunId) -> anyhow::Result<String> {
    tree::git(rig, &["rev-parse", &format!("nightcrew/{run}")])
}

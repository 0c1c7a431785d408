//! Kill at every line: a run with model calls, an idempotent and a non-idempotent tool, a commit, a handoff and a reply,
//! whose runner is lost at each journal boundary and in each gap between an effect and its journal: ended by SIGKILL, or
//! stopped by SIGSTOP and let go when it is too late. Another runner goes on, on the same disk or on an empty one.

use std::path::Path;

use agent_runner::probe::Place;
use anyhow::Context as _;
use nightcrew_tests::{
    process::{Process, Spec},
    rig::Rig,
};

use crate::{
    RUNNER, lanes,
    tree::{self, Tree},
};

/// Crews that play cases side by side.
const LANES: usize = 8;

/// How the first runner is lost, and what the second one finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// It is killed; the second one works on its disk.
    Killed,
    /// It is killed; the second one has an empty disk.
    KilledWithDisk,
    /// It is stopped, and goes on once the second one is done.
    Stopped,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_at_any_line_is_followed_by_one_that_goes_on() {
    at_every_point(Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_with_its_disk_is_followed_by_one_that_goes_on() {
    at_every_point(Loss::KilledWithDisk).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_stopped_at_any_line_can_do_nothing_more() {
    at_every_point(Loss::Stopped).await;
}

async fn at_every_point(loss: Loss) {
    let rig = crew().await;
    let points = clean(&rig).await.expect("a run without a loss");
    assert!(points.len() > 50, "the run passes all its gaps: {points:#?}");
    for place in Place::ALL {
        let place = format!("{place:?}");
        assert!(points.iter().any(|point| point.contains(&place)), "no point is {place}: {points:#?}");
    }
    let mut crews = vec![rig];
    for _ in 1..LANES {
        crews.push(crew().await);
    }
    lanes::play(&crews, &points, async |crew, n, point| case(crew, n, point, loss).await).await;
}

async fn crew() -> Rig {
    let rig = Rig::start(tree::SCENARIO).await.expect("a crew");
    rig.start_bridge().await.expect("a bridge");
    rig
}

/// A run that nothing happens to. Gives the points that it passes.
async fn clean(rig: &Rig) -> anyhow::Result<Vec<String>> {
    let spec = Spec { points: Some(rig.folder().join("points-0")), ..rig.spec("disk-0")? };
    let runner = Process::start(Path::new(RUNNER), spec).await?;
    let mut tree = Tree::ask(rig, 0).await?;
    rig.end(tree.root).await?;
    tree.check(rig, 0).await?;
    runner.points()
}

/// A run whose runner is lost at `point`; another one goes on.
async fn case(rig: &Rig, n: usize, point: &str, loss: Loss) -> anyhow::Result<()> {
    let at = Some(point.to_owned());
    let (crash_at, freeze_at) = if loss == Loss::Stopped { (None, at) } else { (at, None) };
    let points = Some(rig.folder().join(format!("points-{n}")));
    let first = Spec { points, crash_at, freeze_at, ..rig.spec(&format!("disk-{n}"))? };
    let mut first = Process::start(Path::new(RUNNER), first).await?;
    let mut tree = Tree::ask(rig, n).await?;
    let mut held = 0;
    if loss == Loss::Stopped {
        first.frozen().await?;
        held = tree.held_at(rig, point).await?;
    } else {
        first.killed_at(point).await?;
    }
    let disk = if loss == Loss::KilledWithDisk { format!("disk-{n}-other") } else { format!("disk-{n}") };
    let mut second = Process::start(Path::new(RUNNER), rig.spec(&disk)?).await?;
    let ended = rig.end(tree.root).await;
    ended.with_context(|| format!("the second runner said:\n{}", second.log()))?;
    second.kill().await?;
    tree.check(rig, 2).await?;
    if loss == Loss::Stopped {
        let before = tree.messages(rig).await?;
        first.thaw()?;
        tree.is_let_go_by(rig, &first, held, before).await?;
    }
    Ok(())
}

//! Kill and two holders once more, on a cluster of three nats-servers with three replicas whose stream's leader is killed at
//! the same moment.
//!
//! Not at every point, as in [`crate::crash`]: what a runner may lose is the same there. Here the points are those at which
//! the cluster may lose something: an append whose ack is on its way, an atomic batch over several runs, a reply that is
//! kept in a bucket, a bundle in the object store, the end.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use kit::{for_test::TestCluster, journal::STREAM};
use nightcrew_tests::{
    process::{Process, Spec},
    rig::{Rig, TEAM},
};

use crate::{
    RUNNER,
    tree::{self, Tree},
};

/// How long an election, or the way back into the cluster, may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at the cluster.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where a runner is lost with the leader.
const POINTS: [&str; 5] = [
    // The answer of the model is kept in a bucket, and nowhere else.
    "coder AfterModel 2 #1",
    // A tool that must not run twice has acted.
    "coder AfterTool shell #1",
    // The worktree is in the object store, and the log does not name it.
    "coder AfterSnapshot write #1",
    // A batch is about to be written: a handoff with the first message of the child.
    "lead BeforeAppend model_replied,tool_called,tool_called,handed_off #1",
    // The reply and the end of the run are about to be written.
    "lead BeforeAppend model_replied,message_sent,finished #1",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_is_killed_with_the_leader_is_followed_by_one_that_goes_on() {
    at_every_point(Loss::Killed).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_stopped_while_the_leader_was_killed_can_do_nothing_more() {
    at_every_point(Loss::Stopped).await;
}

/// How the first runner is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    Killed,
    /// It goes on once the second one is done and the cluster is whole.
    Stopped,
}

async fn at_every_point(loss: Loss) {
    let mut rig = Rig::start_on(TestCluster::with_streams().await, tree::SCENARIO, TEAM).await.expect("a crew");
    rig.start_bridge().await.expect("a bridge");
    let mut failures = Vec::new();
    for (n, point) in POINTS.into_iter().enumerate() {
        if let Err(error) = case(&mut rig, n, point, loss).await {
            failures.push(format!("{point}: {error:#}"));
        }
    }
    assert!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), POINTS.len(), failures.join("\n"));
}

async fn case(rig: &mut Rig<TestCluster>, n: usize, point: &str, loss: Loss) -> anyhow::Result<()> {
    let at = Some(point.to_owned());
    let (crash_at, freeze_at) = if loss == Loss::Killed { (at, None) } else { (None, at) };
    let points = Some(rig.folder().join(format!("points-{n}")));
    let first = Spec { points, crash_at, freeze_at, ..rig.spec(&format!("disk-{n}"))? };
    let mut first = Process::start(Path::new(RUNNER), first).await?;
    let mut tree = Tree::ask(rig, n).await?;
    let mut held = 0;
    if loss == Loss::Killed {
        first.killed_at(point).await?;
    } else {
        first.frozen().await?;
        whole(rig).await?;
        held = tree.held_at(rig, point).await?;
    }
    let lost = leader(rig).await?;
    rig.bus.server(lost).kill().await?;
    let ended = goes_on(rig, n, &tree).await;
    // Whatever came of it, the next case has a whole cluster.
    rig.bus.server(lost).restart().await?;
    whole(rig).await?;
    ended?;
    tree.check(rig, 2).await?;
    if loss == Loss::Stopped {
        let before = tree.messages(rig).await?;
        first.thaw()?;
        tree.is_let_go_by(rig, &first, held, before).await?;
    }
    Ok(())
}

/// Another runner does all that is left, on an empty disk.
async fn goes_on(rig: &Rig<TestCluster>, n: usize, tree: &Tree) -> anyhow::Result<()> {
    let mut second = Process::start(Path::new(RUNNER), rig.spec(&format!("disk-{n}-other"))?).await?;
    let ended = rig.end(tree.root).await;
    ended.with_context(|| format!("the second runner said:\n{}", second.log()))?;
    second.kill().await
}

/// Which server leads the stream of runs.
async fn leader(rig: &Rig<TestCluster>) -> anyhow::Result<usize> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let led = match rig.client.jetstream().get_stream(STREAM).await {
            Ok(stream) => stream.cached_info().cluster.as_ref().and_then(|cluster| cluster.leader.clone()),
            Err(_) => None,
        };
        if let Some(index) = led.and_then(|name| rig.bus.index_of(&name)) {
            return Ok(index);
        }
        if Instant::now() > deadline {
            bail!("the stream has no leader");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until every replica has all that the leader has: what is read then is read from whichever.
async fn whole(rig: &Rig<TestCluster>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Ok(stream) = rig.client.jetstream().get_stream(STREAM).await
            && let Some(cluster) = &stream.cached_info().cluster
            && cluster.leader.is_some()
            && cluster.replicas.len() == 2
            && cluster.replicas.iter().all(|peer| peer.current && !peer.offline && peer.lag.unwrap_or(0) == 0)
        {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("the cluster is not whole again");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

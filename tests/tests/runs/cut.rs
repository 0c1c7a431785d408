//! Two holders: a runner is cut off from everything while another one takes over its runs, and is then let go. It can
//! not append, act, spend, or ack its successor's wake away, and the reply arrives once.
//!
//! It is stopped by SIGSTOP at a point, its lines are held or cut, and it goes on: so it is cut off at exactly that point
//! and works on behind the cut as far as it gets. Its lines lead to NATS and to budget-proxy, as on a machine that loses
//! its network.

use std::path::Path;

use anyhow::Context as _;
use kit::identity::Service;
use nightcrew_tests::{
    line::Line,
    process::{Process, Spec},
    rig::Rig,
};

use crate::{
    RUNNER, lanes,
    tree::{self, Tree},
};

/// Where the first runner is cut off. What it does behind the cut differs in kind.
const POINTS: [&str; 7] = [
    // It asks the model with the bearer that it has.
    "coder BeforeModel 2 #1",
    // It has an answer that the log does not have.
    "coder AfterModel 3 #1",
    // It runs a tool that must not run twice.
    "coder BeforeTool shell #1",
    // It brings a branch into the repository that all share.
    "coder BeforePublish git #1",
    // It releases the run that waits for a child.
    "lead BeforeAppend tool_returned,waiting #1",
    // It acknowledges a wake that is somebody else's by the time it arrives.
    "lead AfterAppend tool_returned,waiting #1",
    // It answers.
    "lead BeforeAppend model_replied,message_sent,finished #1",
];

/// How a runner is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing passes and nobody is told. What was sent meanwhile arrives late.
    Held,
    /// Its connections are ended. What was sent meanwhile is lost.
    Ended,
}

/// A runner whose lines can be cut.
pub(crate) struct Remote {
    pub(crate) process: Process,
    /// To NATS.
    pub(crate) bus: Line,
    /// To budget-proxy.
    pub(crate) proxy: Line,
}

impl Remote {
    /// Starts one that stops itself at `point`.
    pub(crate) async fn start(rig: &Rig, disk: &str, point: &str) -> anyhow::Result<Self> {
        let bus = Line::to(&rig.bus.bus_config(Service::AgentRunner).urls[0]).await?;
        let proxy = Line::to(&rig.proxy_url).await?;
        let spec = rig.spec(disk)?;
        let spec = Spec {
            urls: vec![bus.url()],
            proxy_url: format!("http://{}", proxy.address()),
            points: Some(rig.folder().join(format!("points-{disk}"))),
            freeze_at: Some(point.to_owned()),
            ..spec
        };
        Ok(Self { process: Process::start(Path::new(RUNNER), spec).await?, bus, proxy })
    }

    /// Waits until it stands at its point, and lets it go on cut off.
    pub(crate) async fn cut_off(&mut self, cut: Cut) -> anyhow::Result<()> {
        self.process.frozen().await.context("the point is reached")?;
        for line in [&self.bus, &self.proxy] {
            match cut {
                Cut::Held => line.hold(),
                Cut::Ended => line.cut(),
            }
        }
        self.process.thaw()
    }

    /// Everything passes again.
    pub(crate) fn let_go(&self) {
        self.proxy.open();
        self.bus.open();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_that_was_cut_off_can_do_nothing_more() {
    at_every_point(Cut::Held).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_whose_connections_were_cut_can_do_nothing_more() {
    at_every_point(Cut::Ended).await;
}

async fn at_every_point(cut: Cut) {
    let mut crews = Vec::new();
    for _ in POINTS {
        let rig = Rig::start(tree::SCENARIO).await.expect("a crew");
        rig.start_bridge().await.expect("a bridge");
        crews.push(rig);
    }
    let points = POINTS.map(str::to_owned);
    lanes::play(&crews, &points, async |crew, n, point| case(crew, n, point, cut).await).await;
}

/// The first runner is cut off at `point`, another one does all that is left, and then the first is let go.
async fn case(rig: &Rig, n: usize, point: &str, cut: Cut) -> anyhow::Result<()> {
    let mut first = Remote::start(rig, &format!("disk-{n}"), point).await?;
    let mut tree = Tree::ask(rig, n).await?;
    first.process.frozen().await.context("the point is reached")?;
    let held = tree.held_at(rig, point).await?;
    first.cut_off(cut).await?;
    let mut second = Process::start(Path::new(RUNNER), rig.spec(&format!("disk-{n}-other"))?).await?;
    let ended = rig.end(tree.root).await;
    ended.with_context(|| format!("the second runner said:\n{}", second.log()))?;
    second.kill().await?;
    tree.check(rig, 2).await?;
    let before = tree.messages(rig).await?;
    first.let_go();
    tree.is_let_go_by(rig, &first.process, held, before).await
}

//! The demo: one run of the whole system on real parts, told to a newcomer and checked at the same time.
//!
//! It plays the person (a Matrix client session of its own) and the accident (SIGKILL of the runner, twice). Everything
//! else is what a user starts: Synapse, `nightcrew up`, `nightcrew service agent-runner`. What it claims at the end it
//! has looked up in the log, the room and the repository; when any of it did not happen, it says what and fails.

mod checks;
mod crew;
mod journal;
mod stage;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use owo_colors::{OwoColorize as _, Stream};
use schemas::{RunEvent, event::ToolCalled};
use tempfile::TempDir;

use crate::person::transcript;
use checks::Checks;
use crew::Crew;
use journal::Follower;
use stage::Stage;
pub(crate) use stage::{copy_tree, git};

/// How long each thing that is waited for may take; the whole demo takes less than a minute on two cores.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// What the person writes.
const REQUEST: &str = "@lead a test fails in this repository. Please find out why and fix it.";

/// Options of the demo.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "demo", about = "Watch a crew at work on real parts, killed twice in the middle")]
pub struct Options {
    /// Stay up when it is done, to look around; Ctrl-C ends it.
    #[arg(long)]
    pub stay: bool,
}

/// Runs the demo.
pub fn main(options: &Options) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tell(&format!("the demo can not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let folder = match TempDir::with_prefix("nightcrew-demo-") {
        Ok(folder) => folder,
        Err(error) => {
            tell(&format!("the demo has no folder to play in: {error}"));
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(play(options, folder.path())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(&format!("\nwhat every part logged is kept in {}", folder.keep().display()));
            tell(&format!("\n{} {error:#}", "the demo FAILED:".if_supports_color(Stream::Stdout, |text| text.red())));
            ExitCode::FAILURE
        }
    }
}

async fn play(options: &Options, folder: &Path) -> anyhow::Result<()> {
    let began = Instant::now();
    heading("The stage");
    let stage = Stage::set(folder).await?;
    let mut crew = Crew::start(&stage).await?;
    let mut log = Follower::start(&stage, &crew).await?;
    crew.start_runner()?;
    for room in [&stage.room, &stage.audit] {
        stage.person.wait_for_member(room, &stage.bot, PATIENCE).await?;
    }

    heading("What happens");
    let asked = stage.person.say(&stage.room, REQUEST).await?;
    tell(&format!("ada writes in the room: {REQUEST}"));
    let root = log.wait("lead wakes", |run| matches!(run.event, RunEvent::Started(_))).await?.run_id;
    tell(&format!("lead wakes: run {root}"));

    let killed = log
        .wait("scout calls its model", |seen| {
            seen.agent.as_deref() == Some("scout")
                && matches!(&seen.event, RunEvent::ModelCalled(call) if call.step == 2)
        })
        .await?;
    crew.kill_runner().await?;
    tell(&format!("the runner is ended with SIGKILL while scout's model call {} is in flight", 2));
    crew.start_runner()?;
    log.wait("another runner goes on with scout", |seen| {
        seen.run_id == killed.run_id && matches!(seen.event, RunEvent::Resumed(_))
    })
    .await?;
    tell("another runner has taken over and goes on");

    let in_tool = log
        .wait("coder runs the tests", |seen| {
            seen.agent.as_deref() == Some("coder")
                && matches!(&seen.event, RunEvent::ToolCalled(ToolCalled { tool, .. }) if tool == "shell")
        })
        .await?;
    crew.kill_runner().await?;
    tell("the runner is ended with SIGKILL while coder's shell command runs");
    crew.start_runner()?;
    log.wait("another runner goes on with coder", |seen| {
        seen.run_id == in_tool.run_id && matches!(seen.event, RunEvent::Resumed(_))
    })
    .await?;
    tell("another runner has taken over; the lost command is shown to the model as uncertain");

    let answer = stage.person.wait_for_reply(&stage.room, &asked, PATIENCE).await?;
    log.wait("the run ends", |seen| seen.run_id == root && seen.event.is_end()).await?;
    log.wait_delivered(root).await?;

    heading("The room, as ada sees it");
    tell(&transcript(&stage.person.read(&stage.room).await?));
    heading("The audit room");
    let audit = stage.person.wait_for(&stage.audit, PATIENCE, |line| line.text.contains(&root.to_string()[..8])).await;
    tell(&transcript(&stage.person.read(&stage.audit).await?));
    heading("The timeline of the run tree (nightcrew timeline RUN --tree)");
    tell(&crew.timeline(root).await?);
    heading("The change");
    tell(&stage.diff()?);

    let checks = Checks::of(&stage, &crew, &log, root, &answer, &asked).await?;
    heading("What was paid");
    tell(&checks.paid());
    heading("What was just shown");
    tell(&checks.report());
    tell(&format!("\nafter {:.0} s", began.elapsed().as_secs_f64()));
    audit.context("the audit room has no line about the run")?;
    checks.verdict()?;
    if options.stay {
        tell(&format!("\nEverything stays up in {}. Ctrl-C ends it.", stage.dir().display()));
        tell(&crew.hints());
        kit::service::until_signal().await;
    }
    crew.stop().await
}

fn heading(text: &str) {
    let line = format!("\n== {text} ==");
    tell(&line.if_supports_color(Stream::Stdout, |line| line.bold()).to_string());
}

#[expect(clippy::print_stdout, reason = "the demo tells a person what happens")]
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

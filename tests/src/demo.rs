//! The demo: one run of the whole system on real parts, told to a newcomer and checked at the same time.
//!
//! It plays the person (a Matrix client session of its own) and the accident (SIGKILL of the runner, twice). Everything
//! else is what a user starts: Synapse, `nightcrew up`, `nightcrew service agent-runner`. What it claims at the end it
//! has looked up in the log, the room and the repository; when any of it did not happen, it says what and fails.

mod checks;
mod crew;
mod explained;
mod journal;
mod stage;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use owo_colors::{OwoColorize as _, Stream};
use schemas::{RunEvent, RunId, event::ToolCalled};
use tempfile::TempDir;

use crate::person::{Line, transcript};
use checks::Checks;
use crew::Crew;
use journal::{Follower, Seen};
use stage::Stage;
pub(crate) use stage::{copy_tree, git};

/// How long each thing that is waited for may take, on a machine that is busy with something else, too.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// How long the demo may take, on two idle cores.
const AT_MOST: Duration = Duration::from_mins(1);

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
    let mut log = Follower::start(&crew).await?;
    crew.start_runner()?;
    for room in [&stage.room, &stage.audit] {
        stage.person.wait_for_member(room, &stage.bot, PATIENCE).await?;
    }
    heading("What happens");
    let Story { root, asked, answer } = story(&stage, &mut crew, &mut log).await?;
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
    tell(&pace(began.elapsed()));
    audit.context("the audit room has no line about the run")?;
    checks.verdict()?;
    if options.stay {
        tell(&format!("\nEverything stays up in {}. Ctrl-C ends it.", stage.dir().display()));
        tell(&crew.hints(root));
        kit::service::until_signal().await;
    }
    crew.stop().await?;
    // Nobody is left who could say anything more.
    checks::answered_once(&stage, &asked).await
}

/// What comes of the person's request.
struct Story {
    root: RunId,
    asked: String,
    answer: Line,
}

/// The request, the two accidents, and the answer; told as the log tells it.
async fn story(stage: &Stage, crew: &mut Crew, log: &mut Follower) -> anyhow::Result<Story> {
    let asked = stage.person.say(&stage.room, REQUEST).await?;
    tell(&format!("ada writes in the room: {REQUEST}"));
    let root = log.wait("lead wakes", |run| matches!(run.event, RunEvent::Started(_))).await?.run_id;
    tell(&format!("lead wakes: run {root}"));
    handoff(log, "lead", "scout").await?;
    let asks = |seen: &Seen| matches!(&seen.event, RunEvent::ModelCalled(call) if call.step == 2);
    let killed = log.wait("scout calls its model", |seen| seen.is_of("scout") && asks(seen)).await?;
    crew.wait_until_asked("scout", 2).await?;
    accident(crew, log, killed.run_id, "scout's model call 2 is in flight").await?;
    tell("another runner has taken over: the call is made again, and an answer that was given would not be paid twice");
    handoff(log, "lead", "coder").await?;
    let runs = |seen: &Seen| matches!(&seen.event, RunEvent::ToolCalled(ToolCalled { tool, .. }) if tool == "shell");
    let in_tool = log.wait("coder runs the tests", |seen| seen.is_of("coder") && runs(seen)).await?;
    crew.wait_until_sandboxed().await?;
    accident(crew, log, in_tool.run_id, "coder's shell command runs").await?;
    tell("another runner has taken over; the lost command is shown to the model as uncertain");
    log.wait("coder commits", |seen| matches!(seen.event, RunEvent::CodeCommitted(_))).await?;
    tell("coder has run the tests again and commits on a branch of its run");

    let answer = stage.person.wait_for_reply(&stage.room, &asked, PATIENCE).await?;
    log.wait("the run ends", |seen| seen.run_id == root && seen.event.is_end()).await?;
    log.wait_delivered(root).await?;
    tell("lead answers in the thread");
    Ok(Story { root, asked, answer })
}

async fn handoff(log: &mut Follower, from: &str, to: &str) -> anyhow::Result<()> {
    let hands = |seen: &Seen| matches!(&seen.event, RunEvent::HandedOff(handed) if handed.agent.as_str() == to);
    log.wait("work is handed on", |seen| seen.is_of(from) && hands(seen)).await?;
    tell(&format!("{from} hands off to {to}"));
    Ok(())
}

/// Ends the runner in the middle of `what`, and waits until another one goes on with the run.
async fn accident(crew: &mut Crew, log: &mut Follower, run: RunId, what: &str) -> anyhow::Result<()> {
    crew.kill_runner().await?;
    tell(&format!("the runner is ended with SIGKILL while {what}"));
    crew.start_runner()?;
    let goes_on = |seen: &Seen| seen.run_id == run && matches!(seen.event, RunEvent::Resumed(_));
    log.wait("another runner goes on", goes_on).await?;
    Ok(())
}

/// How long it took. A busy machine is no failure of what was shown; it is said.
fn pace(took: Duration) -> String {
    let took = took.as_secs_f64();
    let most = AT_MOST.as_secs();
    if took <= AT_MOST.as_secs_f64() {
        return format!("after {took:.0} s, of the {most} s that it may take");
    }
    let late = format!("after {took:.0} s, more than the {most} s that it may take on two idle cores");
    late.if_supports_color(Stream::Stdout, |text| text.red()).to_string()
}

fn heading(text: &str) {
    let line = format!("\n== {text} ==");
    tell(&line.if_supports_color(Stream::Stdout, |line| line.bold()).to_string());
}

#[expect(clippy::print_stdout, reason = "the demo tells a person what happens")]
pub(crate) fn tell(line: &str) {
    println!("{line}");
}

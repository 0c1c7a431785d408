//! `nightcrew`: the command line, `nightcrew up` (every service in one process) and `nightcrew service NAME` (one of
//! them, for Kubernetes and for whoever runs them apart), from the same code.
//!
//! It is the only crate that knows all services. Commands talk to a crew by the bus alone, as user `nightcrew`, so they
//! work the same on a laptop and against a cluster.

pub mod cli;
mod commands;
mod connected;
mod endpoints;
mod first_crew;
mod output;
mod project;
mod services;
mod settings;
mod up;
mod visible;

use std::process::ExitCode;

use cli::{Cli, Command, DeadCommand, Reach, StateCommand};
use connected::{Connected, Usage};
use output::{Output, PrintError};
use schemas::control::Control;

/// Exit code of a failure that is not the caller's mistake.
const EXIT_FAILURE: u8 = 1;

/// Exit code of a mistake on the command line: the same as that of what clap finds.
const EXIT_USAGE: u8 = 2;

/// Runs a parsed command line to its end.
pub fn main(cli: Cli) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

async fn run(cli: Cli) -> anyhow::Result<()> {
    use commands::{
        agents, cancel, completions, control, dead, doctor, init, rebuild, retry, runs, say, state, timeline,
    };
    let out = &Output::open();
    let dir = cli.dir;
    let project = || project::Project::load(&dir);
    let crew = async |reach: &Reach| Connected::open(project()?, reach).await;
    match cli.command {
        Command::Init(o) => init::init(&dir, &o, out),
        Command::Up(options) => Box::pin(up::up(project()?, options, out)).await,
        Command::Service(options) => Box::pin(up::service(project()?, options, out)).await,
        Command::Say(o) => say::say(&crew(&o.reach).await?, &o, out).await,
        Command::Runs(o) => runs::runs(&crew(&o.reach).await?, &o, out).await,
        Command::Timeline(o) => timeline::timeline(&crew(&o.reach).await?, &o, out).await,
        Command::Agents(o) => agents::agents(&crew(&o.reach).await?, &o, out).await,
        Command::Cancel(o) => cancel::cancel(&crew(&o.reach).await?, &o, out).await,
        Command::Pause(o) => control::tell(&crew(&o.reach).await?, &o.whom, Control::Pause, o.json, out).await,
        Command::Resume(o) => control::tell(&crew(&o.reach).await?, &o.whom, Control::Resume, o.json, out).await,
        Command::Stop(o) => {
            let how = if o.now { Control::Kill } else { Control::Stop };
            control::tell(&crew(&o.reach).await?, &o.whom, how, o.json, out).await
        }
        Command::Retry(o) => retry::retry(&crew(&o.reach).await?, &o, out).await,
        Command::State(StateCommand::Save(o)) => state::save(&crew(&o.reach).await?, &o, out).await,
        Command::State(StateCommand::Show(o)) => state::show(async || crew(&o.reach).await, &o, out).await,
        Command::Dead(DeadCommand::List(o)) => dead::list(&crew(&o.reach).await?, &o, out).await,
        Command::Dead(DeadCommand::Show(o)) => dead::show(&crew(&o.reach).await?, &o, out).await,
        Command::Dead(DeadCommand::Replay(o)) => dead::replay(&crew(&o.reach).await?, &o, out).await,
        Command::Dead(DeadCommand::Drop(o)) => dead::drop(&crew(&o.reach).await?, &o, out).await,
        Command::Rebuild(o) => rebuild::rebuild(&crew(&o.reach).await?, &o, out).await,
        Command::Doctor(o) => doctor::doctor(&dir, &o, out).await,
        Command::Completions(o) => Ok(completions::completions(&o, out)?),
    }
}

#[expect(clippy::print_stderr, reason = "the command line's one place to say why it failed")]
fn fail(error: &anyhow::Error) -> ExitCode {
    if matches!(error.downcast_ref(), Some(PrintError::Closed)) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", visible::text(&format!("{error:#}")));
    ExitCode::from(exit_code(error))
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<project::Problems>() || error.is::<kit::config::InvalidConfig>() {
        kit::config::EXIT_CONFIG
    } else if error.is::<Usage>() {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    }
}

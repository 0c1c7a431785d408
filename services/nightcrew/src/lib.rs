//! `nightcrew`: the command line, `nightcrew up` (every service in one process) and `nightcrew service NAME` (one of
//! them, for Kubernetes and for whoever runs them apart), from the same code.
//!
//! It is the only crate that knows all services. Commands talk to a crew by the bus alone, as user `nightcrew`, so they
//! work the same on a laptop and against a cluster.

pub mod cli;
mod commands;
mod connected;
mod endpoints;
mod output;
mod project;
mod services;
mod up;
mod visible;

use std::process::ExitCode;

use cli::{Cli, Command, Reach};
use connected::{Connected, Usage};
use output::{Output, PrintError};

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
    use commands::{cancel, runs, say, timeline};
    let out = Output::open();
    let dir = cli.dir;
    let project = || project::Project::load(&dir);
    let crew = async |reach: &Reach| Connected::open(project()?, reach).await;
    match cli.command {
        Command::Init => up::init(&project()?),
        Command::Up(options) => Box::pin(up::up(project()?, options)).await,
        Command::Service(options) => Box::pin(up::service(project()?, options)).await,
        Command::Say(options) => say::say(&crew(&options.reach).await?, &options, &out).await,
        Command::Runs(options) => runs::runs(&crew(&options.reach).await?, &options, &out).await,
        Command::Timeline(options) => timeline::timeline(&crew(&options.reach).await?, &options, &out).await,
        Command::Cancel(options) => cancel::cancel(&crew(&options.reach).await?, &options, &out).await,
        _ => anyhow::bail!("not yet"),
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
    if error.is::<project::Problems>() {
        kit::config::EXIT_CONFIG
    } else if error.is::<Usage>() {
        EXIT_USAGE
    } else {
        EXIT_FAILURE
    }
}

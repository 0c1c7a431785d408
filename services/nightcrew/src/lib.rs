//! `nightcrew`: the command line, `nightcrew up` (every service in one process) and `nightcrew service NAME` (one of
//! them, for Kubernetes and for whoever runs them apart), from the same code.
//!
//! It is the only crate that knows all services. Commands talk to a crew by the bus alone, as user `nightcrew`, so they
//! work the same on a laptop and against a cluster.

pub mod cli;
mod endpoints;
mod project;
mod services;
mod up;

use std::process::ExitCode;

use cli::{Cli, Command};

/// Exit code of a failure that is not the caller's mistake.
const EXIT_FAILURE: u8 = 1;

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
    let project = || project::Project::load(&cli.dir);
    match cli.command {
        Command::Init => up::init(&project()?),
        Command::Up(options) => up::up(project()?, options).await,
        Command::Service(options) => up::service(project()?, options).await,
    }
}

#[expect(clippy::print_stderr, reason = "the command line's one place to say why it failed")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    let code = match error.downcast_ref::<project::Problems>() {
        Some(_) => kit::config::EXIT_CONFIG,
        None => EXIT_FAILURE,
    };
    ExitCode::from(code)
}

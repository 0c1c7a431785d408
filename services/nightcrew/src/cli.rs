//! What can be asked on the command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::services::Name;

/// A crew of AI engineering agents that can be left alone overnight.
#[derive(Debug, Parser)]
#[command(name = "nightcrew", version, propagate_version = true)]
pub struct Cli {
    /// The project folder: where team.yaml, models.yaml and agents/ are.
    #[arg(long, short = 'C', global = true, default_value = ".", env = "NIGHTCREW_DIR")]
    pub dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make the project's keys and credentials; keeps what is there.
    Init,
    /// Start everything in one process, and nats-server unless one is given.
    Up(UpOptions),
    /// Run one service, against a bus that is up.
    Service(ServiceOptions),
}

/// Options of `up`.
#[derive(Debug, Args)]
pub struct UpOptions {
    /// Use this NATS instead of starting one.
    #[arg(long, env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Leave a service out, because it runs elsewhere.
    #[arg(long, value_name = "SERVICE")]
    pub without: Vec<Name>,
    /// Scenarios that the rehearsal model plays.
    #[arg(long, value_name = "FILE", env = "NIGHTCREW_SCENARIO")]
    pub scenario: Vec<PathBuf>,
}

/// Options of `service`.
#[derive(Debug, Args)]
pub struct ServiceOptions {
    /// The service.
    pub name: Name,
    /// The bus; by default that of the crew that is up in this project.
    #[arg(long, env = "NIGHTCREW_NATS_URL")]
    pub nats_url: Option<String>,
    /// Scenarios that the rehearsal model plays.
    #[arg(long, value_name = "FILE", env = "NIGHTCREW_SCENARIO")]
    pub scenario: Vec<PathBuf>,
}

//! The command line, and every service in one process.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    nightcrew::main(nightcrew::cli::Cli::parse())
}

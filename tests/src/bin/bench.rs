//! `./justw bench [step wake burst resume up] [--json]`: what the system costs in time and memory, on real parts.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    nightcrew_tests::bench::main(&nightcrew_tests::bench::Options::parse())
}

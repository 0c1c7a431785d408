//! `./justw demo`: a person asks, a crew works, is killed twice, goes on, and answers. Every part is real but the model.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    nightcrew_tests::demo::main(&nightcrew_tests::demo::Options::parse())
}

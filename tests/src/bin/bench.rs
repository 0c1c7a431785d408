//! `./justw bench [step wake burst resume up matrix] [--json]`: what the system costs in time and memory, on real parts.

use std::process::ExitCode;

use clap::Parser as _;
use mimalloc::MiMalloc;

/// That of `nightcrew`: some benches have the crew in their own process.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    nightcrew_tests::bench::main(&nightcrew_tests::bench::Options::parse())
}

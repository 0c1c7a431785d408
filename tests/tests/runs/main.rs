//! Runs from their request to their end, on a real bus and over real HTTP. Only the model is played.
#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod again;
mod archived;
mod billing;
mod breakers;
mod cluster;
mod controls;
mod crash;
mod cut;
mod cut_answers;
mod explained;
mod files;
mod full;
mod handed_over;
mod lanes;
mod log;
mod nearly_full;
mod outage;
mod parents;
mod registry;
mod relay;
mod stage;
mod state;
mod straight;
mod ticks;
mod tree;
mod worktrees;

/// The runner as a process.
const RUNNER: &str = env!("CARGO_BIN_EXE_test-runner");

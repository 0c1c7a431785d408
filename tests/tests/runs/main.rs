//! Runs from their request to their end, on a real bus and over real HTTP. Only the model is played.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod crash;
mod files;
mod full;
mod registry;
mod state;
mod straight;
mod tree;
mod worktrees;

/// The runner as a process.
const RUNNER: &str = env!("CARGO_BIN_EXE_test-runner");

//! Tests of the runner against its public interface.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod hold;
mod holder;
mod model;
mod run_invariants;
mod run_mail;
mod run_progress;
mod run_rules;
mod run_saved;

//! Tests of the runner against its public interface.

mod run_invariants;
mod run_progress;

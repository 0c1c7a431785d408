//! agent-runner: the agent loop. It takes wakes, holds runs, calls models and tools, and journals what it decides.
//!
//! Reads `swarm.run.*.requested.resident.*`, `swarm.signal.>`, `swarm.schedule.due.*` and `swarm.control.>`; writes
//! `swarm.run.>` and, for parents, `swarm.signal.<run_id>.child_ended`. It must never call a model but through
//! budget-proxy, never run a command but in the sandbox, and never act on a decision that is not in the log.

pub mod run;

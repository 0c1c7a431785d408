//! Loop breakers: what ends a run that would otherwise go on for ever.

use schemas::event::FailReason;

use super::state::RunState;

/// The limits of one run, from `team.yaml`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Model calls in one run.
    pub max_steps: u32,
    /// Tokens in one run and its children.
    pub max_tokens: u64,
    /// Handoffs in one run.
    pub max_handoffs: u32,
    /// Handoffs between the root and a run.
    pub max_depth: u32,
    /// The same handoff (agent and task) in one run.
    pub max_same_handoff: u32,
    /// Steps in a row with the same calls and the same results.
    pub max_same_step: u32,
    /// How often a run may be taken over from a lost holder.
    pub max_takeovers: u32,
    /// Tries of one model call.
    pub max_model_attempts: u32,
    /// Bytes of the journal of one run.
    pub max_journal_bytes: u64,
}

impl Default for Limits {
    /// Wide enough for a long task of a coding agent, narrow enough that a loop ends within the hour: 200 steps of ten
    /// seconds, a journal of 32 MiB against a stream of gigabytes.
    fn default() -> Self {
        Self {
            max_steps: 200,
            max_tokens: 20_000_000,
            max_handoffs: 50,
            max_depth: 8,
            max_same_handoff: 3,
            max_same_step: 4,
            max_takeovers: 20,
            max_model_attempts: 6,
            max_journal_bytes: 32 * 1024 * 1024,
        }
    }
}

/// The first limit that `state` is over, with a sentence for people.
pub fn broken(state: &RunState, limits: &Limits) -> Option<(FailReason, String)> {
    let tokens = state.totals().usage.total();
    if state.takeovers() > limits.max_takeovers {
        return Some((
            FailReason::Attempts,
            format!("taken over {} times, {} allowed", state.takeovers(), limits.max_takeovers),
        ));
    }
    if state.journal_bytes() > limits.max_journal_bytes {
        return Some((
            FailReason::JournalFull,
            format!("the journal holds {} bytes, {} allowed", state.journal_bytes(), limits.max_journal_bytes),
        ));
    }
    if tokens > limits.max_tokens {
        return Some((FailReason::Tokens, format!("{tokens} tokens used, {} allowed", limits.max_tokens)));
    }
    if state.same_steps() >= limits.max_same_step {
        return Some((
            FailReason::NoProgress,
            format!("{} steps in a row made the same calls with the same results", state.same_steps()),
        ));
    }
    None
}

/// Why a handoff to `agent` with `task` may not happen.
pub fn refuses_handoff(state: &RunState, limits: &Limits, agent: &str, task: &str) -> Option<(FailReason, String)> {
    if state.request().depth >= limits.max_depth {
        return Some((
            FailReason::Handoffs,
            format!("handoffs are {} deep, {} allowed", state.request().depth, limits.max_depth),
        ));
    }
    if state.handoffs() >= limits.max_handoffs {
        return Some((
            FailReason::Handoffs,
            format!("{} handoffs in this run, {} allowed", state.handoffs(), limits.max_handoffs),
        ));
    }
    let same = state.same_handoffs(agent, task);
    if same >= limits.max_same_handoff {
        return Some((FailReason::RepeatedHandoff, format!("the same task went to {agent} {same} times")));
    }
    None
}

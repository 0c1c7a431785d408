//! Loop breakers: what ends a run that would otherwise go on for ever.
//!
//! `FailReason::RoomChatter` is not among them yet: the crew speaks only to answer a person, once a run, and neither its own
//! messages nor the notices of other bots wake anybody. It is for agents that speak unasked.

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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kit::for_test;
    use schemas::{
        AgentName, Block, RunId, Usage,
        event::{
            Billed, ContextLoaded, HandedOff, ModelCalled, ModelErrorClass, ModelFailed, ModelReplied, Requested,
            StopReason,
        },
    };

    use super::*;
    use crate::run::{Action, Command, decide, next, next::Asked};

    const LIMITS: Limits = Limits {
        max_steps: 3,
        max_tokens: 100,
        max_handoffs: 3,
        max_depth: 2,
        max_same_handoff: 2,
        max_same_step: 3,
        max_takeovers: 2,
        max_model_attempts: 2,
        max_journal_bytes: 1_000,
    };

    fn begin(depth: u32) -> RunState {
        let (run, request) = for_test::request("lead");
        let first = for_test::first(Requested { depth, ..request });
        taken(&RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &first).unwrap())
    }

    fn after(state: &RunState, command: Command) -> RunState {
        decide(state, command).unwrap().0
    }

    fn taken(state: &RunState) -> RunState {
        after(state, Command::Take { runner: "r".into(), harness: "native".into() })
    }

    fn held(depth: u32) -> RunState {
        let context = ContextLoaded { model: "m".into(), context_window: 9, system: "s".into(), tools: vec![] };
        after(&begin(depth), Command::LoadContext(context))
    }

    /// The model answers with these handoffs, each to an agent with a task.
    fn replied(state: &RunState, step: u32, tokens: u64, handoffs: &[(&str, &str)]) -> RunState {
        let called = ModelCalled { step, attempt: 1, model: "m".into(), input_estimate: 1, dropped_messages: 0 };
        let call = |n: usize| Block::ToolUse { id: format!("{step}-{n}"), name: "handoff".into(), input: 1.into() };
        let reply = ModelReplied {
            step,
            model: "m".into(),
            content: (0..handoffs.len()).map(call).collect(),
            stop: StopReason::ToolUse,
            usage: Usage { input_tokens: tokens, ..Usage::default() },
            cost: None,
            estimated: false,
            millis: 1,
        };
        let mut state = after(&after(state, Command::CallModel(called)), Command::Reply(reply));
        for (n, (agent, task)) in handoffs.iter().enumerate() {
            let call_id = format!("{step}-{n}");
            let asked = Asked { call_id: call_id.clone(), tool: "handoff".into(), arguments: 1.into() };
            state = after(&state, Command::CallTool { asked, idempotent: false });
            let child_run_id = RunId::from_uuid(uuid::Uuid::from_u128(100 + n as u128));
            let (agent, task) = (AgentName::try_new(*agent).unwrap(), (*task).into());
            state = after(&state, Command::HandOff(HandedOff { call_id, child_run_id, agent, task }));
        }
        state
    }

    fn reason(state: &RunState) -> Option<FailReason> {
        match next(state, &LIMITS, Timestamp::UNIX_EPOCH) {
            Action::Fail(reason, message) => {
                assert!(!message.is_empty());
                Some(reason)
            }
            _ => None,
        }
    }

    #[test]
    fn a_run_may_not_use_more_tokens_than_it_has() {
        assert_eq!(reason(&replied(&held(0), 1, 100, &[])), None);
        assert_eq!(reason(&replied(&held(0), 1, 101, &[])), Some(FailReason::Tokens));
    }

    #[test]
    fn tokens_of_a_call_that_failed_count_too() {
        let after_failure = |output_tokens| {
            let called = ModelCalled { step: 1, attempt: 1, model: "m".into(), input_estimate: 1, dropped_messages: 0 };
            let usage = Usage { output_tokens, ..Usage::default() };
            let failed = ModelFailed {
                step: 1,
                attempt: 1,
                class: ModelErrorClass::Interrupted,
                status: None,
                message: "cut".into(),
                retry_after_ms: None,
                retry_at: None,
                billed: Some(Billed { usage, cost: None, estimated: true, through: 7 }),
            };
            reason(&after(&after(&held(0), Command::CallModel(called)), Command::ModelFail(failed)))
        };
        assert_eq!(after_failure(100), None);
        assert_eq!(after_failure(101), Some(FailReason::Tokens));
    }

    #[test]
    fn a_run_is_not_taken_over_for_ever() {
        let lost_twice = taken(&taken(&held(0)));
        assert_eq!(reason(&lost_twice), None);
        assert_eq!(reason(&taken(&lost_twice)), Some(FailReason::Attempts));
    }

    #[test]
    fn a_journal_has_its_size() {
        let mut state = held(0);
        state.appended(2, 1_000);
        assert_eq!(reason(&state), None);
        state.appended(3, 1);
        assert_eq!(reason(&state), Some(FailReason::JournalFull));
    }

    #[test]
    fn handoffs_have_a_depth_and_a_number_and_are_not_repeated() {
        let refused = |state: &RunState, agent: &str, task: &str| {
            refuses_handoff(state, &LIMITS, agent, task).map(|(reason, message)| {
                assert!(!message.is_empty());
                reason
            })
        };
        assert_eq!(refused(&held(1), "scout", "look"), None);
        assert_eq!(refused(&held(2), "scout", "look"), Some(FailReason::Handoffs), "a grandchild hands nothing on");
        let twice = replied(&held(0), 1, 1, &[("scout", "look"), ("scout", "look")]);
        assert_eq!(refused(&twice, "scout", "look"), Some(FailReason::RepeatedHandoff));
        assert_eq!(refused(&twice, "scout", "look again"), None);
        assert_eq!(refused(&twice, "coder", "look"), None);
        let thrice = replied(&held(0), 1, 1, &[("scout", "look"), ("scout", "find"), ("coder", "mend")]);
        assert_eq!(refused(&thrice, "coder", "test"), Some(FailReason::Handoffs));
    }
}

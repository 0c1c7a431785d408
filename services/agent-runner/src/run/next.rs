//! What has to be done now: a pure function of the state.

use std::time::Duration;

use jiff::Timestamp;
use schemas::event::{FailReason, ModelErrorClass, Outcome, StopReason, ToolCalled, WaitReason};

use super::{
    limits::{self, Limits},
    state::{Phase, RunState},
};

/// What the holder of a run does next.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Take the run: open an epoch.
    Take,
    /// Gather what the agent must know.
    LoadContext,
    /// Call the model; not before `not_before`.
    CallModel {
        /// The step.
        step: u32,
        /// The try of this step.
        attempt: u32,
        /// The provider asked to wait until then.
        wait_ms: u64,
    },
    /// Make these tool calls, all at once, and wait until one returns.
    CallTools(Vec<Asked>),
    /// A lost holder left these calls open: run the idempotent ones again, show the others as uncertain.
    Recover(Vec<ToolCalled>),
    /// Tool calls are running: wait until one returns.
    AwaitTools,
    /// Release the run until a signal comes.
    Wait(WaitReason),
    /// End it well.
    Finish,
    /// End it with a reason.
    Fail(FailReason, String),
    /// It is over.
    Nothing(Outcome),
}

/// A tool call that the model asks for.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// The provider's id.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// The arguments.
    pub arguments: serde_json::Value,
}

/// First pause between tries of a model call, doubled each time; providers recover from a burst in seconds.
const RETRY_BASE_MS: u64 = 500;
/// Longest pause that we choose ourselves.
const RETRY_CAP_MS: u64 = 30_000;
/// An answer that can not be understood is tried this often: a third time tells nothing new.
const MALFORMED_ATTEMPTS: u32 = 3;

/// What the holder of `state` does next at `now`.
pub fn next(state: &RunState, limits: &Limits, now: Timestamp) -> Action {
    match state.phase() {
        Phase::Ended(outcome) => return Action::Nothing(outcome),
        Phase::Requested | Phase::Waiting(_) => return Action::Take,
        Phase::Held => {}
    }
    if now >= state.request().deadline {
        return Action::Fail(FailReason::Deadline, format!("the deadline {} has passed", state.request().deadline));
    }
    if let Some((reason, message)) = limits::broken(state, limits) {
        return Action::Fail(reason, message);
    }
    if state.context().is_none() {
        return Action::LoadContext;
    }
    if let Some(action) = model_call(state, limits, now) {
        return action;
    }
    if let Some(action) = tool_calls(state) {
        return action;
    }
    after_reply(state, limits)
}

fn model_call(state: &RunState, limits: &Limits, now: Timestamp) -> Option<Action> {
    let open = state.model_call()?;
    let again = |wait_ms| Action::CallModel { step: open.call.step, attempt: open.call.attempt + 1, wait_ms };
    let Some(failed) = &open.failed else {
        return Some(again(0));
    };
    let most = match failed.class {
        ModelErrorClass::Refused | ModelErrorClass::Budget => 1,
        ModelErrorClass::Malformed => MALFORMED_ATTEMPTS.min(limits.max_model_attempts),
        _ => limits.max_model_attempts,
    };
    let reason = if failed.class == ModelErrorClass::Budget { FailReason::Budget } else { FailReason::Model };
    if failed.attempt >= most {
        return Some(Action::Fail(reason, format!("after {} tries: {}", failed.attempt, failed.message)));
    }
    // However long a provider asks for, a night has time for it: what bounds the pause is the run's own deadline.
    if let Some(retry_at) = failed.retry_at.filter(|retry_at| *retry_at >= state.request().deadline) {
        let message =
            format!("the provider is to be asked again at {retry_at}, after the deadline: {}", failed.message);
        return Some(Action::Fail(reason, message));
    }
    let asked =
        failed.retry_at.map_or(Duration::ZERO, |at| Duration::try_from(at.duration_since(now)).unwrap_or_default());
    let asked = u64::try_from(asked.as_millis()).unwrap_or(u64::MAX);
    let doubled = RETRY_BASE_MS.saturating_mul(1 << (failed.attempt - 1).min(16)).min(RETRY_CAP_MS);
    Some(again(asked.max(doubled)))
}

fn tool_calls(state: &RunState) -> Option<Action> {
    let lost: Vec<ToolCalled> =
        state.open_calls().values().filter(|call| state.was_in_flight(call)).map(|call| call.call.clone()).collect();
    if !lost.is_empty() {
        return Some(Action::Recover(lost));
    }
    let asked: Vec<Asked> = state
        .unstarted()
        .map(|(call_id, tool, arguments)| Asked {
            call_id: call_id.to_owned(),
            tool: tool.to_owned(),
            arguments: arguments.clone(),
        })
        .collect();
    if !asked.is_empty() {
        return Some(Action::CallTools(asked));
    }
    if state.open_calls().is_empty() {
        return None;
    }
    let only_children = state.open_calls().values().all(|call| call.child.is_some());
    Some(if only_children { Action::Wait(WaitReason::Child) } else { Action::AwaitTools })
}

fn after_reply(state: &RunState, limits: &Limits) -> Action {
    if state.answered() && !state.has_mail() {
        return match state.last_stop() {
            Some(StopReason::Refusal) => Action::Fail(FailReason::Refusal, "the model declined to answer".to_owned()),
            Some(StopReason::MaxTokens) if state.answer().is_empty() => Action::Fail(
                FailReason::Model,
                "the answer was cut before its first word: raise max_output_tokens".to_owned(),
            ),
            _ => Action::Finish,
        };
    }
    if state.step() >= limits.max_steps {
        return Action::Fail(
            FailReason::Steps,
            format!("{} model calls made, {} allowed", state.step(), limits.max_steps),
        );
    }
    Action::CallModel { step: state.step() + 1, attempt: 1, wait_ms: 0 }
}

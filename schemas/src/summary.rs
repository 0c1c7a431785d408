//! The summary of a run, as kept in KV `runs`. A projection: rebuilt from the log at will.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{FailReason, Outcome, Totals, WaitReason},
    ids::{AgentName, ProjectId, RunId},
    trigger::Trigger,
};

/// What a list of runs shows of one run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RunSummary {
    /// The run.
    pub run_id: RunId,
    /// The project.
    pub project: ProjectId,
    /// The agent.
    pub agent: AgentName,
    /// What woke it.
    pub trigger: Trigger,
    /// The run that started it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<RunId>,
    /// The root of its tree.
    pub root_run_id: RunId,
    /// Stream sequence of its first message.
    pub first_sequence: u64,
    /// Stream sequence of the last message that this summary has seen.
    pub last_sequence: u64,
    /// When it was requested.
    pub requested_at: Timestamp,
    /// When the last message came.
    pub updated_at: Timestamp,
    /// Where it stands.
    pub state: RunState,
    /// Its end, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail_reason: Option<FailReason>,
    /// The beginning of its task.
    pub prompt: String,
    /// The beginning of its answer.
    #[serde(default)]
    pub answer: String,
    /// How often a runner took it.
    pub attempts: u32,
    /// What it used so far.
    pub totals: Totals,
    /// Whether its messages are in an archive.
    #[serde(default)]
    pub archived: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state", content = "reason")]
pub enum RunState {
    /// Not taken yet.
    Requested,
    /// Held by a runner.
    Running,
    /// Held by nobody.
    Waiting(WaitReason),
    /// Over.
    Ended,
}

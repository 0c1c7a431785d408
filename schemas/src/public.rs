//! Public facts on `swarm.events.<name>`; the name is the kind. Loops and triggers listen to them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    event::{Outcome, Work},
    ids::{AgentName, RunId},
    kinds::kinds,
};

kinds! {
    /// One public fact.
    pub enum PublicEvent {
        /// A run ended.
        TaskDone(TaskDone) = "task_done",
        /// A run published a commit.
        CodeCommitted(CodeCommitted) = "code_committed",
        /// A pull request was opened.
        PrOpened(PullRequest) = "pr_opened",
        /// A pull request got new commits.
        PrUpdated(PullRequest) = "pr_updated",
        /// A pull request was merged.
        PrMerged(PullRequest) = "pr_merged",
        /// A check failed.
        CiFailed(CiFailed) = "ci_failed",
        /// Something is wrong in operation.
        Incident(Incident) = "incident",
        /// An agent lacks something that it needs.
        CapabilityGap(CapabilityGap) = "capability_gap",
    }
}

/// A run ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TaskDone {
    /// The run.
    pub run_id: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// How it ended.
    pub outcome: Outcome,
}

/// A run published a commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CodeCommitted {
    /// The run.
    pub run_id: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// The commit.
    pub work: Work,
}

/// The state of a pull request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PullRequest {
    /// Repository, `owner/name`.
    pub repository: String,
    /// Its number.
    pub number: u64,
    /// Its head commit.
    pub head_sha: String,
    /// Who opened it.
    pub author: String,
    /// Its title.
    pub title: String,
}

/// A check failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CiFailed {
    /// Repository, `owner/name`.
    pub repository: String,
    /// The commit.
    pub head_sha: String,
    /// The check's name.
    pub check: String,
    /// The forge's id of the attempt.
    pub forge_id: String,
}

/// Something is wrong in operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Incident {
    /// One line.
    pub title: String,
    /// Where it was seen.
    pub source: String,
    /// What is known.
    pub description: String,
}

/// An agent lacks something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CapabilityGap {
    /// The run.
    pub run_id: RunId,
    /// The agent.
    pub agent: AgentName,
    /// What it lacks.
    pub missing: String,
}

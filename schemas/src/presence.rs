//! The registry of agents, in KV `agents`: which runner can serve which agent, and how it is.
//!
//! Each runner says it of itself, again and again; what it does not repeat expires. So the registry is a projection of who
//! is there now, and can be lost: within seconds it is whole again.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentName, Class};

/// One agent at one runner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Presence {
    /// The runner's instance, as in `started` and `resumed`.
    pub runner: String,
    /// The agent that it can serve.
    pub agent: AgentName,
    /// Which kind of process it is.
    pub class: Class,
    /// What drives the agent there.
    pub harness: String,
    /// The model routes that the agent may use there, its own choice first.
    pub models: Vec<String>,
    /// The tools that it may call there.
    pub tools: Vec<String>,
    /// The repositories that it may work on there.
    pub repositories: Vec<String>,
    /// Runs of this agent that the runner holds.
    pub held: u64,
    /// Runs of all agents that it holds.
    pub load: u64,
    /// Runs of all agents that it holds at most.
    pub capacity: u64,
    /// What is not well there, one line each; empty when all is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// When the runner started.
    pub since: Timestamp,
}

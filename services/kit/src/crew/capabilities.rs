//! `agents/<name>/capabilities.yaml`: everything that an agent may do, and nothing else.

use schemars::JsonSchema;
use schemas::{AgentName, Class};
use serde::Deserialize;

use super::shape;

/// A tool that agents can be granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tool {
    /// Its name, in capabilities and to the model.
    pub name: &'static str,
    /// Whether it can be granted for reading alone.
    pub restrictable: bool,
}

/// The tools that the native harness has.
pub const TOOLS: [Tool; 8] = [
    Tool { name: "read", restrictable: false },
    Tool { name: "list", restrictable: false },
    Tool { name: "search", restrictable: false },
    Tool { name: "edit", restrictable: false },
    Tool { name: "write", restrictable: false },
    Tool { name: "shell", restrictable: true },
    Tool { name: "git", restrictable: true },
    Tool { name: "handoff", restrictable: false },
];

/// An agent's scope, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Nightcrew capabilities", rename = "Capabilities")]
pub(super) struct CapabilitiesFile {
    /// What drives the agent.
    harness: Harness,
    /// Routes of models.yaml that the agent may use; the first is its own choice.
    #[schemars(length(min = 1), with = "Vec<shape::Label>")]
    models: Vec<String>,
    /// Tools that the agent may call: a name, or a mapping that says more.
    tools: Vec<GrantFile>,
    /// Rooms of team.yaml in which the agent may be woken and may speak; the terminal is the room `terminal`.
    #[schemars(with = "Vec<shape::Label>")]
    rooms: Vec<String>,
    /// Repositories of team.yaml that the agent may work on.
    #[schemars(with = "Vec<shape::Label>")]
    repositories: Vec<String>,
    /// Whether the agent is served by a runner that stays up, or by a process of its own for each run.
    #[schemars(with = "Lifecycle")]
    lifecycle: Class,
    /// Agents to which this one may hand work.
    #[serde(default)]
    #[schemars(with = "Vec<shape::Label>")]
    handoff_to: Vec<AgentName>,
    /// What the agent may spend. Read and not yet enforced; the limits in team.yaml are.
    #[serde(default)]
    budgets: Budgets,
}

/// The schema of [`Class`], inline.
#[derive(JsonSchema)]
#[schemars(inline, rename_all = "snake_case")]
#[expect(dead_code, reason = "only its schema is used")]
enum Lifecycle {
    Resident,
    Ephemeral,
}

/// What drives an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Harness {
    /// Nightcrew's own loop.
    Native,
}

/// A granted tool, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(rename = "Grant")]
pub(super) enum GrantFile {
    /// The tool in full.
    Name(String),
    /// The tool under rules.
    Rules(GrantRules),
}

/// A granted tool under rules, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub(super) struct GrantRules {
    /// The tool's name.
    name: String,
    /// `read` grants what changes nothing: a shell on a read-only worktree, git without commits.
    #[serde(default)]
    #[schemars(with = "Access")]
    access: Option<Access>,
}

/// How much of a tool is granted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Access {
    /// What changes nothing.
    Read,
    /// All of it.
    Write,
}

/// What an agent may spend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct Budgets {
    /// Within one run.
    #[serde(default)]
    #[schemars(with = "RunBudget")]
    pub run: Option<RunBudget>,
}

/// What an agent may spend within one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(inline)]
pub struct RunBudget {
    /// Tokens of all kinds together.
    #[schemars(range(min = 1))]
    pub tokens: u64,
}

/// An agent's scope.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// What drives the agent.
    pub harness: Harness,
    /// Names of routes, never empty; the first is the agent's own choice.
    pub models: Vec<String>,
    /// Granted tools, each of [`TOOLS`] at most once.
    pub tools: Vec<Grant>,
    /// Names of rooms in which the agent may be woken and may speak.
    pub rooms: Vec<String>,
    /// Names of repositories that the agent may work on; the first is where it works unless told otherwise.
    pub repositories: Vec<String>,
    /// How its process lives.
    pub lifecycle: Class,
    /// To whom it may hand work.
    pub handoff_to: Vec<AgentName>,
    /// What it may spend.
    pub budgets: Budgets,
}

/// A granted tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The tool's name, one of [`TOOLS`].
    pub name: String,
    /// How much of it; always [`Access::Write`] for a tool that can not be restricted.
    pub access: Access,
}

impl Capabilities {
    /// How much of a tool the agent has; nothing when it is not granted.
    pub fn access(&self, tool: &str) -> Option<Access> {
        self.tools.iter().find(|grant| grant.name == tool).map(|grant| grant.access)
    }
}

impl From<CapabilitiesFile> for Capabilities {
    fn from(file: CapabilitiesFile) -> Self {
        Self {
            harness: file.harness,
            models: file.models,
            tools: file.tools.into_iter().map(Grant::from).collect(),
            rooms: file.rooms,
            repositories: file.repositories,
            lifecycle: file.lifecycle,
            handoff_to: file.handoff_to,
            budgets: file.budgets,
        }
    }
}

impl From<GrantFile> for Grant {
    fn from(file: GrantFile) -> Self {
        match file {
            GrantFile::Name(name) => Self { name, access: Access::Write },
            GrantFile::Rules(rules) => Self { name: rules.name, access: rules.access.unwrap_or(Access::Write) },
        }
    }
}

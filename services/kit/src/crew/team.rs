//! `team.yaml`: who is in the crew, where it is reached, and what stops it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use schemars::JsonSchema;
use schemas::{AgentName, ProjectId, RunId};
use serde::Deserialize;

use super::{channels::ChannelsFile, shape};

/// The team, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Nightcrew team", rename = "Team")]
pub(super) struct TeamFile {
    /// The project's name; it is also that of its account on the bus.
    #[schemars(with = "shape::Label")]
    pub(super) project: ProjectId,
    /// The zone in which days begin, such as Europe/Berlin or UTC.
    pub(super) time_zone: String,
    /// The agents of the crew. Each has a folder under agents/.
    #[schemars(length(min = 1))]
    pub(super) agents: Vec<MemberFile>,
    /// Repositories by name.
    #[serde(default)]
    #[schemars(with = "shape::ByLabel<RepositoryFile>")]
    pub(super) repositories: BTreeMap<String, RepositoryFile>,
    /// Where people reach the crew.
    #[serde(default)]
    pub(super) channels: ChannelsFile,
    /// What stops a run that goes nowhere.
    pub(super) limits: Limits,
    /// Where runs can be looked at.
    #[serde(default)]
    #[schemars(with = "ConsoleFile")]
    pub(super) console: Option<ConsoleFile>,
}

/// An agent of the crew.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Member")]
pub(super) struct MemberFile {
    /// Its name, and that of its folder under agents/.
    #[schemars(with = "shape::Label")]
    pub(super) name: AgentName,
    /// One line that others read when they choose whom to hand work to.
    #[serde(default)]
    #[schemars(with = "String", length(max = 200))]
    pub(super) description: Option<String>,
}

/// A repository, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Repository")]
pub(super) struct RepositoryFile {
    /// A path relative to the project folder, or an address that git can clone. Never with a password.
    #[schemars(with = "shape::RepositorySource")]
    source: String,
    /// The branch that work starts from.
    #[schemars(length(min = 1))]
    base: String,
}

/// Where runs can be looked at.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Console")]
pub(super) struct ConsoleFile {
    /// The address of a run, with `{run_id}` where its id belongs; answers carry it in their footer.
    pub(super) run_url: RunUrl,
}

/// A repository that agents work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it comes from.
    pub source: Source,
    /// The branch that work starts from.
    pub base: String,
}

/// Where a repository comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A folder on this machine.
    Path(PathBuf),
    /// An address that git can clone, without a password.
    Url(String),
}

/// The loop breakers: each ends a run with a typed reason.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Model calls of one run.
    #[schemars(range(min = 1))]
    pub max_steps: u32,
    /// How deep handoffs may nest: 1 lets the first agent hand off and nobody after it.
    pub max_handoff_depth: u32,
    /// Handoffs in one run tree.
    pub max_handoffs: u32,
    /// How often in a row the same handoff, or the same tool call with the same outcome, may repeat.
    #[schemars(range(min = 1))]
    pub max_repeats: u32,
    /// Wall-clock time of one run, waiting included.
    pub deadline: Deadline,
    /// Tokens of one run, of all kinds together.
    #[schemars(range(min = 1))]
    pub max_tokens: u64,
    /// Messages that agents may write in a room without one by a person in between. For agents that speak unasked: so far
    /// each speaks once a run, to answer a person.
    #[schemars(range(min = 1))]
    pub max_messages_without_human: u32,
}

/// The longest deadline: a run's credential lasts as long as its run may, and a stolen one is to be worth little.
pub const MAX_DEADLINE: Duration = Duration::from_hours(7 * 24);

/// The wall-clock time that a run may take, at most [`MAX_DEADLINE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(with = "shape::Duration")]
pub struct Deadline(pub Duration);

/// Text that is not a length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time")]
pub struct InvalidDeadline(pub String);

/// The address of a run, with a place for its id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunUrl(#[schemars(with = "shape::RunUrl")] String);

impl RepositoryFile {
    pub(super) fn resolve(self, dir: &Path) -> Repository {
        // What git itself takes for an address: a scheme, or `host:path` without a slash before the colon.
        let remote = self.source.contains("://")
            || self.source.split_once(':').is_some_and(|(host, _)| !host.is_empty() && !host.contains('/'));
        let source = if remote { Source::Url(self.source) } else { Source::Path(dir.join(self.source)) };
        Repository { source, base: self.base }
    }
}

impl TryFrom<String> for Deadline {
    type Error = InvalidDeadline;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let unit = match text.chars().next_back() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 60 * 60,
            Some('d') => 24 * 60 * 60,
            _ => return Err(InvalidDeadline(text)),
        };
        match text[..text.len() - 1].parse::<u32>() {
            Ok(count) => Ok(Self(Duration::from_secs(u64::from(count) * unit))),
            Err(_) => Err(InvalidDeadline(text)),
        }
    }
}

impl RunUrl {
    /// The address of `run`.
    pub fn of(&self, run: &RunId) -> String {
        self.0.replace("{run_id}", &run.to_string())
    }
}

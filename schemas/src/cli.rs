//! What `nightcrew` prints with `--json`, one type a command, so that scripts can be written against it.
//!
//! A command prints one JSON document. Those that go on printing (`say`, `timeline --follow`) print one a line.
//! `nightcrew timeline` prints a [`crate::timeline::Timeline`].

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    control::Control,
    dead::DeadLetter,
    event::Outcome,
    ids::{AgentName, EventId, ProjectId, RunId},
    presence::Presence,
    summary::RunSummary,
    timeline::Entry,
};

/// `nightcrew init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Initialised {
    /// The project.
    pub project: String,
    /// The folder with its keys and credentials.
    pub dir: String,
    /// The public key of its account.
    pub account: String,
    /// Whether they are new.
    pub keys: Keys,
    /// The files of a first crew that were written, because they were not there.
    pub written: Vec<String>,
    /// What the administrator of a NATS of the user's own has to load, and how; only when one was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

/// What became of a project's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Keys {
    /// There were none.
    Made,
    /// The keys are the same, and what is signed with them is new: a NATS of the user's own has to load it again.
    Updated,
    /// All was there.
    Kept,
}

/// `nightcrew up`, once every service has started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Running {
    /// The project.
    pub project: ProjectId,
    /// The crew.
    pub agents: Vec<AgentName>,
    /// The bus.
    pub nats_url: String,
    /// budget-proxy, the way to models.
    pub proxy_url: String,
    /// Model routes that the rehearsal model plays.
    pub rehearsed: Vec<String>,
    /// What is not well, a line each.
    pub problems: Vec<String>,
}

/// `nightcrew runs`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RunList {
    /// The latest runs that fit the filters, newest first.
    pub runs: Vec<RunSummary>,
    /// Whether there are older ones that fit.
    pub more: bool,
}

/// One line of `nightcrew timeline --follow`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FollowedEntry {
    /// The run that it belongs to: the one asked for, or with `--tree` one below it.
    pub run_id: RunId,
    /// That run's agent.
    pub agent: AgentName,
    /// What happened.
    pub entry: Entry,
}

/// One line of `nightcrew say`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Spoken {
    /// An agent was woken. There is one of these for each agent, before everything else.
    Woken {
        /// Who.
        agent: AgentName,
        /// Its run.
        run_id: RunId,
    },
    /// Something was said in answer.
    Said {
        /// The run that says it; absent when the bridge speaks for itself, such as about who can not be woken.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run_id: Option<RunId>,
        /// Markdown, its footer included. Untrusted.
        text: String,
    },
    /// A run has ended and its answer, if it had one, was delivered.
    Ended {
        /// The run.
        run_id: RunId,
        /// How.
        outcome: Outcome,
    },
}

/// `nightcrew agents`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentList {
    /// The crew, in the order of `team.yaml`.
    pub agents: Vec<AgentStatus>,
}

/// One agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AgentStatus {
    /// Its name.
    pub agent: AgentName,
    /// What it is for.
    pub description: String,
    /// Whether it may work.
    pub standing: Standing,
    /// The control message that is in force for it, whether to it or to all; absent when there never was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<Control>,
    /// Since when it is in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Whether a runner serves it: one of `runners`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub present: Option<bool>,
    /// The runners that serve it, as they said within the last seconds. An agent that needs a process of its own for each
    /// run has none.
    #[serde(default)]
    pub runners: Vec<Presence>,
    /// Its runs that have not ended.
    pub open_runs: u64,
}

/// Whether an agent may work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It may.
    Free,
    /// It takes no step until resumed.
    Paused,
    /// It refuses wakes, and its runs end at their next step.
    Stopped,
    /// It refuses wakes, and its runs end at once.
    Killed,
}

/// `nightcrew pause`, `resume`, `stop` and `cancel`: what was told, to whom. It is in the log; what comes of it is the
/// runner's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Told {
    /// One an addressee.
    pub told: Vec<Message>,
}

/// One message that was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// `pause`, `resume`, `stop`, `kill` or `cancel`.
    pub what: String,
    /// An agent, `all`, or a run.
    pub to: String,
    /// The message's id.
    pub id: EventId,
    /// Its sequence in its stream.
    pub sequence: u64,
}

/// `nightcrew retry`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Retried {
    /// The new run.
    pub run_id: RunId,
    /// The run that it tries again, which is its parent.
    pub of: RunId,
    /// The agent.
    pub agent: AgentName,
}

/// `nightcrew state save`. The file is a [`crate::state::SavedState`], which `nightcrew state show --json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StateSaved {
    /// Where it is.
    pub file: String,
    /// Its size.
    pub bytes: u64,
    /// Whose it is.
    pub agent: AgentName,
    /// The run.
    pub run_id: RunId,
    /// The last message of the run's journal that is in it.
    pub sequence: u64,
}

/// `nightcrew dead list`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadList {
    /// Parked messages, oldest first.
    pub parked: Vec<ParkedLetter>,
    /// Whether there are newer ones.
    pub more: bool,
}

/// A parked message; `nightcrew dead show` prints one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ParkedLetter {
    /// What a person names it by.
    pub number: u64,
    /// When it was parked.
    pub parked_at: Timestamp,
    /// The message and why it is parked.
    pub letter: DeadLetter,
}

/// `nightcrew dead replay` and `dead drop`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadResults {
    /// One a message, in the order in which they were done.
    pub results: Vec<DeadResult>,
}

/// What became of a parked message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadResult {
    /// Its number.
    pub number: u64,
    /// What.
    pub result: DeadOutcome,
    /// Why it is still parked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What became of a parked message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeadOutcome {
    /// Its service handled it.
    Handled,
    /// It was published again.
    Published,
    /// What it would have started was there already.
    AlreadyThere,
    /// It was forgotten.
    Dropped,
    /// Nothing: it is still parked.
    StillParked,
}

/// `nightcrew rebuild`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rebuilt {
    /// Summaries that were made anew from the log.
    pub runs: u64,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// `nightcrew doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Diagnosis {
    /// Whether nothing that is needed is missing.
    pub healthy: bool,
    /// Every check, in the order in which things build on each other.
    pub checks: Vec<Examined>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Examined {
    /// What, a stable name such as `nats-server`.
    pub check: String,
    /// How it is.
    pub verdict: Verdict,
    /// Its version, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What was found.
    pub found: String,
    /// What to do about it; absent when there is nothing to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How a thing is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Nightcrew works without it, with less.
    Weak,
    /// Nightcrew does not work without it.
    Bad,
    /// It could not be looked at, because something before it is bad or it is not wanted now.
    Skipped,
}

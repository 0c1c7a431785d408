//! What starts a run, and the natural key that makes the same trigger the same run.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{EventId, RunId};

/// What woke an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "source", rename_all = "snake_case")]
pub enum Trigger {
    /// A message in a chat channel; an edit keeps the original's event id.
    Chat {
        /// The channel, such as `matrix` or `terminal`.
        channel: String,
        /// The room's id in that channel.
        room: String,
        /// The message's id in that channel.
        event_id: String,
        /// Who wrote it, as the channel names people.
        sender: String,
    },
    /// A person's bare command; each one is a run of its own.
    Command {
        /// Who gave it.
        by: String,
        /// A UUIDv7 made for this command.
        key: String,
    },
    /// A slot of a schedule.
    Schedule {
        /// The schedule's name.
        schedule: String,
        /// The version of its definition.
        version: u64,
        /// The nominal slot.
        slot: Timestamp,
    },
    /// The state of a pull request.
    PullRequest {
        /// Repository, `owner/name`.
        repository: String,
        /// Number of the pull request.
        number: u64,
        /// Its head commit.
        head_sha: String,
        /// What happened, such as `opened`.
        action: String,
    },
    /// A comment, review or check attempt of a forge.
    Forge {
        /// Repository, `owner/name`.
        repository: String,
        /// The forge's id of the thing.
        forge_id: String,
    },
    /// A public event.
    Event {
        /// Its `ce-id`.
        event_id: EventId,
    },
    /// Another run's handoff.
    Handoff {
        /// The run that hands off.
        parent_run_id: RunId,
        /// The model reply that decided it.
        decision_id: EventId,
        /// Which tool call of that reply.
        index: u32,
        /// That call's id, which the child's end answers.
        call_id: String,
    },
    /// A retry of an ended run; each one is a run of its own.
    Retry {
        /// The run that is tried again.
        of: RunId,
        /// Who asked for it.
        by: String,
        /// A UUIDv7 made for this retry.
        key: String,
    },
}

impl Trigger {
    /// The source's name, the first part of the hashed name.
    pub const fn source(&self) -> &'static str {
        match self {
            Self::Chat { .. } => "chat",
            Self::Command { .. } => "command",
            Self::Schedule { .. } => "schedule",
            Self::PullRequest { .. } => "pull_request",
            Self::Forge { .. } => "forge",
            Self::Event { .. } => "event",
            Self::Handoff { .. } => "handoff",
            Self::Retry { .. } => "retry",
        }
    }

    /// The parts that identify the trigger. Who reported it, and how, is not among them.
    pub fn natural_key(&self) -> Vec<String> {
        match self {
            Self::Chat { channel, room, event_id, .. } => vec![channel.clone(), room.clone(), event_id.clone()],
            Self::Command { key, .. } | Self::Retry { key, .. } => vec![key.clone()],
            Self::Schedule { schedule, version, slot } => {
                vec![schedule.clone(), version.to_string(), slot.to_string()]
            }
            Self::PullRequest { repository, number, head_sha, action } => {
                vec![repository.clone(), number.to_string(), head_sha.clone(), action.clone()]
            }
            Self::Forge { repository, forge_id } => vec![repository.clone(), forge_id.clone()],
            Self::Event { event_id } => vec![event_id.to_string()],
            Self::Handoff { parent_run_id, decision_id, index, .. } => {
                vec![parent_run_id.to_string(), decision_id.to_string(), index.to_string()]
            }
        }
    }
}

/// Where an answer goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReplyTo {
    /// The channel, a subject token.
    pub channel: String,
    /// The room's id in that channel.
    pub room: String,
    /// The message that roots the thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
}

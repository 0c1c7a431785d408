//! Facts for a run from others, on `swarm.signal.<run_id>.<name>`; the name is the kind.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{content::Text, event, ids::EventId, kinds::kinds};

kinds! {
    /// One signal.
    pub enum Signal {
        /// A message that the run said is in its channel.
        Delivered(Delivered) = "delivered",
        /// A message that the run said was refused by its channel, and is parked.
        Undelivered(Undelivered) = "undelivered",
        /// An effect that the run decided is done outside.
        EffectDone(EffectDone) = "effect_done",
        /// A person or policy decided about an approval.
        ApprovalDecided(event::ApprovalDecided) = "approval_decided",
        /// A child run ended.
        ChildEnded(event::ChildEnded) = "child_ended",
        /// The run's deadline, or the end of its wait, has come.
        Deadline(Deadline) = "deadline",
        /// A pause is over.
        Unpaused(ByWhom) = "unpaused",
        /// Somebody calls the run off.
        Cancel(ByWhom) = "cancel",
        /// Somebody says something to the run.
        Message(Message) = "message",
        /// The Job of an ephemeral run is gone.
        JobExited(JobExited) = "job_exited",
    }
}

/// A message is in its channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Delivered {
    /// The `ce-id` of the decision that said it.
    pub decision_id: EventId,
    /// The channel.
    pub channel: String,
    /// The room.
    pub room: String,
    /// The message's id in the channel, such as a Matrix event id.
    pub external_id: String,
}

impl Delivered {
    /// The id of a message that nobody was there to see, in a channel that keeps none.
    pub const UNATTENDED: &'static str = "unattended";
}

/// A message was refused by its channel. A person may mend the cause and replay it: then `delivered` follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Undelivered {
    /// The `ce-id` of the decision that said it.
    pub decision_id: EventId,
    /// The channel.
    pub channel: String,
    /// The room.
    pub room: String,
    /// Why.
    pub reason: String,
}

/// An effect is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EffectDone {
    /// The `ce-id` of the decision that wanted it.
    pub decision_id: EventId,
    /// The outside system.
    pub system: String,
    /// The thing's id in that system.
    pub external_id: String,
}

/// A point in time has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Deadline {
    /// Which.
    pub at: Timestamp,
}

/// Who did it and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ByWhom {
    /// Who.
    pub by: String,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

/// Something said to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Message {
    /// Who.
    pub from: String,
    /// What.
    pub text: Text,
}

/// The Job of an ephemeral run is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobExited {
    /// The Job's name.
    pub job: String,
    /// Exit code of its container, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Why, as the launcher saw it.
    pub reason: String,
}

//! A channel: where people and agents talk. The core knows these two traits and no chat system.
//!
//! A channel numbers what it receives by a position of its own. [`Receive::commit`] is called once everything in a
//! batch has had its consequences, and a channel that starts again begins after the last position that was committed.
//! So nothing is lost, and what comes twice has the same ids.

use std::{fmt, future::Future, time::Duration};

use schemas::{AgentName, RunId};
use serde::{Deserialize, Serialize};

use crate::domain::inbound::{IncomingMessage, Tell};

/// What happened in all rooms of a channel up to a position.
#[derive(Debug, Clone, Default)]
pub struct Batch {
    /// What was written, in the order of each room.
    pub messages: Vec<IncomingMessage>,
    /// What the channel itself wants to have said, such as that something could not be read.
    pub notices: Vec<Tell>,
}

/// A run that a message of a batch belongs to, whether it was started by it just now or before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The message's own id.
    pub event_id: String,
    /// The agent.
    pub agent: AgentName,
    /// The run.
    pub run_id: RunId,
}

/// A message of a thread, for an agent that is woken in the middle of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadLine {
    /// The message's id.
    pub event_id: String,
    /// Who.
    pub sender: String,
    /// What.
    pub text: String,
}

/// Receives what people write.
pub trait Receive: Send + Sync {
    /// The channel's name, a subject token.
    fn name(&self) -> &'static str;

    /// Waits for the next batch. Gives the same batch again until it is committed. Not to be dropped halfway unless
    /// the channel is closed.
    fn next(&mut self) -> impl Future<Output = Result<Batch, ReceiveError>> + Send;

    /// Keeps the position behind the batch that `next` gave last, of which `started` came.
    fn commit(&mut self, started: &[Started]) -> impl Future<Output = Result<(), ReceiveError>> + Send;

    /// What was said in a thread, its root first; a bounded tail of it when it is long. [`ReceiveError::Refused`] when this
    /// thread can not be read, however often it is tried, and [`ReceiveError::Ill`] when nobody knows.
    fn thread(&self, room: &str, root: &str) -> impl Future<Output = Result<Vec<ThreadLine>, ReceiveError>> + Send;
}

/// Brings messages into rooms.
pub trait Deliver: Send + Sync {
    /// Sends `message`, once however often it is called with the same id, and gives the message's id in the channel.
    fn deliver(&self, message: &Outgoing) -> impl Future<Output = Result<String, DeliverError>> + Send;
}

/// One message to a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outgoing {
    /// Derives from what is said: the same id is the same message.
    pub id: String,
    /// The room's id in the channel, or its name in `team.yaml`.
    pub room: String,
    /// The message that roots the thread.
    pub thread: Option<String>,
    /// What.
    pub body: Body,
    /// The run that it is about.
    pub run_id: Option<RunId>,
    /// Whether nobody need be called for it: what the bridge says for itself.
    pub notice: bool,
    /// Whether it may have been sent before, longer ago than the channel itself remembers.
    pub maybe_sent: bool,
}

/// What is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Markdown.
    Text(String),
    /// A text file.
    File {
        /// Its name.
        name: String,
        /// Its content.
        text: String,
    },
}

/// A channel can not receive.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// It will not work again without a person: a revoked token, a wrong password, a thread that is broken.
    #[error("the channel {channel} refuses us")]
    Refused {
        /// The channel.
        channel: &'static str,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// It can not go on in this process; started anew, it reads what was not committed.
    #[error("the channel {channel} is broken")]
    Broken {
        /// The channel.
        channel: &'static str,
        /// What happened.
        #[source]
        source: Cause,
    },
    /// It answers that it can not do this just now: for some minutes, or for good when it is ill of just this.
    #[error("the channel {channel} is ill")]
    Ill {
        /// The channel.
        channel: &'static str,
        /// What it said.
        #[source]
        source: Cause,
    },
    /// It may work later.
    #[error("the channel {channel} can not be read now")]
    Unavailable {
        /// The channel.
        channel: &'static str,
        /// What happened.
        #[source]
        source: Cause,
    },
}

/// A message can not be delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliverError {
    /// Never, as it is: no such room, not a member, forbidden.
    #[error("the room {room} does not take the message")]
    Refused {
        /// The room.
        room: String,
        /// What the channel said.
        #[source]
        source: Cause,
    },
    /// Perhaps later.
    #[error("the room {room} can not be reached now")]
    Unavailable {
        /// The room.
        room: String,
        /// How long the channel asks to wait.
        retry_after: Option<Duration>,
        /// What happened.
        #[source]
        source: Cause,
    },
}

/// What a channel's library said.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A cause in our own words.
#[derive(Debug)]
pub struct Said(pub String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Said {}

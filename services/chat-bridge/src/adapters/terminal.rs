//! The terminal: `nightcrew say`, over core requests on the bus.
//!
//! A [`Session`] is one command line. It asks `swarm.ask.chat-bridge.say`, which answers with the runs that the message
//! belongs to once they are in the log, and it listens on `swarm.ask.nightcrew.<session>` for what is said in its room,
//! which is the session itself. Nothing is stored here: a message that was not answered is asked again with the same id,
//! which is the same runs, and what is said when nobody listens any more is in the log, where `nightcrew timeline`
//! shows it.
//!
//! Boundary: knows requests, not runs or journals.

mod receive;
mod send;
mod session;

use std::time::Duration;

use jiff::Timestamp;
use schemas::{
    RunId, Subject,
    ids::{InvalidName, Token},
};
use serde::{Deserialize, Serialize};

use crate::ports::{Started, ThreadLine};

pub use receive::Receiver;
pub use send::Sender;
pub use session::{Session, SessionError};

/// The channel's name.
pub const CHANNEL: &str = "terminal";

/// The service that is asked.
const BRIDGE: &str = "chat-bridge";

/// The service that a command line speaks as.
const COMMAND_LINE: &str = "nightcrew";

/// How long the other side of a request may take. The bridge answers when the log has the run, a terminal when it has
/// printed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// A person's message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Say {
    /// The session: a subject token, where the answers go.
    pub session: String,
    /// The message's id, unique for ever: the same id is the same message.
    pub event_id: String,
    /// Who.
    pub sender: String,
    /// The message that roots the thread, for a follow-up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// What was said in that thread before, as the session saw it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<ThreadLine>,
    /// What.
    pub text: String,
    /// When.
    pub at: Timestamp,
}

/// The bridge's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The runs that the message belongs to; what else there is to say comes as [`Said`].
    pub runs: Vec<Started>,
}

/// What is said in a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Said {
    /// Its id; the same id is the same message.
    pub id: String,
    /// The thread.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thread: Option<String>,
    /// The run that says it; absent when the bridge speaks for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Markdown.
    pub text: String,
}

fn say_subject() -> Result<Subject, InvalidName> {
    Ok(Subject::Ask(Token::try_new(BRIDGE)?, Token::try_new("say")?))
}

fn session_subject(session: &str) -> Result<Subject, InvalidName> {
    Ok(Subject::Ask(Token::try_new(COMMAND_LINE)?, Token::try_new(session)?))
}

//! What a message in a room leads to.
//!
//! - A message wakes the agents that it names; in a room that listens to all, or when it mentions the crew's account,
//!   and names nobody, it wakes the room's default agent.
//! - An edit is decided like a message and keeps the original's id: it wakes an agent that the original did not wake,
//!   and corrects the run of one that it did.
//! - A redaction calls the runs of the redacted message off.
//! - A stranger is ignored without an answer, so that nobody can make the crew speak who may not.
//! - Whatever an allowed person addresses to the crew and can not be routed is said back.

use std::collections::BTreeSet;

use jiff::Timestamp;
use schemas::{AgentName, trigger::ReplyTo};

use super::{
    address,
    rules::{Listen, RoomRules, Rules},
};

/// Longest prompt in bytes. Matrix allows 64 KiB an event; other channels are held to four times that.
pub const MAX_PROMPT_BYTES: usize = 256 * 1024;

/// Something that happened in a room, as any channel can tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingMessage {
    /// The channel.
    pub channel: String,
    /// The room's id in the channel.
    pub room: String,
    /// The room's name in the configuration, when it has one.
    pub room_name: Option<String>,
    /// The event's own id in the channel.
    pub event_id: String,
    /// Who, as the channel names people.
    pub sender: String,
    /// The message that roots the thread in which it stands.
    pub thread_root: Option<String>,
    /// Whether the channel says that the crew's account is mentioned.
    pub mentions_account: bool,
    /// What happened.
    pub kind: Kind,
    /// What was written.
    pub content: Content,
    /// When, by the channel's clock.
    pub at: Timestamp,
}

/// What happened to a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// It was written.
    New,
    /// Its author replaced the message `of`.
    Edit {
        /// The original.
        of: String,
    },
    /// The message `of` was taken back.
    Redaction {
        /// The original.
        of: String,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Text.
    Text(String),
    /// Something that agents can not read, such as `image`.
    Other(&'static str),
    /// Nothing, as in a redaction.
    Nothing,
}

/// What follows from a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Wake an agent.
    Wake(Wake),
    /// Call off what a message has started.
    CallOff {
        /// The message that was taken back.
        of: String,
        /// The agents that it may have woken.
        agents: BTreeSet<AgentName>,
    },
    /// A wake that the room's rules do not allow: it is kept for an operator, and said back.
    Unroutable {
        /// What was wanted.
        wake: Wake,
        /// Why not, for programs.
        code: &'static str,
        /// Why not, for people.
        reason: String,
    },
    /// Say something back; nothing is started.
    Tell(Tell),
    /// Nothing.
    Ignore(Why),
}

/// One agent, woken by one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wake {
    /// Who.
    pub agent: AgentName,
    /// What it is asked.
    pub prompt: String,
    /// The message's natural key: its id, or for an edit the original's.
    pub event_id: String,
    /// Whether this corrects an earlier message.
    pub edit: bool,
    /// Whether the message named nobody, so that the room's default agent stands in.
    pub by_default: bool,
    /// Where the answer goes.
    pub reply_to: ReplyTo,
}

/// A word from the bridge itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tell {
    /// The room's id.
    pub room: String,
    /// The thread.
    pub thread: Option<String>,
    /// What this is about; the same thing is told once.
    pub key: String,
    /// Markdown.
    pub text: String,
}

/// Why nothing follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The room is not configured.
    UnknownRoom,
    /// The sender is not on the room's list.
    Stranger,
    /// The room is listen-only.
    ListenOnly,
    /// Nobody was addressed in a room that needs it.
    NotAddressed,
}

/// Decides about one message.
pub fn decide(rules: &Rules, message: &IncomingMessage) -> Vec<Decision> {
    if !rules.senders.allow(&message.sender) {
        return vec![Decision::Ignore(Why::Stranger)];
    }
    let Some(room) = rules.room(message.room_name.as_deref()) else {
        return vec![unknown_room(rules, message)];
    };
    if room.listen == Listen::Nothing {
        return vec![Decision::Ignore(Why::ListenOnly)];
    }
    if let Kind::Redaction { of } = &message.kind {
        return vec![Decision::CallOff { of: of.clone(), agents: room.agents.clone() }];
    }
    match &message.content {
        Content::Text(body) => decide_text(rules, room, message, body),
        Content::Other(what) if room.listen == Listen::All || message.mentions_account => {
            vec![tell(message, format!("I read text only, so I can not use this {what}."))]
        }
        Content::Other(_) | Content::Nothing => vec![Decision::Ignore(Why::NotAddressed)],
    }
}

/// Who takes up a thread whose follow-up named nobody: the agents that its first message named.
pub fn thread_agents(rules: &Rules, room_name: Option<&str>, root_body: &str) -> BTreeSet<AgentName> {
    let Some(room) = rules.room(room_name) else {
        return BTreeSet::new();
    };
    let named = address::addressed(root_body, &rules.crew, &account(rules));
    named.intersection(&room.agents).cloned().collect()
}

fn decide_text(rules: &Rules, room: &RoomRules, message: &IncomingMessage, body: &str) -> Vec<Decision> {
    let account = account(rules);
    let named = address::addressed(body, &rules.crew, &account);
    let mentioned = message.mentions_account || address::names_account(body, &account);
    if named.is_empty() && !mentioned && room.listen == Listen::Mentions {
        return vec![Decision::Ignore(Why::NotAddressed)];
    }
    if body.len() > MAX_PROMPT_BYTES {
        let text = format!("This message has {} bytes; I take {MAX_PROMPT_BYTES} at most.", body.len());
        return vec![tell(message, text)];
    }
    if named.is_empty() {
        return match &room.default_agent {
            Some(agent) => vec![Decision::Wake(wake(message, agent, body, true))],
            None => vec![tell(message, format!("Nobody answers here by default. {}", who_is_here(room)))],
        };
    }
    let mut decisions: Vec<Decision> =
        named.intersection(&room.agents).map(|agent| Decision::Wake(wake(message, agent, body, false))).collect();
    let absent: Vec<&AgentName> = named.difference(&room.agents).collect();
    decisions.extend(absent.iter().map(|agent| Decision::Unroutable {
        wake: wake(message, agent, body, false),
        code: "agent_not_in_room",
        reason: format!("{agent} may not be woken in the room {}", message.room),
    }));
    if !absent.is_empty() {
        let absent: Vec<String> = absent.iter().map(|agent| format!("**{agent}**")).collect();
        let text = format!("{} may not be woken in this room. {}", absent.join(" and "), who_is_here(room));
        decisions.push(tell(message, text));
    }
    decisions
}

/// A room that nobody configured gets one answer, and only when it asks for one.
fn unknown_room(rules: &Rules, message: &IncomingMessage) -> Decision {
    let Content::Text(body) = &message.content else {
        return Decision::Ignore(Why::UnknownRoom);
    };
    let account = account(rules);
    let meant = message.mentions_account
        || address::names_account(body, &account)
        || !address::addressed(body, &rules.crew, &account).is_empty();
    if !meant || message.kind != Kind::New {
        return Decision::Ignore(Why::UnknownRoom);
    }
    tell(message, "This room is not in the crew's `team.yaml`, so nobody can be woken here.".to_owned())
}

fn account(rules: &Rules) -> Vec<&str> {
    rules.account.iter().map(String::as_str).collect()
}

fn who_is_here(room: &RoomRules) -> String {
    let names: Vec<String> = room.agents.iter().map(|agent| format!("`@{agent}`")).collect();
    if names.is_empty() { "No agent may be woken here.".to_owned() } else { format!("Try {}.", names.join(", ")) }
}

fn wake(message: &IncomingMessage, agent: &AgentName, body: &str, by_default: bool) -> Wake {
    let (event_id, edit) = match &message.kind {
        Kind::Edit { of } => (of.clone(), true),
        Kind::New | Kind::Redaction { .. } => (message.event_id.clone(), false),
    };
    Wake {
        agent: agent.clone(),
        prompt: body.trim().to_owned(),
        edit,
        by_default,
        reply_to: ReplyTo {
            channel: message.channel.clone(),
            room: message.room.clone(),
            thread: Some(message.thread_root.clone().unwrap_or_else(|| event_id.clone())),
        },
        event_id,
    }
}

fn tell(message: &IncomingMessage, text: String) -> Decision {
    Decision::Tell(Tell {
        room: message.room.clone(),
        thread: Some(thread_of(message).to_owned()),
        key: message.event_id.clone(),
        text,
    })
}

/// The root of the thread in which a message is answered: its own, or one that begins with what it is about.
pub fn thread_of(message: &IncomingMessage) -> &str {
    message.thread_root.as_deref().unwrap_or(match &message.kind {
        Kind::Edit { of } | Kind::Redaction { of } => of,
        Kind::New => &message.event_id,
    })
}

#[cfg(test)]
mod tests;

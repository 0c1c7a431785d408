//! Who may speak to the crew, where, and what it takes to be heard.
//!
//! The rules are those of `team.yaml`, narrowed by each agent's own list of rooms. A room that is not in them is
//! refused.

use std::collections::{BTreeMap, BTreeSet};

use kit::crew::{Agent, Crew, Mode, TERMINAL_ROOM, UserPattern};
use schemas::AgentName;

/// What it takes in a room to wake an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// A message that names an agent or mentions the crew's account.
    Mentions,
    /// Every message.
    All,
    /// Nothing: agents only speak here.
    Nothing,
}

/// The people whom a channel listens to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Senders {
    /// Whoever the channel lets in.
    Anyone,
    /// Those whose ids fit; an empty list lets nobody in.
    Listed(Vec<UserPattern>),
}

impl Senders {
    /// Whether `sender` is one of them.
    pub fn allow(&self, sender: &str) -> bool {
        match self {
            Self::Anyone => true,
            Self::Listed(patterns) => patterns.iter().any(|pattern| pattern.matches(sender)),
        }
    }
}

/// The rules of one room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomRules {
    /// What wakes an agent here.
    pub listen: Listen,
    /// The agents that may be woken here.
    pub agents: BTreeSet<AgentName>,
    /// Who answers when nobody is named.
    pub default_agent: Option<AgentName>,
}

/// The rules of one channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Who may.
    pub senders: Senders,
    /// Every agent of the crew.
    pub crew: BTreeSet<AgentName>,
    /// By the room's name in `team.yaml`.
    pub rooms: BTreeMap<String, RoomRules>,
    /// Ways in which people write the crew's own account: its id, its display name.
    pub account: Vec<String>,
}

impl Rules {
    /// The rules of the crew's Matrix rooms. Without Matrix nobody is heard.
    pub fn matrix(crew: &Crew) -> Self {
        let matrix = crew.channels.matrix.as_ref();
        let rooms = matrix.iter().flat_map(|matrix| &matrix.rooms);
        let rooms = rooms.map(|room| {
            let listen = match room.mode {
                Mode::Mention => Listen::Mentions,
                Mode::All => Listen::All,
                Mode::Listen => Listen::Nothing,
            };
            (room.name.clone(), RoomRules::narrowed(crew, &room.name, listen, &room.agents, room.default.as_ref()))
        });
        Self {
            senders: Senders::Listed(matrix.map(|matrix| matrix.allow.clone()).unwrap_or_default()),
            crew: names(crew),
            rooms: rooms.collect(),
            account: matrix.map(|matrix| account(crew, &matrix.user)).unwrap_or_default(),
        }
    }

    /// The rules of the terminal: whoever reaches it may speak, and every message is heard. Without a terminal in
    /// `team.yaml` there is no room.
    pub fn terminal(crew: &Crew) -> Self {
        let rooms = crew.channels.terminal.iter().map(|terminal| {
            let default = terminal.default.as_ref();
            let rules = RoomRules::narrowed(crew, TERMINAL_ROOM, Listen::All, &terminal.agents, default);
            (TERMINAL_ROOM.to_owned(), rules)
        });
        Self { senders: Senders::Anyone, crew: names(crew), rooms: rooms.collect(), account: Vec::new() }
    }

    /// The rules of the room, whose configured name is `name` when it has one.
    pub fn room(&self, name: Option<&str>) -> Option<&RoomRules> {
        name.and_then(|name| self.rooms.get(name))
    }

    /// Whether anything that `sender` writes in the room can lead to anything.
    pub fn hears(&self, name: Option<&str>, sender: &str) -> bool {
        self.room(name).is_some_and(|room| room.listen != Listen::Nothing) && self.senders.allow(sender)
    }
}

impl RoomRules {
    /// An agent must name the room among its own, too: the narrower of the two holds.
    fn narrowed(crew: &Crew, name: &str, listen: Listen, agents: &[AgentName], default: Option<&AgentName>) -> Self {
        let may = |agent: &&AgentName| crew.agent(agent).is_some_and(|agent| may_speak(agent, name));
        Self {
            listen,
            agents: agents.iter().filter(may).cloned().collect(),
            default_agent: default.filter(may).cloned(),
        }
    }
}

/// Whether `agent` may be woken and may speak in the room.
pub fn may_speak(agent: &Agent, room_name: &str) -> bool {
    agent.capabilities.rooms.iter().any(|room| room == room_name)
}

/// A user's id and the first part of it, which clients show until somebody sets a display name. An agent's name stays
/// the agent's.
fn account(crew: &Crew, user: &str) -> Vec<String> {
    let local = user.trim_start_matches('@').split(':').next().unwrap_or_default();
    let taken = crew.agents.iter().any(|agent| agent.name.as_str().eq_ignore_ascii_case(local));
    std::iter::once(user).chain((!taken).then_some(local)).map(ToOwned::to_owned).collect()
}

fn names(crew: &Crew) -> BTreeSet<AgentName> {
    crew.agents.iter().map(|agent| agent.name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_lets_in_whom_it_names_and_an_empty_one_nobody() {
        let senders = Senders::Listed(vec![UserPattern::new("@ada:a.org"), UserPattern::new("@*:b.org")]);
        assert!(senders.allow("@ada:a.org"));
        assert!(senders.allow("@anyone:b.org"));
        assert!(!senders.allow("@eve:a.org"));
        assert!(!Senders::Listed(Vec::new()).allow("@ada:a.org"));
        assert!(Senders::Anyone.allow("local"));
    }
}

//! The users that an account has: one a service, and one that sets streams up.

use std::fmt;

/// Who connects to the bus. Each has a user of its own, named like it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Runs agents and holds runs.
    AgentRunner,
    /// The only way to a model.
    BudgetProxy,
    /// Rooms of people.
    ChatBridge,
    /// Mints the credentials of runs.
    Issuer,
    /// Timelines, summaries, archive.
    RunCorrelator,
    /// The command line: a person at the terminal.
    Nightcrew,
    /// Creates and upgrades streams and buckets when the crew starts, and does nothing else.
    Setup,
}

impl Service {
    /// All of them, in the order in which they are written and printed.
    pub const ALL: [Self; 7] = [
        Self::AgentRunner,
        Self::BudgetProxy,
        Self::ChatBridge,
        Self::Issuer,
        Self::RunCorrelator,
        Self::Nightcrew,
        Self::Setup,
    ];

    /// Its name: of the user, the credentials file, the inbox prefix and the start of its consumers' names.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentRunner => "agent-runner",
            Self::BudgetProxy => "budget-proxy",
            Self::ChatBridge => "chat-bridge",
            Self::Issuer => "issuer",
            Self::RunCorrelator => "run-correlator",
            Self::Nightcrew => "nightcrew",
            Self::Setup => "setup",
        }
    }

    /// The prefix that a connection must set for its inboxes (`ConnectOptions::custom_inbox_prefix`):
    /// it may subscribe to no other inbox, so nobody reads another's replies.
    pub fn inbox_prefix(self) -> String {
        format!("_INBOX.{}", self.name())
    }

    /// The service of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.name() == name)
    }
}

/// A fresh name for a consumer that only reads, such as an ordered one, of the service of that name.
///
/// `SWARM` and every other stream with durable consumers refuses one without a name, which could be anybody's.
pub fn reader_name(service: &str) -> String {
    format!("{service}-{:016x}", rand::random::<u64>())
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

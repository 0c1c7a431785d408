//! The durable consumers of all services, in one table: name, owner, what it reads and how long a message may be in hand.
//!
//! `streams::ensure` makes them, `consume::run` reads them. The bus lets only the owner touch a consumer of its name,
//! so a name here must also be among [`crate::identity::durables`] of its owner; a test sees to it.

use std::time::Duration;

use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use schemas::subject::filter;
use schemas::{Class, ids::Token};

use crate::identity::Service;

/// How long a wake may go without a sign of life: a run whose runner is lost waits this long for the next one.
const WAKE_ACK_WAIT: Duration = Duration::from_secs(3);

/// How long another message may be in hand without a sign of life. Its handler calls a chat server or folds a summary.
const ACK_WAIT: Duration = Duration::from_secs(30);

/// Wakes and signals that may be in hand at once over all runners: each held run is one, so this is far above what
/// any crew holds. At the limit the server would stop waking anybody.
const HELD_AT_ONCE: i64 = 20_000;

/// Messages in hand at once where each is short work.
const IN_HAND_AT_ONCE: i64 = 1_000;

/// A durable pull consumer.
#[derive(Clone, Copy, Debug)]
pub struct Durable {
    /// Its name, which starts with the owner's.
    pub name: &'static str,
    /// Who reads it.
    pub owner: Service,
    /// The stream it reads.
    pub stream: &'static str,
    /// The subjects it reads.
    pub filters: fn() -> Vec<String>,
    /// How long a message may be in hand without a sign of life before it is delivered again.
    pub ack_wait: Duration,
    /// Messages in hand at once, over all instances of the owner.
    pub max_ack_pending: i64,
}

/// The requests that start resident runs.
pub const RUNNER_WAKE: Durable = Durable {
    name: "agent-runner-wakes",
    owner: Service::AgentRunner,
    stream: "SWARM",
    filters: || vec![filter::requested(Class::Resident)],
    ack_wait: WAKE_ACK_WAIT,
    max_ack_pending: HELD_AT_ONCE,
};

/// The signals for runs: the second source of wakes.
pub const RUNNER_SIGNAL: Durable = Durable {
    name: "agent-runner-signals",
    owner: Service::AgentRunner,
    stream: "SWARM",
    filters: || vec![filter::SIGNALS.to_owned()],
    ack_wait: WAKE_ACK_WAIT,
    max_ack_pending: HELD_AT_ONCE,
};

/// The ticks of deadlines and waits.
pub const RUNNER_DUE: Durable = Durable {
    name: "agent-runner-due",
    owner: Service::AgentRunner,
    stream: "SCHEDULES",
    filters: || vec![filter::DUE.to_owned()],
    ack_wait: WAKE_ACK_WAIT,
    max_ack_pending: HELD_AT_ONCE,
};

/// What runs say in Matrix rooms.
pub const CHAT_MATRIX: Durable = Durable {
    name: "chat-bridge-matrix",
    owner: Service::ChatBridge,
    stream: "SWARM",
    filters: || say("matrix"),
    ack_wait: ACK_WAIT,
    max_ack_pending: IN_HAND_AT_ONCE,
};

/// What runs say at the terminal.
pub const CHAT_TERMINAL: Durable = Durable {
    name: "chat-bridge-terminal",
    owner: Service::ChatBridge,
    stream: "SWARM",
    filters: || say("terminal"),
    ack_wait: ACK_WAIT,
    max_ack_pending: IN_HAND_AT_ONCE,
};

/// What all runs decide, for the audit room.
pub const CHAT_AUDIT: Durable = Durable {
    name: "chat-bridge-audit",
    owner: Service::ChatBridge,
    stream: "SWARM",
    filters: || vec![filter::RUNS.to_owned()],
    ack_wait: ACK_WAIT,
    max_ack_pending: IN_HAND_AT_ONCE,
};

/// What all runs decide, for their summaries and archives. Timelines read signals and calls when they are asked for.
pub const CORRELATOR_RUNS: Durable = Durable {
    name: "run-correlator-runs",
    owner: Service::RunCorrelator,
    stream: "SWARM",
    filters: || vec![filter::RUNS.to_owned()],
    ack_wait: ACK_WAIT,
    max_ack_pending: IN_HAND_AT_ONCE,
};

/// All of them.
pub const ALL: [Durable; 7] =
    [RUNNER_WAKE, RUNNER_SIGNAL, RUNNER_DUE, CHAT_MATRIX, CHAT_TERMINAL, CHAT_AUDIT, CORRELATOR_RUNS];

/// The consumer of what runs say in a channel, when there is one.
pub fn chat(channel: &str) -> Option<Durable> {
    match channel {
        "matrix" => Some(CHAT_MATRIX),
        "terminal" => Some(CHAT_TERMINAL),
        _ => None,
    }
}

fn say(channel: &str) -> Vec<String> {
    Token::try_new(channel).iter().map(filter::say).collect()
}

impl Durable {
    /// Its configuration. Deliveries are unlimited: attempts are counted by whoever gets them.
    pub fn config(&self, replicas: usize) -> pull::Config {
        let mut filters = (self.filters)();
        let single = if filters.len() == 1 { filters.remove(0) } else { String::new() };
        pull::Config {
            durable_name: Some(self.name.to_owned()),
            deliver_policy: DeliverPolicy::All,
            ack_policy: AckPolicy::Explicit,
            ack_wait: self.ack_wait,
            max_deliver: -1,
            filter_subject: single,
            filter_subjects: filters,
            replay_policy: ReplayPolicy::Instant,
            max_ack_pending: self.max_ack_pending,
            num_replicas: replicas,
            ..pull::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::durables;

    #[test]
    fn every_consumer_is_its_owners_alone() {
        for consumer in ALL {
            assert!(durables(consumer.owner).contains(&consumer.name), "{}", consumer.name);
        }
    }

    #[test]
    fn every_consumer_reads_something() {
        for consumer in ALL {
            assert!(!(consumer.filters)().is_empty(), "{}", consumer.name);
        }
    }
}

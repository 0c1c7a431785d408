//! The only code that builds or parses a subject.

use std::{fmt, str::FromStr};

use crate::ids::{AgentName, Class, InvalidName, RunId, Token};

/// A subject of the bus. What each carries is in the design's subject table.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `swarm.run.<run_id>.requested.<class>.<agent>`: the first message of a run and the command to start it.
    Requested(RunId, Class, AgentName),
    /// `swarm.run.<run_id>.event`: decisions without a command.
    Journal(RunId),
    /// `swarm.run.<run_id>.say.<channel>`: a decision that says something in a channel.
    Say(RunId, Token),
    /// `swarm.run.<run_id>.effect.<system>`: a decision that does something outside.
    Effect(RunId, Token),
    /// `swarm.signal.<run_id>.<name>`: a fact for a run from others.
    Signal(RunId, Token),
    /// `swarm.call.<run_id>`: a model call as seen on the wire.
    Call(RunId),
    /// `swarm.events.<name>`: a public fact.
    Event(Token),
    /// `swarm.control.<agent>` or `swarm.control.all`.
    Control(Target),
    /// `swarm.ask.<service>.<operation>`: a typed core request, nothing stored.
    Ask(Token, Token),
    /// `swarm.hold.<run_id>`: asks whoever holds a run to say so.
    Hold(RunId),
    /// `swarm.schedule.due.<run_id>`: the tick of a run's deadline or wait.
    Due(RunId),
    /// `swarm.schedule.at.<run_id>`: the definition that fires [`Subject::Due`].
    DueAt(RunId),
    /// `swarm.ledger.<scope>`.
    Ledger(Token),
    /// `swarm.usage.<scope>`.
    Usage(Token),
    /// `swarm.audit.<service>`.
    Audit(Token),
    /// `swarm.memory.<type>.<id>`.
    Memory(Token, Token),
    /// `swarm.dead.<source>`: what could not be handled.
    Dead(Token),
}

/// Whom a control message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Target {
    /// Every agent.
    All,
    /// One agent.
    Agent(AgentName),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Agent(agent) => agent.fmt(f),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested(run, class, agent) => {
                write!(f, "swarm.run.{run}.requested.{}.{agent}", class.as_str())
            }
            Self::Journal(run) => write!(f, "swarm.run.{run}.event"),
            Self::Say(run, channel) => write!(f, "swarm.run.{run}.say.{channel}"),
            Self::Effect(run, system) => write!(f, "swarm.run.{run}.effect.{system}"),
            Self::Signal(run, name) => write!(f, "swarm.signal.{run}.{name}"),
            Self::Call(run) => write!(f, "swarm.call.{run}"),
            Self::Event(name) => write!(f, "swarm.events.{name}"),
            Self::Control(target) => write!(f, "swarm.control.{target}"),
            Self::Ask(service, operation) => write!(f, "swarm.ask.{service}.{operation}"),
            Self::Hold(run) => write!(f, "swarm.hold.{run}"),
            Self::Due(run) => write!(f, "swarm.schedule.due.{run}"),
            Self::DueAt(run) => write!(f, "swarm.schedule.at.{run}"),
            Self::Ledger(scope) => write!(f, "swarm.ledger.{scope}"),
            Self::Usage(scope) => write!(f, "swarm.usage.{scope}"),
            Self::Audit(service) => write!(f, "swarm.audit.{service}"),
            Self::Memory(kind, id) => write!(f, "swarm.memory.{kind}.{id}"),
            Self::Dead(source) => write!(f, "swarm.dead.{source}"),
        }
    }
}

/// A subject that is not one of ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSubject {
    /// Its shape is unknown.
    #[error("{0:?} is not a subject of Nightcrew")]
    Shape(String),
    /// A token in it is not valid.
    #[error("a token of the subject is not valid")]
    Token(#[from] InvalidName),
}

impl FromStr for Subject {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let tokens: Vec<&str> = text.split('.').collect();
        Ok(match tokens.as_slice() {
            ["swarm", "run", run, "requested", class, agent] => {
                let class = match *class {
                    "resident" => Class::Resident,
                    "ephemeral" => Class::Ephemeral,
                    _ => return Err(InvalidSubject::Shape(text.to_owned())),
                };
                Self::Requested(run.parse()?, class, agent.parse()?)
            }
            ["swarm", "run", run, "event"] => Self::Journal(run.parse()?),
            ["swarm", "run", run, "say", channel] => Self::Say(run.parse()?, channel.parse()?),
            ["swarm", "run", run, "effect", system] => Self::Effect(run.parse()?, system.parse()?),
            ["swarm", "signal", run, name] => Self::Signal(run.parse()?, name.parse()?),
            ["swarm", "call", run] => Self::Call(run.parse()?),
            ["swarm", "events", name] => Self::Event(name.parse()?),
            ["swarm", "control", "all"] => Self::Control(Target::All),
            ["swarm", "control", agent] => Self::Control(Target::Agent(agent.parse()?)),
            ["swarm", "ask", service, operation] => Self::Ask(service.parse()?, operation.parse()?),
            ["swarm", "hold", run] => Self::Hold(run.parse()?),
            ["swarm", "schedule", "due", run] => Self::Due(run.parse()?),
            ["swarm", "schedule", "at", run] => Self::DueAt(run.parse()?),
            ["swarm", "ledger", scope] => Self::Ledger(scope.parse()?),
            ["swarm", "usage", scope] => Self::Usage(scope.parse()?),
            ["swarm", "audit", service] => Self::Audit(service.parse()?),
            ["swarm", "memory", kind, id] => Self::Memory(kind.parse()?, id.parse()?),
            ["swarm", "dead", source] => Self::Dead(source.parse()?),
            _ => return Err(InvalidSubject::Shape(text.to_owned())),
        })
    }
}

impl Subject {
    /// The run in the subject, where there is one.
    pub const fn run_id(&self) -> Option<RunId> {
        match self {
            Self::Requested(run, ..)
            | Self::Journal(run)
            | Self::Say(run, _)
            | Self::Effect(run, _)
            | Self::Signal(run, _)
            | Self::Call(run)
            | Self::Hold(run)
            | Self::Due(run)
            | Self::DueAt(run) => Some(*run),
            _ => None,
        }
    }
}

/// Subject filters with wildcards, for streams, consumers and subscriptions.
pub mod filter {
    use super::{Class, RunId, Token};

    /// Every message of every run: `swarm.run.>`.
    pub const RUNS: &str = "swarm.run.>";
    /// The first message of every run.
    pub const ALL_REQUESTED: &str = "swarm.run.*.requested.*.*";
    /// Every signal.
    pub const SIGNALS: &str = "swarm.signal.>";
    /// Every model call.
    pub const CALLS: &str = "swarm.call.>";
    /// Every public fact.
    pub const EVENTS: &str = "swarm.events.>";
    /// Every control message.
    pub const CONTROLS: &str = "swarm.control.>";
    /// Every ledger entry.
    pub const LEDGER: &str = "swarm.ledger.>";
    /// Every schedule definition and tick.
    pub const SCHEDULES: &str = "swarm.schedule.>";
    /// Every definition of a tick of a run's deadline or wait.
    pub const DUE_AT: &str = "swarm.schedule.at.*";
    /// Every tick of a run's deadline or wait.
    pub const DUE: &str = "swarm.schedule.due.*";
    /// Every memory record.
    pub const MEMORY: &str = "swarm.memory.>";
    /// Every counter.
    pub const USAGE: &str = "swarm.usage.>";
    /// Every audit record.
    pub const AUDIT: &str = "swarm.audit.>";
    /// Everything parked.
    pub const DEAD: &str = "swarm.dead.>";
    /// Every question about who holds a run.
    pub const HOLDS: &str = "swarm.hold.*";

    /// Everything that a run decided: the one filter of expected sequences on a run.
    pub fn run(run: RunId) -> String {
        format!("swarm.run.{run}.>")
    }

    /// Every signal for a run.
    pub fn signals_of(run: RunId) -> String {
        format!("swarm.signal.{run}.*")
    }

    /// Every wake of a class, for all agents.
    pub fn requested(class: Class) -> String {
        format!("swarm.run.*.requested.{}.*", class.as_str())
    }

    /// Everything that runs say in a channel.
    pub fn say(channel: &Token) -> String {
        format!("swarm.run.*.say.{channel}")
    }

    /// Every operation of a service.
    pub fn asks(service: &str) -> String {
        format!("swarm.ask.{service}.*")
    }

    /// Every effect for a system.
    pub fn effect(system: &Token) -> String {
        format!("swarm.run.*.effect.{system}")
    }
}

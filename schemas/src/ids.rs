//! Names and identifiers. A run id derives from its trigger, so that the same trigger is the same run.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::trigger::Trigger;

/// The constant namespace under which run ids are hashed. It must never change: a trigger keeps its run for as long as
/// the log lives.
const RUN_NAMESPACE: Uuid = Uuid::from_u128(0x6e69_6768_7463_7265_7700_7275_6e00_0001);

/// Length of a name in bytes: a DNS label, because agents become Kubernetes objects and subject tokens.
pub const MAX_NAME_LEN: usize = 63;

/// Identifies a run: UUIDv5 of its trigger, or UUIDv7 for a person's bare command and for a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// The run that `trigger` starts for `agent` under `rule`.
    ///
    /// The hashed name is the JSON array of project, source, the trigger's natural key, rule and agent.
    pub fn derive(project: &ProjectId, trigger: &Trigger, rule: &str, agent: &AgentName) -> Self {
        let mut name = vec![project.to_string(), trigger.source().to_owned()];
        name.extend(trigger.natural_key());
        name.push(rule.to_owned());
        name.push(agent.to_string());
        let name = serde_json::Value::from(name).to_string();
        Self(Uuid::new_v5(&RUN_NAMESPACE, name.as_bytes()))
    }

    /// A run without a natural key; `uuid` is a UUIDv7 made at the rim.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The underlying UUID.
    pub const fn as_uuid(&self) -> Uuid {
        self.0
    }

    /// The last eight characters, for people; never for lookup in code.
    pub fn short(&self) -> String {
        let text = self.0.simple().to_string();
        text[text.len() - 8..].to_owned()
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Takes the one spelling that [`fmt::Display`] gives: lower case with hyphens.
impl FromStr for RunId {
    type Err = InvalidName;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidName { what: "run id", text: text.to_owned() };
        let id = Uuid::parse_str(text).map(Self).map_err(|_| invalid())?;
        // Other spellings of the same UUID would be other subjects of the same run.
        if id.to_string() == text { Ok(id) } else { Err(invalid()) }
    }
}

/// A name or identifier that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a valid {what}")]
pub struct InvalidName {
    /// What was expected.
    pub what: &'static str,
    /// What came.
    pub text: String,
}

/// [`is_label`] as a regular expression, for JSON Schemas.
const LABEL_PATTERN: &str = r"^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?$";

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_LEN
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Declares a name; the words after `but not` are taken by subjects.
macro_rules! label {
    ($(#[$meta:meta])* $name:ident, $what:literal $(, but not $reserved:literal)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("pattern" = LABEL_PATTERN $(, "not" = { "const": $reserved })*))]
        pub struct $name(String);

        impl $name {
            /// Checks `text`: 1 to 63 of `a-z`, `0-9`, `_` and inner `-`.
            pub fn try_new(text: impl Into<String>) -> Result<Self, InvalidName> {
                let text = text.into();
                let reserved: &[&str] = &[$($reserved),*];
                if is_label(&text) && !reserved.contains(&text.as_str()) {
                    Ok(Self(text))
                } else {
                    Err(InvalidName { what: $what, text })
                }
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidName;
            fn try_from(text: String) -> Result<Self, Self::Error> {
                Self::try_new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidName;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::try_new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

label! {
    /// An agent's name, as in `team.yaml` and in subjects. `all` is no name: it stands for every agent there.
    AgentName, "agent name", but not "all"
}
label! {
    /// A project's name: one NATS account.
    ProjectId, "project name"
}
label! {
    /// One lower-case token of a subject: a channel, system, signal, service or operation.
    Token, "subject token"
}

/// How long an agent's process lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// Served by a runner that stays up.
    Resident,
    /// Served by a process of its own that ends with the run.
    Ephemeral,
}

impl Class {
    /// The class as a subject token.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Resident => "resident",
            Self::Ephemeral => "ephemeral",
        }
    }
}

/// The id of a message on the bus (`ce-id`); its events are `<id>/<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct EventId(String);

impl EventId {
    /// Takes an id made elsewhere.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// An id that derives from `self`: the same input gives the same id, so a repeat is recognised.
    #[must_use]
    pub fn derive(&self, what: &str) -> Self {
        let namespace = Uuid::new_v5(&RUN_NAMESPACE, self.0.as_bytes());
        Self(Uuid::new_v5(&namespace, what.as_bytes()).to_string())
    }

    /// The id of the `n`th event inside a decision with this id.
    #[must_use]
    pub fn nth(&self, n: usize) -> Self {
        Self(format!("{}/{n}", self.0))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

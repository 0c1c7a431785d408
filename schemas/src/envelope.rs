//! CloudEvents 1.0, binary mode, in NATS headers. The body is JSON of a type of this crate.
//!
//! This module knows header names and values, not NATS: `kit` carries them over.

use jiff::Timestamp;

use crate::ids::{AgentName, EventId, RunId};

/// The version of the body schemas that this build writes and the newest that it reads.
pub const SCHEMA_VERSION: u32 = 1;

/// The version of CloudEvents.
const SPEC_VERSION: &str = "1.0";

/// Prefix of `ce-dataschema`; the version follows.
pub(crate) const SCHEMA_PREFIX: &str = "urn:nightcrew:schema:";

/// Header with the kinds of a decision's events, comma separated.
pub const KINDS_HEADER: &str = "Nc-Kinds";

/// `ce-type` of every message under `swarm.run.>`.
pub const DECISION_TYPE: &str = "decision";

/// What stands in the headers of every message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `ce-id`, also `Nats-Msg-Id`.
    pub id: EventId,
    /// `ce-type`: `decision`, or the kind of the body.
    pub kind: String,
    /// `ce-source`: the service that wrote it.
    pub source: String,
    /// `ce-time`: when it was written, by the writer's clock.
    pub time: Timestamp,
    /// `ce-runid`.
    pub run_id: Option<RunId>,
    /// `ce-parentrunid`.
    pub parent_run_id: Option<RunId>,
    /// `ce-rootrunid`.
    pub root_run_id: Option<RunId>,
    /// `ce-causationid`: the message that led to this one.
    pub causation_id: Option<EventId>,
    /// `ce-agent`.
    pub agent: Option<AgentName>,
    /// W3C `traceparent`.
    pub traceparent: Option<String>,
}

/// Headers that are not an envelope of this contract.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEnvelope {
    /// A header that must be there is not.
    #[error("header {0} is missing")]
    Missing(&'static str),
    /// A header's value can not be read.
    #[error("header {header} has the unreadable value {value:?}")]
    Unreadable {
        /// Which header.
        header: &'static str,
        /// What it holds.
        value: String,
    },
    /// The body is written in a schema version that this build does not know yet.
    #[error("schema version {found} is newer than {SCHEMA_VERSION}, the newest this build reads: upgrade it")]
    FutureVersion {
        /// The version that was found.
        found: u32,
    },
}

impl Envelope {
    /// An envelope with what every message has.
    pub fn new(id: EventId, kind: impl Into<String>, source: impl Into<String>, time: Timestamp) -> Self {
        Self {
            id,
            kind: kind.into(),
            source: source.into(),
            time,
            run_id: None,
            parent_run_id: None,
            root_run_id: None,
            causation_id: None,
            agent: None,
            traceparent: None,
        }
    }

    /// The headers to write, `Nats-Msg-Id` included.
    pub fn headers(&self) -> Vec<(&'static str, String)> {
        let mut headers = vec![
            ("ce-specversion", SPEC_VERSION.to_owned()),
            ("ce-id", self.id.to_string()),
            ("Nats-Msg-Id", self.id.to_string()),
            ("ce-type", self.kind.clone()),
            ("ce-source", self.source.clone()),
            ("ce-time", self.time.to_string()),
            ("ce-dataschema", format!("{SCHEMA_PREFIX}{}:{SCHEMA_VERSION}", self.kind)),
            ("content-type", "application/json".to_owned()),
        ];
        let optional = [
            ("ce-runid", self.run_id.map(|id| id.to_string())),
            ("ce-parentrunid", self.parent_run_id.map(|id| id.to_string())),
            ("ce-rootrunid", self.root_run_id.map(|id| id.to_string())),
            ("ce-causationid", self.causation_id.as_ref().map(ToString::to_string)),
            ("ce-agent", self.agent.as_ref().map(ToString::to_string)),
            ("traceparent", self.traceparent.clone()),
        ];
        headers.extend(optional.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))));
        headers
    }

    /// Reads an envelope; `get` gives a header's value.
    pub fn parse<'a>(get: impl Fn(&'static str) -> Option<&'a str>) -> Result<Self, InvalidEnvelope> {
        // An empty value says as little as none.
        let get = |name: &'static str| get(name).filter(|value| !value.is_empty());
        let need = |name: &'static str| get(name).ok_or(InvalidEnvelope::Missing(name));
        let version = schema_version(need("ce-dataschema")?)?;
        if version > SCHEMA_VERSION {
            return Err(InvalidEnvelope::FutureVersion { found: version });
        }
        let spec = need("ce-specversion")?;
        if spec != SPEC_VERSION {
            return Err(InvalidEnvelope::Unreadable { header: "ce-specversion", value: spec.to_owned() });
        }
        Ok(Self {
            id: EventId::new(need("ce-id")?),
            kind: need("ce-type")?.to_owned(),
            source: need("ce-source")?.to_owned(),
            time: read("ce-time", need("ce-time")?)?,
            run_id: optional("ce-runid", get)?,
            parent_run_id: optional("ce-parentrunid", get)?,
            root_run_id: optional("ce-rootrunid", get)?,
            causation_id: get("ce-causationid").map(EventId::new),
            agent: optional("ce-agent", get)?,
            traceparent: get("traceparent").map(ToOwned::to_owned),
        })
    }
}

fn read<T: std::str::FromStr>(header: &'static str, value: &str) -> Result<T, InvalidEnvelope> {
    value.parse().map_err(|_| InvalidEnvelope::Unreadable { header, value: value.to_owned() })
}

fn optional<'a, T: std::str::FromStr>(
    header: &'static str,
    get: impl Fn(&'static str) -> Option<&'a str>,
) -> Result<Option<T>, InvalidEnvelope> {
    get(header).map(|value| read(header, value)).transpose()
}

fn schema_version(value: &str) -> Result<u32, InvalidEnvelope> {
    let unreadable = || InvalidEnvelope::Unreadable { header: "ce-dataschema", value: value.to_owned() };
    let rest = value.strip_prefix(SCHEMA_PREFIX).ok_or_else(unreadable)?;
    let (_, version) = rest.rsplit_once(':').ok_or_else(unreadable)?;
    version.parse().map_err(|_| unreadable())
}

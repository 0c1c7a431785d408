//! The registry of agents: what runners say of themselves in KV `agents`, and what others read there.
//!
//! An entry lives for [`TTL`] and is repeated before that, so a runner that is lost disappears without anybody looking after
//! it. Keys are `<agent>.<runner>`: whoever wants to know who serves an agent reads only its entries.

use std::time::Duration;

use async_nats::header::HeaderMap;
use schemas::ids::{InvalidName, Token};
use schemas::presence::Presence;

use crate::bus::{Bus, Fault};
use crate::class::{Classified, ErrorClass};
use crate::scan::ScanError;

/// The bucket's stream.
const STREAM: &str = "KV_agents";

/// How long an entry lives. A runner whose runs go to another one after four seconds is gone from here soon after, and one
/// that a slow bus keeps from repeating itself twice is not.
pub const TTL: Duration = Duration::from_secs(15);

/// The shortest life that the server gives a message.
const SHORTEST: Duration = Duration::from_secs(1);

/// Says when the server removes a message.
const TTL_HEADER: &str = "Nats-TTL";

/// Says that a message is no value but the removal of one.
const OPERATION_HEADER: &str = "KV-Operation";

/// An entry was not written.
#[derive(Debug, thiserror::Error)]
pub enum AnnounceError {
    /// The runner's name can not be part of a key.
    #[error("the runner's name can not stand in a key")]
    Name(#[from] InvalidName),
    /// It is no JSON.
    #[error("the entry can not be written as JSON")]
    Json(#[source] serde_json::Error),
    /// The bus did not take it.
    #[error("the entry of {agent} at {runner} is not in the registry")]
    Publish {
        /// The agent.
        agent: String,
        /// The runner.
        runner: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classified for AnnounceError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Name(_) | Self::Json(_) => ErrorClass::Broken,
            Self::Publish { .. } => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "presence_name",
            Self::Json(_) => "presence_json",
            Self::Publish { .. } => "bus_unavailable",
        }
    }
}

/// Puts an entry into the registry for `ttl`, [`TTL`] unless a test wants to see it expire.
pub async fn announce(bus: &Bus, presence: &Presence, ttl: Duration) -> Result<(), AnnounceError> {
    let body = serde_json::to_vec(presence).map_err(AnnounceError::Json)?;
    put(bus, presence, body, ttl, None).await
}

/// Takes an entry out of the registry, as a runner does that ends in order.
pub async fn withdraw(bus: &Bus, presence: &Presence) -> Result<(), AnnounceError> {
    put(bus, presence, Vec::new(), SHORTEST, Some("DEL")).await
}

async fn put(
    bus: &Bus,
    presence: &Presence,
    body: Vec<u8>,
    ttl: Duration,
    operation: Option<&str>,
) -> Result<(), AnnounceError> {
    let key = key(presence)?;
    let mut headers = HeaderMap::new();
    headers.insert(TTL_HEADER, format!("{}s", ttl.max(SHORTEST).as_secs()));
    if let Some(operation) = operation {
        headers.insert(OPERATION_HEADER, operation);
    }
    let failed = |source: Fault| AnnounceError::Publish {
        agent: presence.agent.to_string(),
        runner: presence.runner.clone(),
        source: Box::new(source),
    };
    bus.publish_once(&key, headers, body.into()).await.map(drop).map_err(failed)
}

fn key(presence: &Presence) -> Result<String, InvalidName> {
    let runner = Token::try_new(presence.runner.as_str())?;
    Ok(format!("$KV.agents.{}.{runner}", presence.agent))
}

/// Everything in the registry, by agent and runner. An entry that this build can not read is passed over.
pub async fn list(bus: &Bus) -> Result<Vec<Presence>, ScanError> {
    let messages = bus.scan_all(STREAM, "$KV.agents.>", 1).await?;
    let mut entries: Vec<Presence> = messages
        .iter()
        .filter(|message| !message.is_removal())
        .filter_map(|message| {
            let read = serde_json::from_slice(&message.body);
            read.inspect_err(|error| tracing::warn!(subject = message.subject, %error, "an entry can not be read")).ok()
        })
        .collect();
    entries.sort_by(|a, b| (&a.agent, &a.runner).cmp(&(&b.agent, &b.runner)));
    Ok(entries)
}

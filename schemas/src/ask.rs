//! Typed requests to services on `swarm.ask.<service>.<operation>`, answered and not stored.
//!
//! A reply is either what was asked for or `{"error": {"code", "message"}}`; [`Answer`] reads both.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::{AgentName, RunId};

/// Service token of the issuer.
pub const ISSUER: &str = "issuer";

/// Operation of the issuer: mint the bearer of a run's epoch.
pub const MINT: &str = "mint";

/// Operation of the issuer: the public keys that bearers are checked against.
pub const KEYS: &str = "keys";

/// Operation of every service: how it is. `kit` answers it for all of them.
pub const HEALTH: &str = "health";

/// Asks the issuer for the bearer of a run's epoch. Only who holds the run may ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MintRequest {
    /// The run.
    pub run_id: RunId,
    /// The root of its tree.
    pub root_run_id: RunId,
    /// The agent that runs.
    pub agent: AgentName,
    /// Stream sequence of the message that opened the epoch.
    pub epoch: u64,
    /// The run's deadline, at which the bearer expires.
    pub deadline: Timestamp,
}

/// The minted bearer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MintReply {
    /// For `Authorization: Bearer`. A secret: never logged, never journaled.
    pub token: String,
    /// From when on it is refused: the deadline, to the second before.
    pub expires_at: Timestamp,
}

impl fmt::Debug for MintReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { token: _, expires_at } = self;
        f.debug_struct("MintReply").field("expires_at", expires_at).finish_non_exhaustive()
    }
}

/// The issuer's public keys. A request for them has an empty body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeysReply {
    /// As a JWK set; the newest first.
    pub keys: Vec<PublicJwk>,
}

/// A public Ed25519 key as a JWK (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PublicJwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// The thumbprint (RFC 7638), by which a bearer's header names the key.
    pub kid: String,
    /// The key, base64url.
    pub x: String,
}

/// A reply: what was asked for, or why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Answer<T> {
    /// Refused or failed.
    Refused(Refused),
    /// What was asked for.
    Done(T),
}

impl<T> Answer<T> {
    /// The answer as a result.
    pub fn into_result(self) -> Result<T, AskError> {
        match self {
            Self::Refused(Refused { error }) => Err(error),
            Self::Done(done) => Ok(done),
        }
    }
}

/// A reply that is a refusal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Why.
    pub error: AskError,
}

/// Why a request was not granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message} ({code:?})")]
pub struct AskError {
    /// For programs.
    pub code: AskCode,
    /// For people.
    pub message: String,
}

/// Why a request was not granted, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AskCode {
    /// The body is not the operation's request.
    Malformed,
    /// The service has no such operation.
    UnknownOperation,
    /// The deadline lies in the past.
    DeadlinePassed,
    /// The deadline lies further ahead than a bearer may live.
    DeadlineTooFar,
    /// The service failed; asking again may help.
    Internal,
    /// A code of a later version.
    #[serde(other)]
    Unknown,
}

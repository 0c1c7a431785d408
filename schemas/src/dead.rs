//! A message that could not be handled, parked on `swarm.dead.<source>` with its reason.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A parked message, whole, so that it can be shown, replayed or dropped by a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DeadLetter {
    /// The service that parked it.
    pub service: String,
    /// Its consumer that delivered the message; absent when the message was never published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumer: Option<String>,
    /// Why, for programs.
    pub code: String,
    /// Why, for people: the whole chain of causes.
    pub reason: String,
    /// The subject that it came on; replay publishes there again.
    pub subject: String,
    /// The stream that holds or held it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its sequence there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// Its headers.
    #[serde(default)]
    pub headers: BTreeMap<String, Vec<String>>,
    /// Its body, base64, cut to [`MAX_BODY_BYTES`].
    pub body: String,
    /// Its full size in bytes.
    pub body_bytes: u64,
}

/// How much of a parked body is kept. The message itself stays in its own stream; half of `max_payload` leaves room
/// for base64 and headers.
pub const MAX_BODY_BYTES: usize = 512 * 1024;

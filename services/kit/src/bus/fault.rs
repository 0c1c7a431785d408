//! What the server says when it does not take something, and what its silence means.

use serde::Deserialize;

use super::REQUEST_WITHIN;

/// The server did not take a publish, or did not say whether it did.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// JetStream refused it.
    #[error("{description} (JetStream error {code})")]
    Api {
        /// JetStream's `err_code`.
        code: u64,
        /// Its words.
        description: String,
    },
    /// The server refuses the subject to this user.
    #[error("the bus refuses the subject {subject} to {service}")]
    Forbidden { subject: String, service: String },
    /// No stream listens there now.
    #[error("no stream takes {subject}")]
    NoStream { subject: String },
    /// It is larger than a message may be; nothing was sent.
    #[error("{bytes} bytes are more than the {limit} that a message may have")]
    TooLarge { bytes: usize, limit: usize },
    /// The bus was not there; nothing was sent.
    #[error("the bus can not be reached")]
    Disconnected,
    /// It was sent and no answer came: it may be in the stream or not.
    #[error("the bus did not answer within {REQUEST_WITHIN:?}")]
    Silent,
    /// The answer is not an ack.
    #[error("the bus gave an answer that is no ack: {0}")]
    Garbled(String),
}

/// An error as JetStream's answers carry it.
#[derive(Deserialize)]
pub(super) struct ApiError {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl From<ApiError> for Fault {
    fn from(error: ApiError) -> Self {
        Self::Api { code: error.err_code, description: error.description }
    }
}

/// JetStream's `err_code`s that are told apart.
pub(crate) mod code {
    pub(crate) const MESSAGE_NOT_FOUND: u64 = 10037;
    /// Account limits are reached.
    pub(crate) const ACCOUNT_FULL: u64 = 10002;
    /// The server's store is full.
    pub(crate) const SERVER_FULL: u64 = 10023;
    /// Storing failed; with discard new this is how a full stream answers.
    pub(crate) const STORE_FAILED: u64 = 10077;
    pub(crate) const WRONG_LAST_SEQUENCE: u64 = 10071;
    /// The same id is on its way into the stream.
    pub(crate) const DUPLICATE_IN_FLIGHT: u64 = 10158;
    /// Another write under the same filter is on its way into the stream.
    pub(crate) const WRONG_LAST_SEQUENCE_IN_FLIGHT: u64 = 10164;
    pub(crate) const BATCH_INCOMPLETE: u64 = 10176;
    pub(crate) const BATCH_REPEATED: u64 = 10201;
    pub(crate) const BATCHES_IN_FLIGHT: u64 = 10210;
}

impl Fault {
    /// Whether there is no room.
    pub(crate) fn is_full(&self) -> bool {
        match self {
            Self::Api { code, description } => match *code {
                code::ACCOUNT_FULL | code::SERVER_FULL => true,
                code::STORE_FAILED => description.contains("maximum"),
                _ => false,
            },
            _ => false,
        }
    }

    /// JetStream's error code, when it gave one.
    pub(crate) const fn code(&self) -> Option<u64> {
        match self {
            Self::Api { code, .. } => Some(*code),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_stream_is_told_from_other_failures_of_the_store() {
        let full = |description: &str| Fault::Api { code: code::STORE_FAILED, description: description.to_owned() };
        assert!(full("maximum bytes exceeded").is_full());
        assert!(!full("write error").is_full());
    }
}

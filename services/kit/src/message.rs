//! What is sent and what is read: an envelope in NATS headers, a body in JSON, and where it stands in its stream.
//!
//! Every message is checked once, here, when it is read: its subject, its envelope, its type, that subject and
//! envelope name the same run, its size. What does not pass is a [`DecodeError`] that names the message.

mod decode;
mod verbatim;

use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use jiff::Timestamp;
use schemas::envelope::{DECISION_TYPE, KINDS_HEADER};
use schemas::event::{END_KINDS, EPOCH_KINDS};
use schemas::{Decision, Envelope, RunId, Subject};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::class::{Classified, ErrorClass};

pub use decode::{DecodeError, MAX_BODY_BYTES, Undecodable};
pub(crate) use decode::{RawMessage, direct, from_delivery, raw};
pub use verbatim::Verbatim;
pub(crate) use verbatim::{NotInStream, verbatim};

/// How long a public event stays in the log: a quarter, the longest window that a report looks back on.
const PUBLIC_EVENT_TTL: Duration = Duration::from_hours(90 * 24);

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// Where.
    pub subject: Subject,
    /// Its headers.
    pub envelope: Envelope,
    /// The kinds of a decision's events, comma separated; none for other messages.
    pub kinds: Option<String>,
    /// JSON of a type of `schemas`.
    pub body: Bytes,
}

/// A message that has no wire form.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// The body is not JSON.
    #[error("the body can not be written as JSON")]
    Body(#[source] serde_json::Error),
    /// A header's value can not stand in a header.
    #[error("the value {value:?} can not stand in the header {header}")]
    Header {
        /// Which.
        header: &'static str,
        /// Its value.
        value: String,
    },
}

impl Classified for EncodeError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Broken
    }

    fn code(&self) -> &'static str {
        "message_encode"
    }
}

impl Outgoing {
    /// A decision of a run. The envelope's type becomes `decision`, its run the subject's.
    pub fn decision(subject: Subject, mut envelope: Envelope, decision: &Decision) -> Result<Self, EncodeError> {
        DECISION_TYPE.clone_into(&mut envelope.kind);
        let kinds = decision.kinds();
        Ok(Self { kinds: Some(kinds), ..Self::json(subject, envelope, decision)? })
    }

    /// A message with a JSON body. The envelope's run, when it has none, becomes the subject's.
    pub fn json<T: Serialize>(subject: Subject, mut envelope: Envelope, body: &T) -> Result<Self, EncodeError> {
        envelope.run_id = envelope.run_id.or_else(|| subject.run_id());
        let body = serde_json::to_vec(body).map_err(EncodeError::Body)?;
        Ok(Self { subject, envelope, kinds: None, body: body.into() })
    }

    /// The run whose journal this is part of.
    pub(crate) fn journal_of(&self) -> Option<RunId> {
        match &self.subject {
            Subject::Requested(run, ..) | Subject::Journal(run) | Subject::Say(run, _) | Subject::Effect(run, _) => {
                Some(*run)
            }
            _ => None,
        }
    }

    pub(crate) fn is_journal(&self) -> bool {
        self.journal_of().is_some()
    }

    /// All headers, `Nats-Msg-Id` and what the subject asks for included.
    pub(crate) fn headers(&self) -> Result<HeaderMap, EncodeError> {
        let mut headers = HeaderMap::new();
        for (name, value) in self.envelope.headers() {
            headers.insert(HeaderName::from_static(name), header_value(name, value)?);
        }
        if let Some(kinds) = &self.kinds {
            let value = header_value(KINDS_HEADER, kinds.clone())?;
            headers.insert(HeaderName::from_static(KINDS_HEADER), value);
        }
        if matches!(self.subject, Subject::Event(_)) {
            headers.insert(async_nats::header::NATS_MESSAGE_TTL, HeaderValue::from(PUBLIC_EVENT_TTL.as_secs()));
        }
        Ok(headers)
    }
}

fn header_value(header: &'static str, value: String) -> Result<HeaderValue, EncodeError> {
    value.parse().map_err(|_| EncodeError::Header { header, value })
}

/// A message as its stream holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Where it was published.
    pub subject: Subject,
    /// Its headers.
    pub envelope: Envelope,
    /// The kinds of a decision's events, in order; empty for other messages.
    pub kinds: Vec<String>,
    /// Its sequence in the stream. That of a message with `started` or `resumed` is an epoch.
    pub sequence: u64,
    /// The run's message that a journal message came after, 0 for a first one; none for other messages.
    pub after: Option<u64>,
    /// When the stream stored it, by the server's clock.
    pub time: Timestamp,
    /// Its body; empty when only headers were asked for.
    pub body: Bytes,
}

impl Stored {
    /// The body as `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, DecodeError> {
        serde_json::from_slice(&self.body).map_err(|source| DecodeError {
            subject: self.subject.to_string(),
            sequence: Some(self.sequence),
            reason: Undecodable::Body {
                kind: self.envelope.kind.clone(),
                line: source.line(),
                column: source.column(),
                source,
            },
        })
    }

    /// The run in its subject.
    pub const fn run_id(&self) -> Option<RunId> {
        self.subject.run_id()
    }

    /// Whether one of a decision's events is of this kind.
    pub fn has(&self, kind: &str) -> bool {
        self.kinds.iter().any(|own| own == kind)
    }

    /// Whether the decision ends its run.
    pub fn is_end(&self) -> bool {
        END_KINDS.iter().any(|kind| self.has(kind))
    }

    /// Whether the decision opens an epoch: then `sequence` is it.
    pub fn opens_epoch(&self) -> bool {
        EPOCH_KINDS.iter().any(|kind| self.has(kind))
    }
}

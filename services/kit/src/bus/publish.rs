//! Publishing with an ack, and what the ack can say.

use std::pin::pin;
use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Message, Request, RequestErrorKind};
use bytes::Bytes;
use serde::Deserialize;

use super::fault::{ApiError, Fault};
use super::{Bus, REQUEST_WITHIN};
use crate::class::{Classified, ErrorClass};
use crate::message::{EncodeError, Outgoing};

/// How often a publish is sent whose ack did not come. The message id makes a repeat harmless.
const ATTEMPTS: u32 = 3;

/// An answer that takes longer than this may never come.
const LONG: Duration = Duration::from_millis(200);

/// The server's answer to a publish that it took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    /// Where it is in the stream.
    pub(crate) sequence: u64,
    /// Whether it was there before.
    pub(crate) duplicate: bool,
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    error: Option<ApiError>,
}

/// A message that is not of a run's journal could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A run's journal is written with `Journal` only.
    #[error("{subject} belongs to a run's journal, which only `Journal` writes")]
    Journal {
        /// The subject.
        subject: String,
    },
    /// It has no wire form.
    #[error("a message for {subject} can not be encoded")]
    Encode {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// It is larger than a message may be.
    #[error("a message for {subject} has {bytes} bytes, {limit} are allowed")]
    TooLarge {
        /// The subject.
        subject: String,
        /// Its size.
        bytes: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The stream has no room.
    #[error("the stream of {subject} is full")]
    StreamFull {
        /// The subject.
        subject: String,
    },
    /// This service may not publish there.
    #[error("the bus refuses the subject {subject} to this service")]
    Forbidden {
        /// The subject.
        subject: String,
    },
    /// The bus did not take it now; repeat it with the same id.
    #[error("publishing on {subject}")]
    Unavailable {
        /// The subject.
        subject: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classified for PublishError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::StreamFull { .. } | Self::Unavailable { .. } => ErrorClass::Transient,
            _ => ErrorClass::Broken,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Journal { .. } => "publish_journal",
            Self::Encode { .. } => "publish_encode",
            Self::TooLarge { .. } => "message_too_large",
            Self::StreamFull { .. } => "stream_full",
            Self::Forbidden { .. } => "bus_forbidden",
            Self::Unavailable { .. } => "bus_unavailable",
        }
    }
}

impl Bus {
    /// Publishes a signal, a public event, a call, an audit record, anything but a run's journal, and returns its
    /// sequence. A repeat with the same id within the stream's duplicate window is stored once.
    pub async fn publish(&self, outgoing: &Outgoing) -> Result<u64, PublishError> {
        let subject = outgoing.subject.to_string();
        if outgoing.is_journal() {
            return Err(PublishError::Journal { subject });
        }
        let headers = outgoing.headers().map_err(|source| PublishError::Encode { subject: subject.clone(), source })?;
        let mut attempt = 1;
        loop {
            match self.publish_once(&subject, headers.clone(), outgoing.body.clone()).await {
                Ok(ack) => return Ok(ack.sequence),
                Err(Fault::Silent | Fault::NoStream { .. }) if attempt < ATTEMPTS => attempt += 1,
                Err(fault) => return Err(publish_error(subject, fault)),
            }
        }
    }

    /// One publish and its ack.
    pub(crate) async fn publish_once(&self, subject: &str, headers: HeaderMap, body: Bytes) -> Result<Ack, Fault> {
        let answer = self.ask(subject, Some(headers), body).await?;
        parse(&answer)
    }

    /// One request of whatever kind and its answer's body, bounded in time also while the bus is away.
    pub(crate) async fn ask(&self, subject: &str, headers: Option<HeaderMap>, body: Bytes) -> Result<Bytes, Fault> {
        let answer = self.ask_message(subject, headers, body).await?;
        Ok(answer.payload)
    }

    /// As [`Bus::ask`], with the answer's headers.
    pub(super) async fn ask_message(
        &self,
        subject: &str,
        headers: Option<HeaderMap>,
        body: Bytes,
    ) -> Result<Message, Fault> {
        self.wait_connected().await?;
        let limit = self.max_payload();
        let bytes = body.len();
        let mut request = Request::new().payload(body).timeout(None);
        if let Some(headers) = headers {
            request = request.headers(headers);
        }
        let mut connection = self.connection();
        connection.mark_unchanged();
        let mut asked = pin!(self.client().send_request(subject.to_owned(), request));
        // The server says that it refuses a subject, but not in the answer, which never comes. Only who waits for long
        // listens for it.
        let mut waits_long = false;
        let answer = loop {
            let within = if waits_long { REQUEST_WITHIN } else { LONG };
            tokio::select! {
                biased;
                answer = &mut asked => break answer,
                // What is asked over a connection that is lost is never answered.
                _ = connection.changed() => return Err(Fault::Silent),
                () = self.refused(subject), if waits_long => return Err(self.forbidden(subject)),
                () = tokio::time::sleep(within) => {
                    if waits_long {
                        return Err(Fault::Silent);
                    }
                    waits_long = true;
                }
            }
        };
        answer.map_err(|error| match error.kind() {
            RequestErrorKind::NoResponders => Fault::NoStream { subject: subject.to_owned() },
            RequestErrorKind::MaxPayloadExceeded => Fault::TooLarge { bytes, limit },
            RequestErrorKind::InvalidSubject => Fault::Garbled(error.to_string()),
            _ => Fault::Silent,
        })
    }

    /// Reads an ack.
    pub(crate) fn parse_ack(answer: &[u8]) -> Result<Ack, Fault> {
        parse(answer)
    }

    /// Waits for the connection, as long as a request may take.
    pub(crate) async fn wait_connected(&self) -> Result<(), Fault> {
        if self.is_connected() {
            return Ok(());
        }
        tokio::time::timeout(REQUEST_WITHIN, self.connected()).await.map_err(|_| Fault::Disconnected)
    }

    /// Returns once the server has said that it refuses `subject`, to publish there or to subscribe.
    async fn refused(&self, subject: &str) {
        let quoted = format!("\"{subject}\"");
        let mut refusals = self.shared.refusals.clone();
        let of_subject = |text: &Option<String>| text.as_deref().is_some_and(|text| text.contains(&quoted));
        if refusals.wait_for(of_subject).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Why no answer came within the time for one.
    pub(super) async fn silence(&self, subject: &str) -> Fault {
        match tokio::time::timeout(LONG, self.refused(subject)).await {
            Ok(()) => self.forbidden(subject),
            Err(_) => Fault::Silent,
        }
    }

    fn forbidden(&self, subject: &str) -> Fault {
        Fault::Forbidden { subject: subject.to_owned(), service: self.service().to_owned() }
    }
}

fn parse(answer: &[u8]) -> Result<Ack, Fault> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| Fault::Garbled(error.to_string()))?;
    match answer.error {
        Some(error) => Err(error.into()),
        None => Ok(Ack { sequence: answer.seq, duplicate: answer.duplicate }),
    }
}

fn publish_error(subject: String, fault: Fault) -> PublishError {
    if fault.is_full() {
        return PublishError::StreamFull { subject };
    }
    match fault {
        Fault::TooLarge { bytes, limit } => PublishError::TooLarge { subject, bytes, limit },
        Fault::Forbidden { .. } => PublishError::Forbidden { subject },
        fault => PublishError::Unavailable { subject, source: Box::new(fault) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::code;

    #[test]
    fn an_ack_is_read() {
        let ack = parse(br#"{"stream":"SWARM","seq":7,"duplicate":true}"#).unwrap();
        assert_eq!(ack, Ack { sequence: 7, duplicate: true });
    }

    #[test]
    fn a_refusal_keeps_its_code() {
        let fault = parse(
            br#"{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"SWARM","seq":0}"#,
        )
        .unwrap_err();
        assert_eq!(fault.code(), Some(code::WRONG_LAST_SEQUENCE));
    }
}

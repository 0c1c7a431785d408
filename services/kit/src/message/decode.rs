//! From the three shapes in which NATS hands a stored message out to [`Stored`], checked.

use async_nats::header::{HeaderMap, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use async_nats::jetstream;
use bytes::Bytes;
use data_encoding::BASE64;
use jiff::Timestamp;
use schemas::envelope::{DECISION_TYPE, InvalidEnvelope, KINDS_HEADER};
use schemas::subject::InvalidSubject;
use schemas::{Envelope, Subject};
use serde::Deserialize;

use super::Stored;
use crate::class::{Classified, ErrorClass};

/// The largest body that is read. What is larger can not come from here: it is what NATS lets through by default.
pub const MAX_BODY_BYTES: usize = 1024 * 1024;

/// A stored message that is not one of this contract.
#[derive(Debug, thiserror::Error)]
#[error("the message on {subject}{} is not readable", at(*.sequence))]
pub struct DecodeError {
    /// The subject that it came on.
    pub subject: String,
    /// Its sequence in the stream, when that much could be read.
    pub sequence: Option<u64>,
    /// What is wrong with it.
    #[source]
    pub reason: Undecodable,
}

fn at(sequence: Option<u64>) -> String {
    sequence.map_or_else(String::new, |sequence| format!(" at {sequence}"))
}

/// Why a message is not readable.
#[derive(Debug, thiserror::Error)]
pub enum Undecodable {
    /// Its subject is none of ours.
    #[error("its subject is unknown")]
    Subject(#[source] InvalidSubject),
    /// Its headers are no envelope, or one from the future.
    #[error("its envelope is not valid")]
    Envelope(#[source] InvalidEnvelope),
    /// Its type does not belong on its subject.
    #[error("its type is {found:?} where {expected:?} belongs")]
    Type {
        /// What it says.
        found: String,
        /// What belongs there.
        expected: &'static str,
    },
    /// Subject and envelope disagree about the run.
    #[error("its subject names another run than its envelope, {0}")]
    OtherRun(schemas::RunId),
    /// It is larger than anything that is written here.
    #[error("its body has {bytes} bytes, more than {MAX_BODY_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Its body is not what its type says.
    #[error("its body is no {kind}: line {line}, column {column}")]
    Body {
        /// The type it says to be.
        kind: String,
        /// Line in the body, from 1.
        line: usize,
        /// Column in that line, from 1.
        column: usize,
        /// What is wrong there.
        #[source]
        source: serde_json::Error,
    },
    /// NATS did not say where it stands in its stream.
    #[error("it lacks the stream's own {0}")]
    Metadata(&'static str),
}

impl Classified for DecodeError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Broken
    }

    fn code(&self) -> &'static str {
        match &self.reason {
            Undecodable::Subject(_) => "unknown_subject",
            Undecodable::Envelope(InvalidEnvelope::FutureVersion { .. }) => "future_version",
            Undecodable::Envelope(_) => "bad_envelope",
            Undecodable::Type { .. } => "unknown_type",
            Undecodable::OtherRun(_) => "other_run",
            Undecodable::TooLarge { .. } => "body_too_large",
            Undecodable::Body { .. } => "bad_body",
            Undecodable::Metadata(_) => "no_metadata",
        }
    }
}

/// What NATS knows of a stored message, before anything in it is believed.
pub(super) struct Parts<'a> {
    pub(super) subject: &'a str,
    pub(super) headers: Option<&'a HeaderMap>,
    pub(super) sequence: u64,
    pub(super) time: Timestamp,
    pub(super) body: Bytes,
}

pub(super) fn stored(parts: Parts<'_>) -> Result<Stored, DecodeError> {
    let sequence = parts.sequence;
    let subject = parts.subject;
    check(parts).map_err(|reason| DecodeError { subject: subject.to_owned(), sequence: Some(sequence), reason })
}

fn check(parts: Parts<'_>) -> Result<Stored, Undecodable> {
    if parts.body.len() > MAX_BODY_BYTES {
        return Err(Undecodable::TooLarge { bytes: parts.body.len() });
    }
    let subject: Subject = parts.subject.parse().map_err(Undecodable::Subject)?;
    let get = |name: &'static str| {
        let headers = parts.headers?;
        headers.get(name).map(async_nats::HeaderValue::as_str)
    };
    let envelope = Envelope::parse(get).map_err(Undecodable::Envelope)?;
    if is_decision(&subject) && envelope.kind != DECISION_TYPE {
        return Err(Undecodable::Type { found: envelope.kind, expected: DECISION_TYPE });
    }
    match (subject.run_id(), envelope.run_id) {
        (Some(of_subject), Some(of_envelope)) if of_subject != of_envelope => {
            return Err(Undecodable::OtherRun(of_envelope));
        }
        _ => {}
    }
    let kinds = get(KINDS_HEADER)
        .map(|kinds| kinds.split(',').map(|kind| kind.trim().to_owned()).collect())
        .unwrap_or_default();
    // The server keeps the expectation that a message was appended with.
    let after = parts
        .headers
        .filter(|_| is_decision(&subject))
        .and_then(|headers| headers.get(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE))
        .and_then(|after| after.as_str().parse().ok());
    Ok(Stored { subject, envelope, kinds, sequence: parts.sequence, after, time: parts.time, body: parts.body })
}

const fn is_decision(subject: &Subject) -> bool {
    matches!(subject, Subject::Requested(..) | Subject::Journal(_) | Subject::Say(..) | Subject::Effect(..))
}

/// A message that a consumer delivered.
pub(crate) fn from_delivery(message: &jetstream::Message) -> Result<Stored, DecodeError> {
    let lacks = |what| DecodeError {
        subject: message.subject.to_string(),
        sequence: None,
        reason: Undecodable::Metadata(what),
    };
    let info = message.info().map_err(|_| lacks("delivery"))?;
    let time = Timestamp::from_nanosecond(info.published.unix_timestamp_nanos()).map_err(|_| lacks("time"))?;
    stored(Parts {
        subject: message.subject.as_str(),
        headers: message.headers.as_ref(),
        sequence: info.stream_sequence,
        time,
        body: message.payload.clone(),
    })
}

/// A message that a direct get answered with. The server appends its own headers, so the last of a name is its.
pub(crate) fn direct(message: &async_nats::Message) -> Result<Stored, DecodeError> {
    let own = |name: &'static str| {
        let headers = message.headers.as_ref()?;
        headers.get_last(name).map(async_nats::HeaderValue::as_str)
    };
    let subject = own("Nats-Subject").unwrap_or_default();
    let lacks = |what| DecodeError { subject: subject.to_owned(), sequence: None, reason: Undecodable::Metadata(what) };
    let sequence = own("Nats-Sequence").and_then(|text| text.parse().ok());
    let time = own("Nats-Time-Stamp").and_then(|text| text.parse().ok());
    stored(Parts {
        subject,
        headers: message.headers.as_ref(),
        sequence: sequence.ok_or_else(|| lacks("sequence"))?,
        time: time.ok_or_else(|| lacks("time"))?,
        body: message.payload.clone(),
    })
}

/// A message as `STREAM.MSG.GET` gives it: JSON with base64 inside.
#[derive(Debug, Deserialize)]
pub(crate) struct RawMessage {
    subject: String,
    pub(crate) seq: u64,
    time: String,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl RawMessage {
    /// When the stream stored it, and its body, if both can be read.
    pub(crate) fn opaque(&self) -> Option<(Timestamp, Bytes)> {
        let body = BASE64.decode(self.data.as_bytes()).ok()?;
        Some((self.time.parse().ok()?, body.into()))
    }
}

/// Reads what the leader of a stream answered.
pub(crate) fn raw(message: &RawMessage) -> Result<Stored, DecodeError> {
    let lacks = |what| DecodeError {
        subject: message.subject.clone(),
        sequence: Some(message.seq),
        reason: Undecodable::Metadata(what),
    };
    let decode = |text: &str, what| BASE64.decode(text.as_bytes()).map_err(|_| lacks(what));
    let headers = parse_headers(&decode(&message.hdrs, "headers")?);
    stored(Parts {
        subject: &message.subject,
        headers: Some(&headers),
        sequence: message.seq,
        time: message.time.parse().map_err(|_| lacks("time"))?,
        body: decode(&message.data, "body")?.into(),
    })
}

/// Reads a header block. A line that is no header is left out: what then is missing is missed by the envelope.
fn parse_headers(block: &[u8]) -> HeaderMap {
    let text = String::from_utf8_lossy(block);
    let mut headers = HeaderMap::new();
    for line in text.split("\r\n").skip(1) {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let name = name.trim().parse::<async_nats::HeaderName>();
        let value = value.trim().parse::<async_nats::HeaderValue>();
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use schemas::EventId;

    const RUN: &str = "0196b2f0-0000-7000-8000-000000000001";

    fn envelope(kind: &str) -> HeaderMap {
        let envelope = Envelope::new(EventId::new("e1"), kind, "test", Timestamp::UNIX_EPOCH);
        let mut headers = HeaderMap::new();
        for (name, value) in envelope.headers() {
            headers.insert(name, value);
        }
        headers
    }

    fn read(subject: &str, headers: &HeaderMap, body: &'static [u8]) -> Result<Stored, DecodeError> {
        stored(Parts {
            subject,
            headers: Some(headers),
            sequence: 9,
            time: Timestamp::UNIX_EPOCH,
            body: Bytes::from_static(body),
        })
    }

    #[test]
    fn what_is_wrong_is_named_with_subject_and_sequence() {
        let journal = format!("swarm.run.{RUN}.event");
        let mut future = envelope(DECISION_TYPE);
        future.insert("ce-dataschema", "urn:nightcrew:schema:decision:99");
        let mut other = envelope(DECISION_TYPE);
        other.insert("ce-runid", "0196b2f0-0000-7000-8000-00000000ffff");
        let cases = [
            ("swarm.nonsense", envelope(DECISION_TYPE), "unknown_subject"),
            (journal.as_str(), HeaderMap::new(), "bad_envelope"),
            (journal.as_str(), future, "future_version"),
            (journal.as_str(), envelope("surprise"), "unknown_type"),
            (journal.as_str(), other, "other_run"),
        ];
        for (subject, headers, code) in cases {
            let error = read(subject, &headers, b"{}").unwrap_err();
            assert_eq!(error.code(), code);
            assert_eq!(error.subject, subject);
            assert_eq!(error.sequence, Some(9));
        }
    }

    #[test]
    fn a_bad_body_is_told_by_line_and_column() {
        let journal = format!("swarm.run.{RUN}.event");
        let message = read(&journal, &envelope(DECISION_TYPE), b"{\n \"events\": 3}").unwrap();
        let error = message.decode::<schemas::Decision>().unwrap_err();
        let Undecodable::Body { line, column, .. } = error.reason else {
            panic!("{error:?}");
        };
        assert_eq!((line, column), (2, 12));
    }

    #[test]
    fn headers_of_a_raw_message_are_read() {
        let headers = parse_headers(b"NATS/1.0\r\nce-id: a:b\r\nNats-Msg-Id:x\r\n\r\n");
        assert_eq!(headers.get("ce-id").unwrap().as_str(), "a:b");
        assert_eq!(headers.get("Nats-Msg-Id").unwrap().as_str(), "x");
    }
}

//! A stored message as it is: for archives, which keep bytes, and for readers that go on where a message is not readable.

use async_nats::header::{HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use jiff::Timestamp;

use super::Stored;
use super::decode::{self, DecodeError, Parts};

/// Headers that the server adds to its answer and that are not the message's own.
const OF_THE_ANSWER: [&str; 7] = [
    "Nats-Stream",
    "Nats-Subject",
    "Nats-Sequence",
    "Nats-Time-Stamp",
    "Nats-Num-Pending",
    "Nats-Last-Sequence",
    "Nats-UpTo-Sequence",
];

/// A stored message, believed in nothing but its place in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verbatim {
    /// Where it was published.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the stream stored it, by the server's clock.
    pub time: Timestamp,
    /// Its own headers, by name.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Bytes,
}

impl Verbatim {
    /// The message checked, as every other way of reading it does.
    pub fn stored(&self) -> Result<Stored, DecodeError> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            // One that is none is left out: what then is missing is missed by the envelope.
            let name = name.parse::<HeaderName>();
            let value = value.parse::<HeaderValue>();
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        decode::stored(Parts {
            subject: &self.subject,
            headers: Some(&headers),
            sequence: self.sequence,
            time: self.time,
            body: self.body.clone(),
        })
    }

    /// The first header of a name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it stands for a value that was removed from a bucket.
    pub fn is_removal(&self) -> bool {
        matches!(self.header("KV-Operation"), Some("DEL" | "PURGE")) || self.header("Nats-Marker-Reason").is_some()
    }
}

/// An answer that does not say where its message stands.
#[derive(Debug, thiserror::Error)]
#[error("a message came without the stream's own {0}")]
pub(crate) struct NotInStream(&'static str);

/// A message that a direct get answered with. The server appends its own headers, so the last of a name is its.
pub(crate) fn verbatim(message: &async_nats::Message) -> Result<Verbatim, NotInStream> {
    let own = |name: &'static str| {
        let headers = message.headers.as_ref()?;
        headers.get_last(name).map(async_nats::HeaderValue::as_str)
    };
    let sequence = own("Nats-Sequence").and_then(|text| text.parse().ok());
    let time = own("Nats-Time-Stamp").and_then(|text| text.parse().ok());
    let mut headers = Vec::new();
    for (name, values) in message.headers.iter().flat_map(HeaderMap::iter) {
        let name: &str = name.as_ref();
        if !OF_THE_ANSWER.contains(&name) {
            headers.extend(values.iter().map(|value| (name.to_owned(), value.as_str().to_owned())));
        }
    }
    // The client library does not keep the order of headers; a fixed one makes the same message the same bytes.
    headers.sort();
    Ok(Verbatim {
        subject: own("Nats-Subject").ok_or(NotInStream("subject"))?.to_owned(),
        sequence: sequence.ok_or(NotInStream("sequence"))?,
        time: time.ok_or(NotInStream("time"))?,
        headers,
        body: message.payload.clone(),
    })
}

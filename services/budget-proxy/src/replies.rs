//! Kept replies: what a landed call answered, for whoever asks again under the same idempotency key.
//!
//! They live in KV `replies`, in memory and for minutes: long enough for a runner to be taken over, short enough that
//! nobody depends on them. Only complete answers are kept. A key names a call together with what was asked: the same key
//! with another body is another call, for the answer to one request must never pass for that to another.
//!
//! A bucket that is lost has kept nothing, and that is no error. A bus that does not answer is one: whether a call was
//! made before is then not known, and it must not be made.
//!
//! A bucket that is full forgets the oldest reply for the newest, and whoever watches it is told. A reply that is too large for
//! a message lies in the blobs, and the bucket names it; it is swept there when nobody can ask for it any more.

use std::time::Duration;

use async_nats::StatusCode;
use async_nats::jetstream::{kv, stream::DirectGetErrorKind};
use bytes::Bytes;
use kit::{
    blobs::{BlobError, Blobs},
    bus::Bus,
    class::{Classified as _, ErrorClass, chain},
    streams,
};
use schemas::{BlobRef, RunId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::upstream::Api;

/// Replies above this are kept in the blobs: below the bus's `max_payload` with room for headers.
const MAX_INLINE_BYTES: usize = 900 * 1024;

/// From this size on a reply is compressed: a stream of many small events becomes a tenth, so that long answers fit and
/// the bucket holds many. Below, it would only take time.
const COMPRESS_FROM_BYTES: usize = 64 * 1024;

/// Fast, and good enough for text that repeats itself.
const COMPRESSION_LEVEL: i32 = 1;

/// Pause between tries to keep a reply.
const RETRY: Duration = Duration::from_millis(100);

/// How often that is tried on a bus that is there: a server that has just started takes a moment for its streams.
const TRIES: u32 = 10;

/// The bucket of kept replies.
const BUCKET: &str = "replies";

/// A reply could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The bucket is not to be had.
    #[error("bucket replies is not to be had")]
    Bucket(#[source] Box<async_nats::jetstream::context::KeyValueError>),
    /// The bus did not answer.
    #[error("a kept reply can not be looked for")]
    Read(#[source] async_nats::jetstream::stream::DirectGetError),
    /// The bus did not answer in time.
    #[error("the bus did not say within {0:?} whether a reply is kept")]
    Silent(Duration),
    /// It could not be written.
    #[error("a reply can not be kept")]
    Write(#[source] kv::PutError),
    /// It is too large for the bucket, and could not be written elsewhere.
    #[error("a large reply can not be kept")]
    Store(#[source] BlobError),
    /// It lies elsewhere, and can not be had from there.
    #[error("a large kept reply can not be had")]
    Fetch(#[source] BlobError),
    /// The bus does not say how full the bucket is.
    #[error("it can not be looked up how full bucket replies is")]
    Measure(#[source] async_nats::jetstream::stream::InfoError),
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its content type.
    pub content_type: String,
    /// Its body, as it came.
    pub body: Vec<u8>,
}

/// The line before a kept body.
#[derive(Serialize, Deserialize)]
struct Head {
    content_type: String,
    /// Size of the body before it was compressed, when it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    /// Where all of it lies, when it was too large: another such line and its body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blob: Option<BlobRef>,
}

/// What the bucket holds under a key.
#[derive(Debug, PartialEq, Eq)]
enum Kept {
    Reply(Reply),
    In(BlobRef),
}

/// Names a call: its run, and a digest of its idempotency key and of what was asked. A run can not name another's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CallKey {
    /// The run.
    pub run: RunId,
    call: [u8; 32],
}

impl CallKey {
    /// The key of a call that its caller named `idempotency_key`.
    pub fn new(run: RunId, api: Api, idempotency_key: &str, body: &[u8]) -> Self {
        let mut hash = Sha256::new();
        for part in [api.as_str().as_bytes(), idempotency_key.as_bytes(), body] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self { run, call: hash.finalize().into() }
    }

    fn name(&self) -> String {
        format!("{}.{}", self.run, data_encoding::HEXLOWER.encode(&self.call))
    }
}

/// The kept replies.
#[derive(Debug, Clone)]
pub struct Replies {
    bus: Bus,
    bucket: kv::Store,
    blobs: Blobs,
    patience: Duration,
}

impl Replies {
    /// Opens the bucket; `patience` is for its answers.
    pub async fn open(bus: &Bus, patience: Duration) -> Result<Self, ReplyError> {
        let mut bucket = bus.jetstream().get_key_value(BUCKET).await;
        if bucket.is_err() {
            restore(bus).await;
            bucket = bus.jetstream().get_key_value(BUCKET).await;
        }
        let bucket = bucket.map_err(|error| ReplyError::Bucket(Box::new(error)))?;
        Ok(Self { bus: bus.clone(), bucket, blobs: Blobs::new(bus), patience })
    }

    /// The reply kept under `key`.
    pub async fn get(&self, key: &CallKey) -> Result<Option<Reply>, ReplyError> {
        let subject = format!("{}{}", self.bucket.prefix, key.name());
        let asked = self.bucket.stream.direct_get_last_for_subject(subject);
        let got = tokio::time::timeout(self.patience, asked).await;
        match got.map_err(|_| ReplyError::Silent(self.patience))? {
            Ok(message) => match decode(&message.payload) {
                Some(Kept::In(blob)) => self.fetch(&blob).await,
                Some(Kept::Reply(reply)) => Ok(Some(reply)),
                None => Ok(None),
            },
            Err(error) => match error.kind() {
                DirectGetErrorKind::NotFound => Ok(None),
                DirectGetErrorKind::ErrorResponse(StatusCode::NO_RESPONDERS, _) => {
                    tracing::warn!("the bucket of kept replies is lost, and all of them with it");
                    Ok(None)
                }
                _ => Err(ReplyError::Read(error)),
            },
        }
    }

    /// A reply that lies in the blobs. One that is lost there was not kept.
    async fn fetch(&self, blob: &BlobRef) -> Result<Option<Reply>, ReplyError> {
        let got = tokio::time::timeout(self.patience, self.blobs.get(blob)).await;
        match got.map_err(|_| ReplyError::Silent(self.patience))? {
            Ok(content) => match decode(&content) {
                Some(Kept::Reply(reply)) => Ok(Some(reply)),
                _ => Ok(None),
            },
            Err(error) if error.class() == ErrorClass::Broken => {
                tracing::warn!(error = %chain(&error), "a large kept reply is lost");
                Ok(None)
            }
            Err(error) => Err(ReplyError::Fetch(error)),
        }
    }

    /// How full the bucket is, in percent.
    pub async fn percent(&self) -> Result<u64, ReplyError> {
        let info = self.bucket.stream.get_info().await.map_err(ReplyError::Measure)?;
        let most = u64::try_from(info.config.max_bytes).unwrap_or(0);
        Ok(info.state.bytes.saturating_mul(100).checked_div(most).unwrap_or(0))
    }

    /// Keeps a reply. While the bus is away it waits, for as long as its owner lets it.
    pub async fn keep(&self, key: &CallKey, reply: Bytes) {
        let mut tries = 0;
        loop {
            self.bus.connected().await;
            let Err(error) = self.try_keep(key, &reply).await else {
                return;
            };
            if self.bus.is_connected() {
                tries += 1;
                if tries == TRIES {
                    return tracing::error!(
                        error = %chain(&error),
                        "the reply can not be kept: a repeat would be paid again"
                    );
                }
                restore(&self.bus).await;
            }
            tracing::debug!(error = %chain(&error), "the reply is not kept yet");
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn try_keep(&self, key: &CallKey, reply: &Bytes) -> Result<(), ReplyError> {
        let value = if reply.len() > MAX_INLINE_BYTES {
            let blob = self.blobs.put(reply.clone()).await.map_err(ReplyError::Store)?;
            head(&Head { content_type: String::new(), size: None, blob: Some(blob) }).into()
        } else {
            reply.clone()
        };
        self.bucket.put(key.name(), value).await.map_err(ReplyError::Write)?;
        Ok(())
    }
}

/// Makes the bucket anew if it is lost; one that is full stays as it is.
async fn restore(bus: &Bus) {
    if let Err(error) = streams::restore_replies(bus).await {
        tracing::warn!(error = %chain(&error), "the bucket of kept replies can not be looked after");
    }
}

/// A line of JSON, then the body, compressed when it is large. Takes milliseconds for megabytes.
pub fn encode(content_type: &str, body: &[u8]) -> Bytes {
    let packed =
        (body.len() >= COMPRESS_FROM_BYTES).then(|| zstd::bulk::compress(body, COMPRESSION_LEVEL).ok()).flatten();
    let size = packed.as_ref().map(|_| body.len());
    let mut bytes = head(&Head { content_type: content_type.to_owned(), size, blob: None });
    bytes.extend_from_slice(packed.as_deref().unwrap_or(body));
    bytes.into()
}

fn head(head: &Head) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(head).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}

fn decode(bytes: &[u8]) -> Option<Kept> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
    if let Some(blob) = head.blob {
        return Some(Kept::In(blob));
    }
    let body = &bytes[end + 1..];
    let body = match head.size {
        None => body.to_vec(),
        Some(size) => zstd::bulk::decompress(body, size.min(crate::answer::MAX_ANSWER_BYTES)).ok()?,
    };
    Some(Kept::Reply(Reply { content_type: head.content_type, body }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_survives_being_kept() {
        let event = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\"}\n\n";
        for body in ["{}\n{}".to_owned(), event.repeat(20_000)] {
            let kept = encode("text/event-stream", body.as_bytes());
            assert!(kept.len() < MAX_INLINE_BYTES);
            let Some(Kept::Reply(reply)) = decode(&kept) else { panic!("no reply") };
            assert_eq!(reply.content_type, "text/event-stream");
            assert!(reply.body == body.as_bytes());
        }
        assert_eq!(decode(b"garbage"), None);
    }

    #[test]
    fn a_key_names_one_call_of_one_run() {
        let run = |n| RunId::from_uuid(uuid::Uuid::from_u128(n));
        let key = CallKey::new(run(1), Api::Anthropic, "k", b"body");
        assert_eq!(key, CallKey::new(run(1), Api::Anthropic, "k", b"body"));
        for other in [
            CallKey::new(run(2), Api::Anthropic, "k", b"body"),
            CallKey::new(run(1), Api::OpenAi, "k", b"body"),
            CallKey::new(run(1), Api::Anthropic, "kb", b"ody"),
            CallKey::new(run(1), Api::Anthropic, "k", b"other"),
        ] {
            assert_ne!(key.name(), other.name());
        }
    }
}

//! Kept replies: what a landed call answered, for whoever asks again under the same idempotency key.
//!
//! They live in KV `replies`, in memory and for minutes: long enough for a runner to be taken over, short enough that
//! nobody depends on them. Only complete answers are kept.

use async_nats::jetstream::kv;
use bytes::Bytes;
use kit::bus::Bus;
use schemas::RunId;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Answers above this are not kept: below the bus's `max_payload` with room for the header line.
const MAX_KEPT_BYTES: usize = 900 * 1024;

/// The bucket of kept replies.
const BUCKET: &str = "replies";

/// A reply could not be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum ReplyError {
    /// The bucket is not to be had.
    #[error("bucket replies is not to be had")]
    Bucket(#[source] Box<async_nats::jetstream::context::KeyValueError>),
    /// It could not be read.
    #[error("a kept reply can not be read")]
    Read(#[source] kv::EntryError),
    /// It could not be written.
    #[error("a reply can not be kept")]
    Write(#[source] kv::PutError),
}

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its content type.
    pub content_type: String,
    /// Its body, as it came.
    pub body: Bytes,
}

#[derive(Serialize, Deserialize)]
struct Head {
    content_type: String,
}

/// Names a call within its run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CallKey(String);

impl CallKey {
    /// The key of a call that its caller named `idempotency_key`. A run can not name another run's call.
    pub fn new(run: RunId, idempotency_key: &str) -> Self {
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(idempotency_key.as_bytes()));
        Self(format!("{run}.{digest}"))
    }
}

/// The kept replies.
#[derive(Debug, Clone)]
pub struct Replies {
    bucket: kv::Store,
}

impl Replies {
    /// Opens the bucket.
    pub async fn open(bus: &Bus) -> Result<Self, ReplyError> {
        let bucket = bus.jetstream().get_key_value(BUCKET).await;
        Ok(Self { bucket: bucket.map_err(|error| ReplyError::Bucket(Box::new(error)))? })
    }

    /// The reply kept under `key`.
    pub async fn get(&self, key: &CallKey) -> Result<Option<Reply>, ReplyError> {
        let kept = self.bucket.get(&key.0).await.map_err(ReplyError::Read)?;
        Ok(kept.and_then(|bytes| decode(&bytes)))
    }

    /// Keeps a reply; one that is too large is not kept.
    pub async fn put(&self, key: &CallKey, reply: &Reply) -> Result<(), ReplyError> {
        if reply.body.len() > MAX_KEPT_BYTES {
            tracing::warn!(bytes = reply.body.len(), "the reply is too large to be kept");
            return Ok(());
        }
        self.bucket.put(&key.0, encode(reply)).await.map_err(ReplyError::Write)?;
        Ok(())
    }
}

/// A line of JSON, then the body.
fn encode(reply: &Reply) -> Bytes {
    let head = Head { content_type: reply.content_type.clone() };
    let mut bytes = serde_json::to_vec(&head).unwrap_or_default();
    bytes.push(b'\n');
    bytes.extend_from_slice(&reply.body);
    bytes.into()
}

fn decode(bytes: &Bytes) -> Option<Reply> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let head: Head = serde_json::from_slice(&bytes[..end]).ok()?;
    Some(Reply { content_type: head.content_type, body: bytes.slice(end + 1..) })
}

//! Blobs: what is too large for a message, in the object store `blobs`, named by its content.
//!
//! A blob is put only when it is not there, and checked against its name when it is read. Putting it before the message
//! that names it means that a crash in between leaves a blob that nothing names; [`Blobs::sweep`] removes those.
//!
//! The objects are those of NATS' object store, so its tools read them. Writing and reading is not left to the client
//! library's: that one publishes chunk by chunk, makes a consumer for each read, purges (which services may not) when
//! two write the same, and takes an object that was deleted for one that is there.

mod object;
mod sweep;

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::context::PublishError;
use async_nats::{HeaderMap, HeaderValue};
use bytes::{Bytes, BytesMut};
use jiff::{SignedDuration, Timestamp};
use schemas::content::MAX_INLINE_BYTES;
use schemas::{BlobRef, Text};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::bus::{Bus, Fault, Last, code};
use crate::class::{Classified, ErrorClass};
use crate::clock;

use object::{Info, chunk_subject, meta_subject};

/// The object store.
pub const STORE: &str = "blobs";

/// Its stream.
const STREAM: &str = "OBJ_blobs";

/// Largest blob that is read into memory: above the largest snapshot of a worktree that the runner takes.
pub const MAX_BLOB_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of a text that stand beside the reference to its blob, for timelines.
const PREVIEW_BYTES: usize = 1024;

/// Size of a chunk, as the tools of NATS have it.
const CHUNK_BYTES: usize = 128 * 1024;

/// Chunks under way at once: two megabytes, enough to hide the way there and back.
const CHUNKS_AT_ONCE: usize = 16;

/// A blob that is put again gets a new time when it is older than this, so that no sweep takes it from under who put it.
/// A sweep must therefore leave alone what is younger than some hours.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// How often the chunks of an object are read that are not all there: a replica may lag.
const READ_ATTEMPTS: u32 = 5;

/// Pause between these.
const READ_AGAIN: Duration = Duration::from_millis(50);

/// A blob could not be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// It could not be written.
    #[error("blob {digest} can not be stored")]
    Put {
        /// Its name.
        digest: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The store has no room.
    #[error("the object store has no room for blob {digest}")]
    Full {
        /// Its name.
        digest: String,
    },
    /// There is none of that name.
    #[error("there is no blob {digest}")]
    Missing {
        /// Its name.
        digest: String,
    },
    /// It could not be read.
    #[error("blob {digest} can not be read")]
    Get {
        /// Its name.
        digest: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It is larger than what is kept or read.
    #[error("blob {digest} has {bytes} bytes, {MAX_BLOB_BYTES} are allowed")]
    TooLarge {
        /// Its name.
        digest: String,
        /// Its size.
        bytes: u64,
    },
    /// Its content is not what its name says.
    #[error("blob {digest} holds something else")]
    Corrupt {
        /// Its name.
        digest: String,
    },
    /// What is there could not be listed or removed.
    #[error("the blobs can not be swept")]
    Sweep(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Classified for BlobError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::TooLarge { .. } | Self::Corrupt { .. } | Self::Missing { .. } => ErrorClass::Broken,
            _ => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "blob_too_large",
            Self::Corrupt { .. } => "blob_corrupt",
            Self::Missing { .. } => "blob_missing",
            Self::Full { .. } => "blobs_full",
            Self::Put { .. } | Self::Get { .. } | Self::Sweep(_) => "blob_unavailable",
        }
    }
}

/// The blobs of a project. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Blobs {
    bus: Bus,
    renew_after: SignedDuration,
}

/// An object that is there.
struct There {
    info: Info,
    stored: Timestamp,
    sequence: u64,
}

impl Blobs {
    /// The blobs of the bus's project.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), renew_after: RENEW_AFTER }
    }

    /// With another age at which a blob that is put again gets a new time: no test waits for an hour.
    #[doc(hidden)]
    pub fn for_test(bus: &Bus, renew_after: SignedDuration) -> Self {
        Self { bus: bus.clone(), renew_after }
    }

    /// Keeps `content`, unless it is kept already.
    pub async fn put(&self, content: Bytes) -> Result<BlobRef, BlobError> {
        let digest = digest(&content);
        let bytes = content.len() as u64;
        if bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { digest, bytes });
        }
        let put = async {
            let Some(there) = self.info(&digest).await? else {
                return self.write(&digest, &content).await;
            };
            // What is old and not named may be about to be swept: whoever is about to name it renews it.
            if !self.is_old(&there) || self.renew(&there).await? {
                return Ok(());
            }
            // A sweep was quicker, which takes the chunks as well, or another writer.
            match self.info_from_leader(&digest).await? {
                Some(there) if !self.is_old(&there) => Ok(()),
                _ => self.write(&digest, &content).await,
            }
        };
        match put.await {
            Ok(()) => Ok(BlobRef { blob: digest, bytes, preview: None }),
            Err(fault) if Fault::is_full(&fault) => Err(BlobError::Full { digest }),
            Err(fault) => Err(BlobError::Put { digest, source: Box::new(fault) }),
        }
    }

    /// The content of a blob.
    pub async fn get(&self, blob: &BlobRef) -> Result<Bytes, BlobError> {
        let name = blob.blob.clone();
        if blob.bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { digest: name, bytes: blob.bytes });
        }
        let failed = |fault: Fault| BlobError::Get { digest: name.clone(), source: Box::new(fault) };
        let mut info = self.info(&name).await.map_err(failed)?;
        if info.is_none() {
            info = self.info_from_leader(&name).await.map_err(failed)?;
        }
        let There { info, .. } = info.ok_or_else(|| BlobError::Missing { digest: name.clone() })?;
        if info.size > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { digest: name, bytes: info.size });
        }
        let content = self.read(&info).await.map_err(failed)?;
        if digest(&content) == name { Ok(content) } else { Err(BlobError::Corrupt { digest: name }) }
    }

    /// A text as it belongs into a message: inline when it is short, else as a blob with its beginning.
    pub async fn text(&self, text: String) -> Result<Text, BlobError> {
        if text.len() <= MAX_INLINE_BYTES {
            return Ok(Text::Inline(text));
        }
        let preview = text[..text.floor_char_boundary(PREVIEW_BYTES)].to_owned();
        let blob = self.put(text.into()).await?;
        Ok(Text::Blob(BlobRef { preview: Some(preview), ..blob }))
    }

    /// The text itself.
    pub async fn load(&self, text: &Text) -> Result<String, BlobError> {
        match text {
            Text::Inline(text) => Ok(text.clone()),
            Text::Blob(blob) => {
                let content = self.get(blob).await?;
                String::from_utf8(content.into()).map_err(|_| BlobError::Corrupt { digest: blob.blob.clone() })
            }
        }
    }

    /// What the store says of an object that is there, and since when.
    async fn info(&self, name: &str) -> Result<Option<There>, Fault> {
        let found = self.bus.last_on(STREAM, &meta_subject(name)).await?;
        present(found)
    }

    /// The same from the stream's leader: what was put a moment ago may not be everywhere yet.
    async fn info_from_leader(&self, name: &str) -> Result<Option<There>, Fault> {
        let request = json!({ "last_by_subj": meta_subject(name) });
        let found = self.bus.leader_get(STREAM, &request).await?;
        let last = found.and_then(|found| found.opaque().map(|(time, body)| Last { sequence: found.seq, time, body }));
        present(last)
    }

    /// Writes an object: its chunks, several at a time, and when all are stored its name. Of two that write the same
    /// at once the later name counts; the other's chunks are swept.
    async fn write(&self, name: &str, content: &Bytes) -> Result<(), Fault> {
        let nuid = Uuid::new_v4().simple().to_string();
        let subject = chunk_subject(&nuid);
        let mut acks = VecDeque::new();
        let starts = (0..content.len()).step_by(CHUNK_BYTES);
        let chunks = starts.len();
        for at in starts {
            let chunk = content.slice(at..content.len().min(at + CHUNK_BYTES));
            self.bus.wait_connected().await?;
            // Sent one after the other, for their order in the stream is their order in the object.
            let sent = self.bus.jetstream().publish(subject.clone(), chunk).await;
            acks.push_back(sent.map_err(|error| refused(&error))?);
            if acks.len() == CHUNKS_AT_ONCE
                && let Some(oldest) = acks.pop_front()
            {
                oldest.await.map_err(|error| refused(&error))?;
            }
        }
        for ack in acks {
            ack.await.map_err(|error| refused(&error))?;
        }
        let info = Info::new(name, &nuid, content.len() as u64, chunks, clock::now());
        self.publish_info(&info, None).await
    }

    fn is_old(&self, there: &There) -> bool {
        clock::now().duration_since(there.stored) > self.renew_after
    }

    /// Gives the name of an object a new time; false when it is not there any more as it was found. The server decides between
    /// this and a sweep: of a name that is renewed the sweep leaves the chunks, and a name that is swept is not renewed.
    async fn renew(&self, there: &There) -> Result<bool, Fault> {
        match self.publish_info(&there.info, Some(there.sequence)).await {
            Ok(()) => Ok(true),
            Err(fault)
                if matches!(fault.code(), Some(code::WRONG_LAST_SEQUENCE | code::WRONG_LAST_SEQUENCE_IN_FLIGHT)) =>
            {
                Ok(false)
            }
            Err(fault) => Err(fault),
        }
    }

    /// Names an object, or renews its name, whose last sequence is then `expected`.
    async fn publish_info(&self, info: &Info, expected: Option<u64>) -> Result<(), Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_ROLLUP, "sub");
        if let Some(expected) = expected {
            headers.insert(async_nats::header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
        }
        let body = serde_json::to_vec(info).map_err(|error| Fault::Garbled(error.to_string()))?;
        let subject = meta_subject(&info.name);
        self.bus.publish_once(&subject, headers, body.into()).await?;
        Ok(())
    }

    async fn read(&self, info: &Info) -> Result<Bytes, Fault> {
        for attempt in 1.. {
            let content = self.try_read(info).await?;
            if content.len() as u64 >= info.size {
                return Ok(content);
            }
            if attempt == READ_ATTEMPTS {
                break;
            }
            tokio::time::sleep(READ_AGAIN).await;
        }
        Err(Fault::Garbled("an object without all of its chunks".to_owned()))
    }

    async fn try_read(&self, info: &Info) -> Result<Bytes, Fault> {
        let subject = chunk_subject(&info.nuid);
        let mut content = BytesMut::new();
        let mut from = 0;
        loop {
            let page = self.bus.page(STREAM, &subject, from).await?;
            for message in &page.messages {
                content.extend_from_slice(&message.payload);
            }
            if !page.more || content.len() as u64 > MAX_BLOB_BYTES {
                return Ok(content.freeze());
            }
            from = page.last_sequence + 1;
        }
    }
}

fn present(found: Option<Last>) -> Result<Option<There>, Fault> {
    let Some(Last { sequence, time: stored, body }) = found else {
        return Ok(None);
    };
    let info: Info =
        serde_json::from_slice(&body).map_err(|error| Fault::Garbled(format!("an object that is none: {error}")))?;
    Ok((!info.deleted).then_some(There { info, stored, sequence }))
}

fn refused(error: &PublishError) -> Fault {
    let said = std::error::Error::source(error);
    match said.and_then(|said| said.downcast_ref::<jetstream::Error>()) {
        Some(problem) => Fault::Api { code: problem.error_code().0, description: problem.to_string() },
        None => Fault::Garbled(error.to_string()),
    }
}

fn digest(content: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(content))
}

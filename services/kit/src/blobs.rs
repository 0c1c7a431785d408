//! Blobs: what is too large for a message, in the object store `blobs`, named by its content.
//!
//! A blob is put only when it is not there, and checked against its name when it is read. Putting it before the message
//! that names it means that a crash in between leaves a blob that nothing names; [`Blobs::sweep`] removes those.

use std::collections::HashSet;

use async_nats::jetstream::context::ObjectStoreError;
use async_nats::jetstream::object_store::{self, ObjectStore};
use bytes::Bytes;
use futures::StreamExt as _;
use schemas::content::MAX_INLINE_BYTES;
use schemas::{BlobRef, Text};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use tokio::sync::OnceCell;

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};

/// The object store.
pub const STORE: &str = "blobs";

/// Largest blob that is read into memory: above the largest snapshot of a worktree that the runner takes.
pub const MAX_BLOB_BYTES: u64 = 256 * 1024 * 1024;

/// Bytes of a text that stand beside the reference to its blob, for timelines.
const PREVIEW_BYTES: usize = 1024;

/// A blob could not be kept or had.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store is not to be had.
    #[error("the object store is not to be had")]
    Store(#[source] ObjectStoreError),
    /// It could not be written.
    #[error("blob {digest} can not be stored")]
    Put {
        /// Its name.
        digest: String,
        /// Why.
        #[source]
        source: object_store::PutError,
    },
    /// It could not be found.
    #[error("blob {digest} can not be had")]
    Get {
        /// Its name.
        digest: String,
        /// Why.
        #[source]
        source: object_store::GetError,
    },
    /// It broke off while it was read.
    #[error("blob {digest} can not be read")]
    Read {
        /// Its name.
        digest: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is larger than what is read.
    #[error("blob {digest} has {bytes} bytes, {MAX_BLOB_BYTES} are read")]
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
            Self::TooLarge { .. } | Self::Corrupt { .. } => ErrorClass::Broken,
            _ => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "blob_too_large",
            Self::Corrupt { .. } => "blob_corrupt",
            _ => "blob_unavailable",
        }
    }
}

/// The blobs of a project. Clones share the connection.
#[derive(Clone)]
pub struct Blobs {
    bus: Bus,
    store: std::sync::Arc<OnceCell<ObjectStore>>,
}

impl std::fmt::Debug for Blobs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Blobs").field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl Blobs {
    /// The blobs of the bus's project.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), store: std::sync::Arc::default() }
    }

    /// Keeps `content`, unless it is kept already.
    pub async fn put(&self, content: Bytes) -> Result<BlobRef, BlobError> {
        let digest = digest(&content);
        let store = self.store().await?;
        if store.info(&digest).await.is_err() {
            let mut reader = content.as_ref();
            let put = store.put(digest.as_str(), &mut reader).await;
            put.map_err(|source| BlobError::Put { digest: digest.clone(), source })?;
        }
        Ok(BlobRef { blob: digest, bytes: content.len() as u64, preview: None })
    }

    /// The content of a blob.
    pub async fn get(&self, blob: &BlobRef) -> Result<Bytes, BlobError> {
        let name = blob.blob.clone();
        if blob.bytes > MAX_BLOB_BYTES {
            return Err(BlobError::TooLarge { digest: name, bytes: blob.bytes });
        }
        let store = self.store().await?;
        let mut object = store.get(&name).await.map_err(|source| BlobError::Get { digest: name.clone(), source })?;
        let mut content = Vec::new();
        let read = object.read_to_end(&mut content).await;
        read.map_err(|source| BlobError::Read { digest: name.clone(), source })?;
        if digest(&content) == name { Ok(content.into()) } else { Err(BlobError::Corrupt { digest: name }) }
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

    /// Removes every blob whose name is not in `named` and that was stored before `before`. Gives how many.
    pub async fn sweep(&self, named: &HashSet<String>, before: jiff::Timestamp) -> Result<u64, BlobError> {
        let store = self.store().await?;
        let mut listed = store.list().await.map_err(|error| BlobError::Sweep(Box::new(error)))?;
        let mut removed = 0;
        while let Some(info) = listed.next().await {
            let info = info.map_err(|error| BlobError::Sweep(Box::new(error)))?;
            let old = info.modified.is_some_and(|at| at.unix_timestamp() < before.as_second());
            if old && !named.contains(&info.name) {
                let deleted = store.delete(&info.name).await;
                deleted.map_err(|error| BlobError::Sweep(Box::new(error)))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn store(&self) -> Result<&ObjectStore, BlobError> {
        self.store.get_or_try_init(|| self.bus.jetstream().get_object_store(STORE)).await.map_err(BlobError::Store)
    }
}

fn digest(content: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(&Sha256::digest(content))
}

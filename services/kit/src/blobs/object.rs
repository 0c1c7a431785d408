//! How NATS' object store writes an object down.

use data_encoding::BASE64URL;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{CHUNK_BYTES, STORE};

/// What the store knows of an object.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Info {
    pub(super) name: String,
    bucket: String,
    pub(super) nuid: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    chunks: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    digest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    options: Option<Options>,
    #[serde(default, rename = "mtime", skip_serializing_if = "Option::is_none")]
    modified: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) deleted: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Options {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    max_chunk_size: Option<usize>,
}

impl Info {
    /// An object named by the SHA-256 of its content, in lower-case hex.
    pub(super) fn new(name: &str, nuid: &str, size: u64, chunks: usize, now: Timestamp) -> Self {
        let digest = data_encoding::HEXLOWER.decode(name.as_bytes()).ok();
        Self {
            name: name.to_owned(),
            bucket: STORE.to_owned(),
            nuid: nuid.to_owned(),
            size,
            chunks,
            digest: digest.map(|digest| format!("SHA-256={}", BASE64URL.encode(&digest))),
            options: Some(Options { max_chunk_size: Some(CHUNK_BYTES) }),
            modified: Some(now),
            deleted: false,
        }
    }
}

/// All that names objects.
pub(super) fn metas() -> String {
    format!("$O.{STORE}.M.>")
}

/// All that objects consist of.
pub(super) fn chunks() -> String {
    format!("$O.{STORE}.C.>")
}

/// Where an object's description lies.
pub(super) fn meta_subject(name: &str) -> String {
    format!("$O.{STORE}.M.{}", BASE64URL.encode(name.as_bytes()))
}

/// Where its chunks lie.
pub(super) fn chunk_subject(nuid: &str) -> String {
    format!("$O.{STORE}.C.{nuid}")
}

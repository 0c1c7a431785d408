//! The archive of a run: its messages as they were stored, one JSON object a line behind a line that says what it is.
//!
//! Messages are kept as bytes and never decoded to be written again, so that what a newer version wrote is not lost.
//! Archives are read for as long as the project lives: versions are append-only.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use data_encoding::{BASE64, HEXLOWER};
use jiff::Timestamp;
use kit::message::Verbatim;
use schemas::{RunId, Subject};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::blobs::named_in;

/// The version that is written, and the newest that is read.
const VERSION: u32 = 1;

/// How hard to compress. Beyond the library's own default time grows far faster than size shrinks.
const LEVEL: i32 = 3;

/// What an archive may grow to when it is opened. A journal is limited to far less.
pub const MAX_OPEN_BYTES: u64 = 512 * 1024 * 1024;

/// Names that the decision about an archive lists: 67 bytes each, so they leave most of a message's room. Few runs come near.
pub const MAX_NAMES: usize = 2_000;

/// An archive that is ready to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// Compressed with zstd.
    pub content: Vec<u8>,
    /// SHA-256 of what was compressed, lower-case hex.
    pub digest: String,
    /// How many messages it holds, by subject kind.
    pub messages: BTreeMap<String, u64>,
    /// The sequence of the last message in it; 0 when it is empty.
    pub last_sequence: u64,
    /// The blobs that its messages name; none when there are more than [`MAX_NAMES`].
    pub blobs: Option<Vec<String>>,
}

/// An archive that can not be opened, or made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// It can not be compressed or decompressed.
    #[error("it can not be decompressed")]
    Zstd(#[source] io::Error),
    /// Its content is not what was archived.
    #[error("its content has the digest {found} and not the recorded one")]
    Digest {
        /// The content's.
        found: String,
    },
    /// It is of another kind, version or run.
    #[error("it is no archive of the run that this version reads")]
    Header,
    /// A line of it is no message.
    #[error("line {line} of it is no message")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A body in it is not base64.
    #[error("a body in it can not be read")]
    Body,
    /// It lacks messages.
    #[error("it holds {found} of {expected} messages")]
    Short {
        /// How many it holds.
        found: u64,
        /// How many it should hold.
        expected: u64,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Header {
    nightcrew_archive: u32,
    run_id: RunId,
    messages: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    subject: String,
    sequence: u64,
    time: Timestamp,
    headers: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<String>,
    /// For a body that is no text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body_base64: Option<String>,
}

/// Packs `messages`, which are in order of their sequences. The same messages are the same bytes.
pub fn pack(run: RunId, messages: &[Verbatim]) -> Result<Packed, ArchiveError> {
    let header = Header { nightcrew_archive: VERSION, run_id: run, messages: messages.len() as u64 };
    let mut plain = encode(&header, 1)?;
    let (mut kinds, mut names) = (BTreeMap::new(), BTreeSet::new());
    for (index, message) in messages.iter().enumerate() {
        plain.extend(encode(&Line::of(message), index + 2)?);
        *kinds.entry(kind(&message.subject).to_owned()).or_default() += 1;
        names.extend(named_in(&message.body));
    }
    let content = zstd::encode_all(plain.as_slice(), LEVEL).map_err(ArchiveError::Zstd)?;
    Ok(Packed {
        content,
        digest: digest(&plain),
        messages: kinds,
        last_sequence: messages.last().map_or(0, |message| message.sequence),
        blobs: (names.len() <= MAX_NAMES).then(|| names.into_iter().collect()),
    })
}

/// The messages in `content`, which must have the recorded digest.
pub fn unpack(run: RunId, content: &[u8], recorded: &str) -> Result<Vec<Verbatim>, ArchiveError> {
    let mut plain = Vec::new();
    let decoder = zstd::Decoder::new(content).map_err(ArchiveError::Zstd)?;
    io::Read::read_to_end(&mut io::Read::take(decoder, MAX_OPEN_BYTES), &mut plain).map_err(ArchiveError::Zstd)?;
    let found = digest(&plain);
    if found != recorded {
        return Err(ArchiveError::Digest { found });
    }
    let mut lines = plain.split(|byte| *byte == b'\n').enumerate();
    let header = lines.next().map(|(_, line)| line).unwrap_or_default();
    let header: Header = serde_json::from_slice(header).map_err(|_| ArchiveError::Header)?;
    if header.nightcrew_archive > VERSION || header.run_id != run {
        return Err(ArchiveError::Header);
    }
    let mut messages = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.is_empty()) {
        let line: Line =
            serde_json::from_slice(line).map_err(|source| ArchiveError::Line { line: index + 1, source })?;
        messages.push(line.verbatim()?);
    }
    let found = messages.len() as u64;
    if found == header.messages { Ok(messages) } else { Err(ArchiveError::Short { found, expected: header.messages }) }
}

impl Line {
    fn of(message: &Verbatim) -> Self {
        let text = std::str::from_utf8(&message.body).ok();
        Self {
            subject: message.subject.clone(),
            sequence: message.sequence,
            time: message.time,
            headers: message.headers.clone(),
            body: text.map(ToOwned::to_owned),
            body_base64: text.is_none().then(|| BASE64.encode(&message.body)),
        }
    }

    fn verbatim(self) -> Result<Verbatim, ArchiveError> {
        let body = match (self.body, self.body_base64) {
            (Some(text), _) => text.into_bytes(),
            (None, Some(coded)) => BASE64.decode(coded.as_bytes()).map_err(|_| ArchiveError::Body)?,
            (None, None) => return Err(ArchiveError::Body),
        };
        Ok(Verbatim {
            subject: self.subject,
            sequence: self.sequence,
            time: self.time,
            headers: self.headers,
            body: body.into(),
        })
    }
}

fn encode<T: Serialize>(line: &T, number: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut encoded = serde_json::to_vec(line).map_err(|source| ArchiveError::Line { line: number, source })?;
    encoded.push(b'\n');
    Ok(encoded)
}

fn digest(plain: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(plain))
}

/// What kind of subject a message came on.
fn kind(subject: &str) -> &'static str {
    match subject.parse::<Subject>() {
        Ok(Subject::Requested(..)) => "requested",
        Ok(Subject::Journal(_)) => "event",
        Ok(Subject::Say(..)) => "say",
        Ok(Subject::Effect(..)) => "effect",
        Ok(Subject::Signal(..)) => "signal",
        Ok(Subject::Call(_)) => "call",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(sequence: u64, body: &[u8]) -> Verbatim {
        Verbatim {
            subject: Subject::Call(run()).to_string(),
            sequence,
            time: "2026-11-21T02:00:00.123456789Z".parse().unwrap(),
            headers: vec![("ce-id".to_owned(), format!("m{sequence}"))],
            body: body.to_vec().into(),
        }
    }

    fn run() -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(7))
    }

    #[test]
    fn messages_come_back_as_they_were() {
        let messages = [message(3, b"{\"a\": 1}\n"), message(9, b"\xff\x00")];
        let packed = pack(run(), &messages).unwrap();
        let opened = unpack(run(), &packed.content, &packed.digest).unwrap();
        assert_eq!(opened, messages);
        assert_eq!(packed.last_sequence, 9);
        assert_eq!(packed.messages, [("call".to_owned(), 2)].into());
        assert_eq!(pack(run(), &messages).unwrap(), packed);
    }

    /// What stands in the project's store for good. Of a later version there will be another sample beside this one.
    #[test]
    fn an_archive_of_the_first_version_is_read_for_ever() {
        let golden = include_bytes!("../../tests/golden/archive.1.jsonl");
        let messages = [message(3, b"{\"a\": 1}\n"), message(9, b"\xff\x00")];
        let content = zstd::encode_all(golden.as_slice(), LEVEL).unwrap();
        assert_eq!(unpack(run(), &content, &digest(golden)).unwrap(), messages);
        assert_eq!(pack(run(), &messages).unwrap().digest, digest(golden), "the version says what is written");
    }

    #[test]
    fn what_is_not_the_archive_is_refused() {
        let packed = pack(run(), &[message(1, b"{}")]).unwrap();
        let other = RunId::from_uuid(uuid::Uuid::from_u128(8));
        let errors = [
            unpack(run(), &packed.content, "00"),
            unpack(other, &packed.content, &packed.digest),
            unpack(run(), b"no archive", &packed.digest),
        ];
        assert!(matches!(errors[0], Err(ArchiveError::Digest { .. })));
        assert!(matches!(errors[1], Err(ArchiveError::Header)));
        assert!(matches!(errors[2], Err(ArchiveError::Zstd(_))));
    }
}

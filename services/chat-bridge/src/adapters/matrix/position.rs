//! How far the rooms were read: a file beside the crypto store.
//!
//! It lies there and not on the bus because the two are of use only together: a device that lost its keys begins anew
//! in any case. It is replaced whole, so a crash leaves the old one, which only means that some messages are read
//! twice.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use matrix_sdk::ruma::{OwnedEventId, OwnedRoomId};
use serde::{Deserialize, Serialize};

use super::behind::Behind;

const FILE: &str = "position.json";

/// How far the rooms were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The sync token up to which everything has had its consequences.
    pub(super) since: Option<String>,
    /// When reading began without a position; kept before anything is read.
    #[serde(default)]
    pub(super) begun: Timestamp,
    /// The rooms whose events up to `since` were read.
    #[serde(default)]
    pub(super) rooms: BTreeSet<OwnedRoomId>,
    /// The rooms whose events up to `since` could not be read, with positions of their own.
    #[serde(default)]
    pub(super) behind: BTreeMap<OwnedRoomId, Behind>,
    /// Messages whose keys are missing.
    #[serde(default)]
    pub(super) unreadable: BTreeMap<OwnedEventId, Unreadable>,
}

impl Position {
    /// That of somebody who has read nothing.
    pub(super) fn beginning(now: Timestamp) -> Self {
        Self { since: None, begun: now, rooms: BTreeSet::new(), behind: BTreeMap::new(), unreadable: BTreeMap::new() }
    }
}

/// A message whose key is missing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unreadable {
    /// Its room.
    pub(super) room: OwnedRoomId,
    /// Its thread, which is not encrypted.
    pub(super) thread: Option<String>,
    /// When it was first seen, by our clock.
    pub(super) since: Timestamp,
    /// Whether the room was told.
    pub(super) told: bool,
}

/// The file of one folder.
#[derive(Debug, Clone)]
pub(super) struct PositionFile {
    path: PathBuf,
}

impl PositionFile {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join(FILE) }
    }

    /// What was kept; the beginning, kept from now on, when nothing was.
    pub(super) fn load(&self, now: Timestamp) -> io::Result<Position> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let beginning = Position::beginning(now);
                self.save(&beginning)?;
                Ok(beginning)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps `position`, on disk when this returns.
    pub(super) fn save(&self, position: &Position) -> io::Result<()> {
        replace(&self.path, &serde_json::to_vec(position).map_err(io::Error::other)?)
    }
}

/// Replaces a file by a new one that only its owner can read: all of the new content, or all of the old.
pub(super) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&new)?;
    file.write_all(content)?;
    file.sync_data()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_kept_and_a_missing_one_is_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        let file = PositionFile::in_folder(folder.path());
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let beginning = file.load(now).unwrap();
        assert_eq!(beginning, Position::beginning(now));
        // The beginning stays where it was.
        let later = now + jiff::SignedDuration::from_secs(1);
        assert_eq!(file.load(later).unwrap(), beginning);
        let position = Position {
            since: Some("s1".to_owned()),
            rooms: [OwnedRoomId::try_from("!a:x").unwrap()].into(),
            ..beginning
        };
        file.save(&position).unwrap();
        assert_eq!(file.load(later).unwrap(), position);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_the_beginning() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(FILE), "{").unwrap();
        let file = PositionFile::in_folder(folder.path());
        assert!(file.load(Timestamp::UNIX_EPOCH).is_err());
    }
}

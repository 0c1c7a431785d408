//! Reading and writing the files of an identity: secrets are 0600, and a file is old or new, never half.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::claims::{self, JetStreamLimits};

/// Version of the manifest that this code writes.
pub(super) const MANIFEST_VERSION: u32 = 1;

/// A file of an identity could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// Reading failed.
    #[error("reading `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Writing failed.
    #[error("writing `{}`", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The manifest is not one.
    #[error("`{}` is not the manifest of an identity", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The manifest was written by a later Nightcrew.
    #[error("`{}` has version {found}, this Nightcrew reads up to {MANIFEST_VERSION}", path.display())]
    Future {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
}

/// The public side of an identity: which keys belong to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub(super) version: u32,
    pub(super) project: String,
    pub(super) operator: String,
    pub(super) system_account: String,
    pub(super) account: String,
    pub(super) account_signing_key: String,
    /// Public key of each service's role.
    pub(super) roles: BTreeMap<String, String>,
    pub(super) limits: ManifestLimits,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ManifestLimits {
    memory: Option<u64>,
    disk: Option<u64>,
}

impl From<JetStreamLimits> for ManifestLimits {
    fn from(limits: JetStreamLimits) -> Self {
        let JetStreamLimits { memory, disk } = limits;
        Self { memory, disk }
    }
}

impl From<ManifestLimits> for JetStreamLimits {
    fn from(limits: ManifestLimits) -> Self {
        let ManifestLimits { memory, disk } = limits;
        Self { memory, disk }
    }
}

pub(super) fn read_manifest(path: &Path) -> Result<Manifest, FileError> {
    let text = read(path)?;
    let broken = |source| FileError::Manifest { path: path.to_owned(), source };
    let value: serde_json::Value = serde_json::from_str(&text).map_err(broken)?;
    let version = value.get("version").and_then(serde_json::Value::as_u64);
    match version.map(u32::try_from) {
        Some(Ok(found)) if found > MANIFEST_VERSION => Err(FileError::Future { path: path.to_owned(), found }),
        _ => serde_json::from_value(value).map_err(broken),
    }
}

pub(super) fn write_manifest(path: &Path, manifest: &Manifest) -> Result<(), FileError> {
    let text = serde_json::to_string_pretty(manifest)
        .map_err(|source| FileError::Manifest { path: path.to_owned(), source })?;
    write_if_changed(path, &text)
}

pub(super) fn read(path: &Path) -> Result<String, FileError> {
    fs::read_to_string(path).map_err(|source| FileError::Read { path: path.to_owned(), source })
}

pub(super) fn make_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| FileError::Write { path: path.to_owned(), source })
}

/// Whether `dir` exists and holds anything.
pub(super) fn has_entries(dir: &Path) -> Result<bool, FileError> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(FileError::Read { path: dir.to_owned(), source }),
    }
}

/// Writes a file that only its owner reads: beside it first, synced, then renamed into place.
pub(super) fn write_secret(path: &Path, text: &str) -> Result<(), FileError> {
    let staged = path.with_extension("new");
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&staged)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&staged, path)
    };
    write().map_err(|source| FileError::Write { path: path.to_owned(), source })
}

pub(super) fn write_if_changed(path: &Path, text: &str) -> Result<(), FileError> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(());
    }
    write_secret(path, text)
}

/// Writes a JWT unless the one there makes the same claims, and returns the one that then stands.
pub(super) fn write_jwt(path: &Path, jwt: String) -> Result<String, FileError> {
    if let Ok(old) = fs::read_to_string(path)
        && claims::decode_nats(&old).is_some()
        && claims::decode_nats(&old) == claims::decode_nats(&jwt)
    {
        return Ok(old);
    }
    write_secret(path, &jwt)?;
    Ok(jwt)
}

/// A directory that is filled beside its final place and then renamed there; removed when that never happens.
pub(super) struct Staging {
    folder: tempfile::TempDir,
}

impl Staging {
    pub(super) fn beside(dir: &Path) -> Result<Self, FileError> {
        let parent = match dir.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        make_dir(parent)?;
        let folder = tempfile::Builder::new()
            .prefix(".identity-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(parent)
            .map_err(|source| FileError::Write { path: parent.to_owned(), source })?;
        Ok(Self { folder })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn publish(self, dir: &Path) -> Result<(), FileError> {
        fs::rename(self.folder.path(), dir).map_err(|source| FileError::Write { path: dir.to_owned(), source })?;
        // It is no longer where the guard would remove it.
        let _ = self.folder.keep();
        Ok(())
    }
}

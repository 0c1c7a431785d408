//! The secret key on disk: read, or made at the first start.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use kit::token::{InvalidKey, SigningKey};

/// The key can not be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It can not be read.
    #[error("reading `{}`", path.display())]
    Read {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It can not be written.
    #[error("writing a new key to `{}`", path.display())]
    Write {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is none.
    #[error("`{}` holds no signing key", path.display())]
    Invalid {
        /// Its file.
        path: PathBuf,
        /// Why.
        #[source]
        source: InvalidKey,
    },
    /// Others may read it, so it is no secret.
    #[error("`{}` may be read by others (mode {mode:03o}): make it 600, or a new key if others had access", path.display())]
    Exposed {
        /// Its file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// The key in `path`, or a fresh one written there.
pub(crate) fn load_or_create(path: &Path) -> Result<SigningKey, KeyError> {
    match fs::read_to_string(path) {
        Ok(text) => load(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(path),
        Err(source) => Err(KeyError::Read { path: path.to_owned(), source }),
    }
}

fn load(path: &Path, text: &str) -> Result<SigningKey, KeyError> {
    let metadata = fs::metadata(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    SigningKey::from_text(text).map_err(|source| KeyError::Invalid { path: path.to_owned(), source })
}

/// Another replica may make one at the same moment: the file that was linked first is everybody's.
fn create(path: &Path) -> Result<SigningKey, KeyError> {
    let failed = |source| KeyError::Write { path: path.to_owned(), source };
    let key = SigningKey::generate();
    let staged = path.with_extension(format!("new-{}", key.public().kid()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged).map_err(failed)?;
    file.write_all(key.to_text().as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    let linked = fs::hard_link(&staged, path);
    fs::remove_file(&staged).map_err(failed)?;
    match linked {
        Ok(()) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => load_or_create(path),
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bearer.key");
        let made = load_or_create(&path).unwrap();
        let read = load_or_create(&path).unwrap();
        assert_eq!(made.public(), read.public());
        let permissions = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(permissions, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bearer.key");
        load_or_create(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Exposed { mode: 0o644, .. }));
    }

    #[test]
    fn a_broken_key_is_reported_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bearer.key");
        fs::write(&path, "half a k").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = load_or_create(&path).unwrap_err();
        assert!(matches!(error, KeyError::Invalid { .. }));
        assert_eq!(fs::read_to_string(&path).unwrap(), "half a k");
    }
}

//! Where a secret is. A crew's files never hold one.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use secrecy::SecretString;

/// Longest secret in bytes: a key file with a certificate chain is shorter; a wrong path to something big is refused.
const MAX_SECRET_BYTES: usize = 64 * 1024;

/// Names where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretRef {
    /// An environment variable.
    Env(String),
    /// A file; the secret is its text without surrounding white space.
    File(PathBuf),
}

/// A secret that is there and can not be had.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file can not be read.
    #[error("the secret file {} can not be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no secret.
    #[error("the secret file {} has more than {MAX_SECRET_BYTES} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

impl SecretRef {
    /// The secret, or nothing when the variable or file is not there or is empty; `env` looks a variable up.
    ///
    /// A file that is there and can not be read is an error and not an absence, because absence changes what runs.
    pub fn read(&self, env: impl Fn(&str) -> Option<String>) -> Result<Option<SecretString>, SecretError> {
        let text = match self {
            Self::Env(name) => env(name),
            Self::File(path) => file(path)?,
        };
        let secret = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        Ok(secret.map(SecretString::from))
    }

    /// Exactly one of the two is given in a file that was checked.
    pub(super) fn of(dir: &Path, env: Option<String>, file: Option<PathBuf>) -> Option<Self> {
        env.map(Self::Env).or_else(|| file.map(|path| Self::File(dir.join(path))))
    }
}

fn file(path: &Path) -> Result<Option<String>, SecretError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > MAX_SECRET_BYTES as u64 => {
            return Err(SecretError::TooLarge { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(SecretError::Read { path: path.to_owned(), source });
        }
    }
    fs::read_to_string(path).map(Some).map_err(|source| SecretError::Read { path: path.to_owned(), source })
}

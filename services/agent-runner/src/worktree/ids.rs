//! What a worktree is made from. Checked once, here, because these become arguments of git and paths.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use schemas::event::WorktreeSaved;

/// Longest name of a repository, and of a base: both become parts of paths.
const MAX_NAME_BYTES: usize = 200;

/// The full name of a commit.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CommitId(String);

impl CommitId {
    /// Takes 40 (SHA-1) or 64 (SHA-256) lower-case hex digits.
    pub fn try_new(text: impl Into<String>) -> Result<Self, InvalidId> {
        let text = text.into();
        let hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if hex && matches!(text.len(), 40 | 64) { Ok(Self(text)) } else { Err(InvalidId { text }) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, for people.
    pub fn short(&self) -> &str {
        &self.0[..10]
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that names no commit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not the full name of a commit")]
pub struct InvalidId {
    /// The text.
    pub text: String,
}

/// A repository that runs work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    name: String,
    source: PathBuf,
    base: String,
}

impl Repository {
    /// A repository by its name in the project, its source (an absolute path or a `file://` URL) and the branch, tag or commit
    /// that runs start from; `HEAD` is the source's own branch.
    pub fn try_new(name: &str, source: &str, base: &str) -> Result<Self, InvalidRepository> {
        let plain = |text: &str, more: &[u8]| {
            let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) || more.contains(&byte);
            !text.is_empty() && text.len() <= MAX_NAME_BYTES && text.bytes().all(known)
        };
        if !plain(name, b"") || name.starts_with(['.', '-']) {
            return Err(InvalidRepository::Name { name: name.to_owned() });
        }
        let path = Path::new(source.strip_prefix("file://").unwrap_or(source));
        if !path.is_absolute() {
            return Err(InvalidRepository::Source { source_text: source.to_owned() });
        }
        if !plain(base, b"/") || base.starts_with(['-', '/', '.']) || base.contains("..") {
            return Err(InvalidRepository::Base { base: base.to_owned() });
        }
        Ok(Self { name: name.to_owned(), source: path.to_owned(), base: base.to_owned() })
    }

    /// Its name in the project.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it is.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// What runs start from.
    pub fn base(&self) -> &str {
        &self.base
    }
}

/// Why something is no repository.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRepository {
    /// The name is not fit for a folder.
    #[error("{name:?} is not a repository's name: letters, digits, `-`, `_` and `.` only")]
    Name {
        /// The name.
        name: String,
    },
    /// The source is not on this machine.
    #[error("{source_text:?} is not a repository's source: an absolute path or a file:// URL")]
    Source {
        /// The source.
        source_text: String,
    },
    /// The base is not a plain name of a branch, tag or commit.
    #[error("{base:?} is not the name of a branch, tag or commit")]
    Base {
        /// The base.
        base: String,
    },
}

/// Where a run without snapshots begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartPoint {
    /// At the newest state of the repository's base.
    Base,
    /// At this commit of the repository.
    Commit(CommitId),
}

/// A snapshot that was saved, as the journal names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRef {
    /// The commit that the run's branch started from.
    pub base: CommitId,
    /// The head of the run's branch.
    pub head: CommitId,
    /// The commit that holds the worktree, uncommitted changes included.
    pub commit: CommitId,
    /// SHA-256 of the bundle.
    pub bundle: String,
}

impl TryFrom<&WorktreeSaved> for SnapshotRef {
    type Error = InvalidId;

    fn try_from(saved: &WorktreeSaved) -> Result<Self, Self::Error> {
        Ok(Self {
            base: CommitId::try_new(&saved.base)?,
            head: CommitId::try_new(&saved.head)?,
            commit: CommitId::try_new(&saved.snapshot)?,
            bundle: saved.bundle.blob.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_be_options_or_paths_are_refused() {
        for name in ["", "-x", "..", "a/b", ".git", "a b", "a\n"] {
            assert!(Repository::try_new(name, "/r", "main").is_err(), "{name:?}");
        }
        for source in ["", "r", "https://x/y", "ext::sh -c x", "git@host:x", "file://r"] {
            assert!(Repository::try_new("r", source, "main").is_err(), "{source:?}");
        }
        for base in ["", "-x", "a..b", "main^{tree}", "a:b", "a b", "/x", "@{u}"] {
            assert!(Repository::try_new("r", "/r", base).is_err(), "{base:?}");
        }
        let repository = Repository::try_new("my.repo", "file:///srv/r", "feature/x").unwrap();
        assert_eq!(repository.source(), Path::new("/srv/r"));
    }

    #[test]
    fn commit_ids_are_full_hex() {
        assert!(CommitId::try_new("a".repeat(40)).is_ok());
        for text in [String::new(), "A".repeat(40), "a".repeat(39), "--upload-pack=x".into()] {
            assert!(CommitId::try_new(text).is_err());
        }
    }
}

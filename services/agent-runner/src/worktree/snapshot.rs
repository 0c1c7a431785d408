//! Saving a worktree, so that a runner with an empty disk can go on.

use std::path::PathBuf;

use bytes::Bytes;

use super::{
    Changes, CommitId, FileError, SnapshotRef, Worktree,
    capture::Then,
    git::{Call, GitError, identity},
};
use crate::sandbox::{Keep, SandboxError};

/// Largest bundle. It is held in memory while it goes to the blobs, and each resume reads it again.
const MAX_BUNDLE_BYTES: usize = 64 << 20;

/// The newest snapshot of this worktree; what it holds is known to be derived from that.
pub(super) const SNAPSHOT: &str = "refs/nightcrew/snapshot";

/// Commits the tree on top of snapshot `$1`, whose branch head was `$2`. Prints commit and head; nothing when nothing changed.
const SAVE: &str = r#"
head=$(git rev-parse --verify HEAD)
if [ "$head" = "$2" ] && [ "$(git rev-parse --verify "$1^{tree}")" = "$tree" ]; then exit 0; fi
parents=(-p "$1")
git merge-base --is-ancestor "$head" "$1" || parents+=(-p "$head")
commit=$(git commit-tree "$tree" "${parents[@]}" -m "Worktree of run $RUN_ID")
git update-ref refs/nightcrew/snapshot "$commit"
echo "$commit" "$head"
"#;

/// A saved state of the worktree.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What is new since the snapshot before it, as a git bundle.
    pub bundle: Bytes,
    /// The commit that the branch started from.
    pub base: CommitId,
    /// The head of the run's branch.
    pub head: CommitId,
    /// The commit that holds the worktree.
    pub commit: CommitId,
    /// The commit that must be there before the bundle can be used: the snapshot before it, or the base.
    pub prerequisite: CommitId,
    /// What changed since then.
    pub changes: Changes,
    /// What was not saved although it is not ignored.
    pub left_out: Vec<LeftOut>,
}

impl Snapshot {
    /// How the journal names it; `bundle` is the SHA-256 of its bundle.
    pub fn reference(&self, bundle: String) -> SnapshotRef {
        SnapshotRef { base: self.base.clone(), head: self.head.clone(), commit: self.commit.clone(), bundle }
    }
}

/// A path that is not in a snapshot although nothing ignores it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// The path.
    pub path: String,
    /// Why.
    pub why: Why,
}

/// Why a path is not in a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It is a socket, pipe or device, belongs to a nested `.git`, or its owner may not read it.
    Odd,
    /// It lies in a submodule.
    Submodule,
}

/// Why a worktree could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// git failed.
    #[error("the worktree could not be taken")]
    Git(#[from] GitError),
    /// Its files could not be found.
    #[error("the worktree's files could not be found")]
    Files(#[source] FileError),
    /// This process is about to end.
    #[error("the worktree's files could not be found: the process ends")]
    Interrupted,
    /// It has too many files. The agent can mend that.
    #[error("the worktree holds more than {limit} files: remove what is generated or name it in .gitignore")]
    TooManyFiles {
        /// The limit.
        limit: usize,
    },
    /// A new file is too large. The agent can mend that.
    #[error("{path} has {bytes} bytes, more than the {limit} that a file may have: remove it or name it in .gitignore")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// What changed is too large. The agent can mend that.
    #[error("what changed is larger than {limit} bytes: remove what is generated or name it in .gitignore")]
    TooMuch {
        /// The limit.
        limit: usize,
    },
}

impl SnapshotError {
    /// Whether the agent can mend it, by removing or ignoring files: then this text is for the model.
    pub const fn is_for_the_agent(&self) -> bool {
        matches!(self, Self::TooManyFiles { .. } | Self::FileTooLarge { .. } | Self::TooMuch { .. })
    }
}

impl Worktree {
    /// Saves what changed since `previous`, the newest snapshot that is in the log; `None` when nothing did.
    ///
    /// The same state after the same snapshot gives the same commit, so a repeat after a crash changes nothing.
    pub async fn snapshot(&self, previous: Option<&SnapshotRef>) -> Result<Option<Snapshot>, SnapshotError> {
        let _alone = self.exclusive().await;
        let (prerequisite, head) = previous.map_or((&self.base, &self.base), |saved| (&saved.commit, &saved.head));
        let doing = "save the worktree";
        let args = &[prerequisite.as_str(), head.as_str()];
        let identity = identity("Nightcrew", "snapshot@nightcrew.invalid", 0);
        let captured = self.capture(Then { doing, script: SAVE, args, identity }).await?;
        let [commit, head] = match <[String; 2]>::try_from(captured.words) {
            Ok(words) => words.map(|word| commit_id(doing, word)),
            Err(words) if words.is_empty() => return Ok(None),
            Err(words) => return Err(answer(doing, words.join(" ")).into()),
        };
        let (commit, head) = (commit?, head?);
        let (bundle, changes) = tokio::try_join!(self.bundle(prerequisite), async {
            Ok(self.git.changes(prerequisite.as_str(), commit.as_str(), None).await?)
        })?;
        let (base, prerequisite) = (self.base.clone(), prerequisite.clone());
        Ok(Some(Snapshot { bundle, base, head, commit, prerequisite, changes, left_out: captured.left_out }))
    }

    async fn bundle(&self, prerequisite: &CommitId) -> Result<Bytes, SnapshotError> {
        let args = ["bundle", "create", "--quiet", "-", SNAPSHOT, &format!("^{prerequisite}")];
        let call = Call::git("bundle the worktree", args).keep(Keep::All(MAX_BUNDLE_BYTES));
        match self.git.run(call).await {
            Ok(bundle) => Ok(bundle.into_bytes().into()),
            Err(GitError::Sandbox { source: SandboxError::TooMuchOutput { limit }, .. }) => {
                Err(SnapshotError::TooMuch { limit })
            }
            Err(error) => Err(error.into()),
        }
    }
}

pub(super) fn commit_id(doing: &'static str, word: String) -> Result<CommitId, GitError> {
    CommitId::try_new(word).map_err(|invalid| answer(doing, invalid.text))
}

pub(super) fn answer(doing: &'static str, answer: String) -> GitError {
    GitError::Answer { doing, answer }
}

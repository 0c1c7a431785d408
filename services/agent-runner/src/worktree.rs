//! Where a run works: a worktree and a branch of its own, made when first needed.
//!
//! A repository is mirrored once below the state folder, and each run has a git folder of its own that borrows the mirror's
//! objects. So runs share nothing that one of them could break, and a worktree is cheap.
//!
//! An agent may write anything into its worktree: a `.git` of its own, hooks, attributes, links out of it. Therefore
//! - the git folder lies outside the worktree; in the sandbox it is read-only, and `.git` is a file that can not be replaced;
//! - git reads the worktree only inside the sandbox, with hooks, file system monitors, filters and every protocol off;
//! - which files there are is found here, not by git, which would run git in repositories nested in the worktree;
//! - files are opened beneath the worktree by the kernel's own rule ([`Files`]), never by a path that was checked before.
//!
//! Content is taken as it lies there, byte for byte: line ends, keywords and encodings are never converted. What
//! [`Worktree::snapshot`] saves is therefore what [`Worktrees::ensure`] brings back. Not saved are ignored files, empty
//! folders, what is inside nested `.git` folders, sockets and the like, and what its owner may not read.
//!
//! This module must never know the bus or the journal; bundles come and go as bytes.

mod capture;
mod changes;
mod commit;
mod files;
mod git;
mod history;
mod ids;
mod lock;
mod mirror;
mod prepare;
mod slot;
mod snapshot;
mod walk;

use std::{any::Any, path::PathBuf, sync::Arc};

use schemas::RunId;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::sandbox::{Mount, Sandbox};

pub use changes::{ChangedFile, Changes};
pub use commit::{Author, Commit, CommitError, PublishError};
pub use files::{FileError, Files, WorktreePath};
pub use git::GitError;
pub use history::{From, HistoryError};
pub use ids::{CommitId, InvalidId, InvalidRepository, Repository, SnapshotRef, StartPoint};
pub use lock::LockError;
pub use mirror::MirrorError;
pub use prepare::EnsureError;
pub use snapshot::{LeftOut, Snapshot, SnapshotError, Why};
pub use walk::{Found, Kind, Walk, Walked};

/// Where the worktree appears to commands and to the model, on every machine.
pub const WORKTREE: &str = "/work";

/// Where the run's git folder appears, read-only, so that `git log` and its like work in a shell.
const GIT_DIR: &str = "/nightcrew/git";

/// Where the objects of the mirror appear, read-only.
const MIRROR_OBJECTS: &str = "/nightcrew/mirror/objects";

/// Brings bundles that were saved before.
pub trait BundleSource: Send + Sync {
    /// The bytes of `snapshot`'s bundle.
    fn bundle<'a>(
        &'a self,
        snapshot: &'a SnapshotRef,
    ) -> futures::future::BoxFuture<'a, Result<bytes::Bytes, BundleError>>;
}

/// Why a bundle could not be brought.
pub type BundleError = Box<dyn std::error::Error + Send + Sync>;

/// All worktrees below one state folder. Several processes may share it.
#[derive(Clone)]
pub struct Worktrees {
    state_dir: PathBuf,
    sandbox: Arc<dyn Sandbox>,
    fetches: mirror::Fetches,
}

impl Worktrees {
    /// Keeps mirrors in `<state_dir>/repos` and worktrees in `<state_dir>/runs`.
    pub fn new(state_dir: impl Into<PathBuf>, sandbox: Arc<dyn Sandbox>) -> Self {
        Self { state_dir: state_dir.into(), sandbox, fetches: mirror::Fetches::default() }
    }
}

/// The worktree of a run, for whoever holds the run now.
///
/// While it, or a command in it, lives nobody else gets the same folder: a second holder, of this or another process, gets one of its own.
pub struct Worktree {
    run_id: RunId,
    repository: Repository,
    branch: String,
    base: CommitId,
    slot: Arc<slot::Slot>,
    files: Arc<Files>,
    git: git::Git,
    mirror: mirror::Mirror,
    access: RwLock<()>,
}

impl Worktree {
    /// The run.
    pub const fn run_id(&self) -> RunId {
        self.run_id
    }

    /// The repository that it is of.
    pub const fn repository(&self) -> &Repository {
        &self.repository
    }

    /// The run's branch.
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The commit that the branch started from.
    pub const fn base(&self) -> &CommitId {
        &self.base
    }

    /// Its files, for reading and writing from this process.
    pub const fn files(&self) -> &Arc<Files> {
        &self.files
    }

    /// Waits until nothing changes the worktree, and keeps it so.
    pub async fn shared(&self) -> RwLockReadGuard<'_, ()> {
        self.access.read().await
    }

    /// Waits until nobody else uses the worktree, and keeps it so. Snapshots and commits take this themselves.
    pub async fn exclusive(&self) -> RwLockWriteGuard<'_, ()> {
        self.access.write().await
    }

    /// What keeps the folder from being given to another holder, for a command that works in it.
    pub fn keep(&self) -> Arc<dyn Any + Send + Sync> {
        self.slot.clone()
    }

    /// What a command of the agent sees of it: the files, writable, and git, read-only.
    pub fn mounts(&self) -> Vec<Mount> {
        vec![
            Mount::writable(self.slot.tree(), WORKTREE),
            Mount::read_only(self.slot.dot_git(), format!("{WORKTREE}/.git")),
            Mount::read_only(self.slot.git_dir(), GIT_DIR),
            Mount::read_only(self.mirror.objects(), MIRROR_OBJECTS),
        ]
    }
}

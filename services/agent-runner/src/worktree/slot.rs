//! A folder that holds one worktree: which ones a run has, and who uses them.
//!
//! A runner that is merely stopped still has its tools running. So a worktree is not taken from whoever uses it: the next
//! holder of the run gets another slot, and builds it from the snapshots in the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::lock::{Lock, LockError};

/// Holders of one run that may be alive at once on one machine. Two is rare; more means that holders hang.
const MAX_SLOTS: usize = 8;

/// A worktree's folder, kept for whoever has this.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    _lock: Lock,
}

impl Slot {
    /// The slots of a run that nobody uses, in order, one at a time.
    pub(super) fn free(run_dir: &Path) -> impl Iterator<Item = Result<Self, LockError>> {
        (0..MAX_SLOTS).filter_map(move |n| {
            let path = run_dir.join(n.to_string());
            let lock = Lock::try_take(&path.with_extension("lock")).transpose()?;
            Some(lock.map(|lock| Self { path, _lock: lock }))
        })
    }

    /// The files that the agent works on.
    pub(super) fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// The run's git folder.
    pub(super) fn git_dir(&self) -> PathBuf {
        self.path.join("git")
    }

    /// What `.git` is in the sandbox.
    pub(super) fn dot_git(&self) -> PathBuf {
        self.path.join("dotgit")
    }

    /// Files on their way into the worktree.
    pub(super) fn scratch(&self) -> PathBuf {
        self.path.join("scratch")
    }

    /// Exists once the worktree is whole, and names its base.
    pub(super) fn ready(&self) -> PathBuf {
        self.path.join("ready")
    }

    /// Empties the slot. What says that it is whole goes first.
    pub(super) fn clear(&self) -> io::Result<()> {
        for path in [self.ready(), self.path.clone()] {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::create_dir_all(&self.path)
    }

    /// Removes the slot for good, its lock included.
    pub(super) fn remove(self) -> io::Result<()> {
        self.clear()?;
        fs::remove_dir(&self.path)?;
        fs::remove_file(self.path.with_extension("lock"))
    }
}

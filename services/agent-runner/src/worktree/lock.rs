//! Locks between processes: a lock ends with the process that holds it, so none is ever stale.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::fs::{FlockOperation, flock};
use tokio::time::{Instant, sleep};

/// How often a lock that another process holds is tried again. The kernel has no way to wait for one and for a deadline.
const RETRY: Duration = Duration::from_millis(10);

/// A lock that is held until this is dropped.
#[derive(Debug)]
pub(super) struct Lock {
    /// None once it was handed over.
    file: Option<File>,
}

/// Why a lock was not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Its file could not be used.
    #[error("the lock {path} can not be used")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody held it all the time.
    #[error("the lock {path} was held by somebody else for {waited:?}")]
    Held {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        waited: Duration,
    },
}

impl Lock {
    /// Takes the lock unless somebody holds it.
    pub(super) fn try_take(path: &Path) -> Result<Option<Self>, LockError> {
        take(path).map_err(|source| LockError::Unusable { path: path.to_owned(), source })
    }

    /// Gives the lock to a process that is about to be started, as its standard input: then it is held for as long as that
    /// process lives, and not by this one, which may be stopped.
    pub(super) fn hand_over(mut self) -> Stdio {
        self.file.take().map_or_else(Stdio::null, Stdio::from)
    }

    /// Takes the lock, waiting for whoever holds it.
    pub(super) async fn take(path: &Path, patience: Duration) -> Result<Self, LockError> {
        let began = Instant::now();
        loop {
            if let Some(lock) = Self::try_take(path)? {
                return Ok(lock);
            }
            if began.elapsed() > patience {
                return Err(LockError::Held { path: path.to_owned(), waited: patience });
            }
            sleep(RETRY).await;
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that another thread is just starting has it open as well, for a moment.
        if let Some(file) = &self.file {
            flock(file, FlockOperation::Unlock).ok();
        }
    }
}

fn take(path: &Path) -> io::Result<Option<Lock>> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    // Whoever held it may have removed the file since: then this lock keeps nobody out.
    let still_there = fs::metadata(path).is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
    Ok(still_there.then_some(Lock { file: Some(file) }))
}

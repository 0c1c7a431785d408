//! Live epochs: which holder of a run may act, folded from the log.
//!
//! A bearer names its run and epoch. Whoever verifies it asks here whether that epoch is the live one. Epochs that open
//! and runs that end are taken from a follower of the log as they happen; a run that is not known is read from the
//! log. What nobody asked for in a while is forgotten, so memory does not grow with history.
//!
//! It fails closed. While the follower may be behind (the bus is away, silent, or a backlog is being read) an epoch
//! that was live is not taken for live; whoever asks waits as long as it may and is then told that nobody knows.

mod fold;
mod follow;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use schemas::RunId;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};
use crate::journal::{Journal, ReadError};
use crate::service::Context;

use fold::Runs;
pub use fold::Standing;
pub use follow::StartError;

/// How long the log may be silent before what was folded is stale. Shorter than the 3 s after which a run whose holder
/// is lost goes to another one, so that nobody takes the old epoch for live when the new one may be there.
pub const STALE_AFTER: Duration = Duration::from_secs(2);

/// Between two looks of one who waits for an end while the fold is stale or a journal can not be read.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Why an epoch is not good.
#[derive(Debug, thiserror::Error)]
pub enum EpochError {
    /// A later holder has the run.
    #[error("a later epoch, {current}, holds the run")]
    Old {
        /// The live epoch.
        current: u64,
    },
    /// The run has ended.
    #[error("the run has ended")]
    Ended,
    /// The run waits: nobody holds it.
    #[error("nobody holds the run")]
    Released,
    /// The log has no such run, or not yet this epoch of it.
    #[error("the log has no such epoch of the run")]
    Unknown,
    /// The log can not be followed at this moment, so nobody knows.
    #[error("the log can not be followed now")]
    Stale,
    /// The run's journal can not be read.
    #[error("the run's journal can not be read")]
    Read(#[source] ReadError),
}

impl Classified for EpochError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Old { .. } | Self::Ended | Self::Released | Self::Unknown => ErrorClass::Refused,
            Self::Stale => ErrorClass::Transient,
            Self::Read(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Old { .. } => "epoch_old",
            Self::Ended => "run_ended",
            Self::Released => "run_released",
            Self::Unknown => "epoch_unknown",
            Self::Stale => "epochs_stale",
            Self::Read(error) => error.code(),
        }
    }
}

impl EpochError {
    /// Whether waiting may change it.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Unknown | Self::Stale | Self::Read(_))
    }
}

/// The live epochs. Clones share them.
#[derive(Clone, Debug)]
pub struct LiveEpochs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    runs: Mutex<Runs>,
    follower: watch::Sender<Follower>,
}

/// What is known of the follower.
#[derive(Clone, Copy, Debug)]
struct Follower {
    /// Whether it has seen all that the log held when it was last heard of.
    caught_up: bool,
    /// When the server last said that there is no more.
    heard: Instant,
}

impl Follower {
    fn is_current(&self) -> bool {
        self.caught_up && self.heard.elapsed() < STALE_AFTER
    }
}

impl LiveEpochs {
    /// Starts to follow the log, as a vital task of `context`.
    pub async fn start(bus: &Bus, context: &Context) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            journal: Journal::new(bus),
            runs: Mutex::default(),
            follower: watch::Sender::new(Follower { caught_up: false, heard: Instant::now() }),
        });
        let following = follow::start(bus.clone(), Arc::clone(&shared)).await?;
        context.spawn_vital("epochs", following.run(context.shutdown.clone()));
        Ok(Self { shared })
    }

    /// Whether `epoch` is the live one of `run`. Waits up to `wait` for an epoch that the log does not show yet, and for
    /// a log that can not be followed.
    pub async fn check(&self, run: RunId, epoch: u64, wait: Duration) -> Result<(), EpochError> {
        // The common case takes no watch and no deadline.
        match self.standing_of(run, epoch).await {
            Err(error) if error.may_pass() => {}
            known => return known,
        }
        let deadline = Instant::now() + wait;
        let mut changes = self.shared.changes(run);
        loop {
            match self.standing_of(run, epoch).await {
                Err(error) if error.may_pass() => {
                    let changed = self.shared.change(&mut changes);
                    if timeout_at(deadline, changed).await.is_err() {
                        return Err(error);
                    }
                }
                known => return known,
            }
        }
    }

    /// Returns once `epoch` of `run` is known not to be live any more, for whatever reason.
    pub async fn over(&self, run: RunId, epoch: u64) {
        let mut changes = self.shared.changes(run);
        loop {
            match self.standing_of(run, epoch).await {
                Ok(()) | Err(EpochError::Stale | EpochError::Read(_)) => {}
                Err(_) => return,
            }
            self.shared.change(&mut changes).await;
        }
    }

    async fn standing_of(&self, run: RunId, epoch: u64) -> Result<(), EpochError> {
        if !self.shared.follower.borrow().is_current() {
            return Err(EpochError::Stale);
        }
        if let Some(standing) = self.shared.runs().get(run) {
            return standing.check(epoch);
        }
        self.read(run, epoch).await?.check(epoch)
    }

    /// Folds a run's journal from the log. An epoch is the sequence that opened it, and what came before does not bear
    /// on it: a search for the run's beginning would walk the whole log.
    async fn read(&self, run: RunId, epoch: u64) -> Result<Standing, EpochError> {
        // Entered before it is read, so that what the follower sees meanwhile is not lost.
        self.shared.runs().enter(run);
        let messages = self.shared.journal.read(run, epoch).await;
        let mut standing = Standing::default();
        for message in messages.map_err(EpochError::Read)? {
            standing.apply(message.sequence, &message.kinds);
        }
        Ok(self.shared.runs().complete(run, standing))
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of each change of a run from now on.
    fn changes(self: &Arc<Self>, run: RunId) -> Changes {
        Changes { run, seen: Some(self.runs().watch(run)), shared: Arc::clone(self) }
    }

    /// Returns after a change of the run, or after a while: a fold that was stale gives no sign when it no longer is,
    /// and one that goes stale gives none at all.
    fn change<'a>(&self, changes: &'a mut Changes) -> impl Future<Output = ()> + 'a {
        let current = self.follower.borrow().is_current();
        let look_again = if current { STALE_AFTER } else { LOOK_AGAIN };
        async move {
            let Some(seen) = &mut changes.seen else {
                return;
            };
            let _ = tokio::time::timeout(look_again, seen.changed()).await;
        }
    }
}

/// A watch over one run; the last one to go takes the run's entry with it.
struct Changes {
    run: RunId,
    seen: Option<watch::Receiver<()>>,
    shared: Arc<Shared>,
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.seen = None;
        self.shared.runs().unwatch(self.run);
    }
}

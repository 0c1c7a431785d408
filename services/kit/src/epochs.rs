//! Live epochs: which holder of a run may act, folded from the log.
//!
//! A bearer names its run and epoch. Whoever verifies it asks here whether that epoch is the live one. Memory does not
//! grow with history: runs are read from the log when somebody asks, a follower of the log keeps what was read up to
//! date, and what was not asked for in a while is forgotten.
//!
//! It fails closed. While the follower may be behind (the bus is away, or its consumer is being made anew) an epoch
//! that was live is not taken for live; the caller is told that nobody knows.

mod fold;
mod follow;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use schemas::RunId;
use tokio::sync::watch;

use crate::bus::Bus;
use crate::journal::{Journal, ReadError};
use crate::service::Context;

use fold::Runs;
pub use fold::Standing;
pub use follow::StartError;

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

/// The live epochs. Clones share them.
#[derive(Clone, Debug)]
pub struct LiveEpochs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    journal: Journal,
    runs: Mutex<Runs>,
    /// Counts what the follower has seen, so that whoever waits looks again.
    seen: watch::Sender<u64>,
    /// Whether the follower is up to date.
    current: watch::Sender<bool>,
}

impl LiveEpochs {
    /// Starts to follow the log, as a vital task of `context`.
    pub async fn start(bus: &Bus, context: &Context) -> Result<Self, StartError> {
        let shared = Arc::new(Shared {
            journal: Journal::new(bus),
            runs: Mutex::default(),
            seen: watch::Sender::new(0),
            current: watch::Sender::new(false),
        });
        let follower = follow::Follower::start(bus.clone(), Arc::clone(&shared)).await?;
        context.spawn_vital("epochs", follower.run(context.shutdown.clone()));
        Ok(Self { shared })
    }

    /// Whether `epoch` is the live one of `run`; waits up to `wait` for one that is not in the log yet.
    pub async fn check(&self, run: RunId, epoch: u64, wait: Duration) -> Result<(), EpochError> {
        let mut seen = self.shared.seen.subscribe();
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            seen.mark_unchanged();
            match self.standing(run).await?.check(epoch) {
                Err(EpochError::Unknown) => {}
                known => return known,
            }
            match tokio::time::timeout_at(deadline, seen.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(EpochError::Stale),
                Err(_) => return Err(EpochError::Unknown),
            }
        }
    }

    /// Returns once `epoch` of `run` is not live any more, for whatever reason.
    pub async fn over(&self, run: RunId, epoch: u64) {
        let mut seen = self.shared.seen.subscribe();
        while let Ok(()) | Err(EpochError::Stale | EpochError::Read(_)) =
            self.standing(run).await.and_then(|standing| standing.check(epoch))
        {
            if seen.changed().await.is_err() {
                return;
            }
        }
    }

    /// How a run stands, from memory or from the log.
    async fn standing(&self, run: RunId) -> Result<Standing, EpochError> {
        if !*self.shared.current.borrow() {
            return Err(EpochError::Stale);
        }
        if let Some(standing) = self.shared.runs().get(run) {
            return Ok(standing);
        }
        // Entered before it is read, so that what the follower sees meanwhile is not lost.
        self.shared.runs().enter(run);
        let journal = &self.shared.journal;
        let first = journal.first(run).await.map_err(EpochError::Read)?;
        let Some(first) = first else {
            self.shared.runs().forget(run);
            return Ok(Standing::default());
        };
        let messages = journal.read(run, first.sequence).await.map_err(EpochError::Read)?;
        let mut runs = self.shared.runs();
        for message in &messages {
            runs.apply(run, message.sequence, &message.kinds);
        }
        Ok(runs.complete(run))
    }
}

impl Shared {
    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

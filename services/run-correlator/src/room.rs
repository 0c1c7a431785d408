//! Keeping room in the log: ended runs go into archives, oldest first, from a part of the log's room on.

use std::time::Duration;

use async_nats::jetstream::stream::State;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kit::class::{Classified as _, ErrorClass, chain};
use kit::clock;
use kit::journal::STREAM;
use kit::message::Verbatim;
use kit::scan::ScanError;
use kit::service::{Check, Context};
use schemas::RunId;
use schemas::subject::filter;
use schemas::summary::RunState;

use crate::archive::{Archiver, NotNow, PurgeError, StepError};
use crate::config::ArchivePolicy;
use crate::read;
use crate::summaries;

/// The health check that is red while archives can not be made.
const CHECK: &str = "archive";

/// Runs that are archived at once. Each is held in memory while it is packed.
const AT_ONCE: usize = 4;

/// Runs after which the room is measured again.
const BETWEEN_LOOKS: usize = 32;

/// How much longer the next look waits when there was nothing to archive: looking costs a read of every run in the log.
const NOTHING_TO_DO: u32 = 12;

/// What was done for room.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Made {
    /// Runs that went into archives.
    pub archived: u64,
    /// Ended runs that had to stay, because what they said is not known to be delivered.
    pub held_back: u64,
    /// Ended runs that can not be archived, each with an error in the log.
    pub broken: u64,
    /// Percent of the room that is taken now.
    pub percent: u64,
}

/// Room could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RoomError {
    /// The log can not be measured.
    #[error("the log can not be measured")]
    Measure(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It can not be searched for ended runs.
    #[error("the log can not be searched for ended runs")]
    Search(#[from] ScanError),
    /// A run can not be archived.
    #[error("run {run} can not be archived")]
    Archive {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: Box<StepError>,
    },
    /// A run is archived and still in the log.
    #[error("archived run {run} can not be removed from the log")]
    Purge {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: PurgeError,
    },
}

impl RoomError {
    /// Whether other runs may well be archived.
    fn is_of_this_run(&self) -> bool {
        let class = match self {
            Self::Measure(_) | Self::Search(_) => return false,
            Self::Archive { source, .. } => source.class(),
            Self::Purge { source, .. } => source.class(),
        };
        class == ErrorClass::Broken
    }
}

/// Looks at the room again and again, until shutdown.
pub(crate) async fn keep(archiver: Archiver, policy: ArchivePolicy, context: Context) {
    loop {
        let mut pause = policy.every;
        // It may be left at any line, as when the process is killed.
        let made = tokio::select! {
            () = context.shutdown.cancelled() => return,
            made = archiver.make_room(policy, clock::now()) => made,
        };
        match made {
            Ok(made) => {
                context.health.set(CHECK, check(made));
                pause = note(made, policy);
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(reason, "ended runs can not be archived");
                context.health.set(CHECK, Check::Red(reason));
            }
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn check(made: Made) -> Check {
    match made.broken {
        0 => Check::Green,
        broken => Check::Red(format!("{broken} ended runs can not be archived: see the log")),
    }
}

/// Says what was done, and how long to wait.
fn note(made: Made, policy: ArchivePolicy) -> Duration {
    let Made { archived, held_back, percent, .. } = made;
    if archived > 0 {
        tracing::info!(archived, percent, "archived ended runs");
        return policy.every;
    }
    if percent < policy.from_percent {
        return policy.every;
    }
    tracing::warn!(percent, held_back, "the log fills up and no ended run can be archived");
    policy.every.saturating_mul(NOTHING_TO_DO)
}

impl Archiver {
    /// Archives ended runs, oldest first, when the log is as full as `policy` says, until it is not.
    pub async fn make_room(&self, policy: ArchivePolicy, now: Timestamp) -> Result<Made, RoomError> {
        let mut made = Made::default();
        let (state, mut percent) = self.measure().await?;
        made.percent = percent;
        if percent < policy.from_percent {
            return Ok(made);
        }
        let mut from = Some(state.first_sequence);
        while let Some(next) = from {
            let page = self.bus().scan(STREAM, filter::ALL_REQUESTED, next).await?;
            for some in page.messages.chunks(BETWEEN_LOOKS) {
                self.archive_some(some, policy, now, &mut made).await?;
                (_, percent) = self.measure().await?;
                made.percent = percent;
                if percent <= policy.to_percent {
                    return Ok(made);
                }
            }
            from = page.next;
        }
        Ok(made)
    }

    async fn archive_some(
        &self,
        requested: &[Verbatim],
        policy: ArchivePolicy,
        now: Timestamp,
        made: &mut Made,
    ) -> Result<(), RoomError> {
        let work = requested.iter().filter_map(|message| {
            let run = message.stored().ok()?.run_id()?;
            Some(self.archive_if_ended(run, message.sequence, policy, now))
        });
        let work: Vec<_> = work.collect();
        let mut done = stream::iter(work).buffer_unordered(AT_ONCE);
        while let Some(outcome) = done.next().await {
            match outcome {
                Ok(Ok(())) => made.archived += 1,
                Ok(Err(NotNow::Unconfirmed)) => made.held_back += 1,
                Ok(Err(_)) => {}
                Err(error) if error.is_of_this_run() => {
                    tracing::error!(error = chain(&error), "an ended run stays in the log");
                    made.broken += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn archive_if_ended(
        &self,
        run: RunId,
        first_sequence: u64,
        policy: ArchivePolicy,
        now: Timestamp,
    ) -> Result<Result<(), NotNow>, RoomError> {
        let summary = summaries::get(self.bus(), run).await?;
        // What the summary does not know to have ended is looked at again later.
        if summary.is_none_or(|summary| summary.state != RunState::Ended) {
            return Ok(Err(NotNow::Live));
        }
        let archived = self.archive(run, first_sequence, policy.settled, now);
        let archived = archived.await.map_err(|source| RoomError::Archive { run, source: Box::new(source) })?;
        if let Err(NotNow::Done) = archived {
            // Recorded, and not purged: whoever recorded it was lost. The consumer does it too, and may be far behind.
            return self.purge_recorded(run, first_sequence).await;
        }
        Ok(archived)
    }

    async fn purge_recorded(&self, run: RunId, first_sequence: u64) -> Result<Result<(), NotNow>, RoomError> {
        let messages = self.bus().scan_all(STREAM, &filter::run(run), first_sequence).await?;
        if let Some(archived) = read::archived(&messages) {
            let purged = self.purge(run, &archived).await;
            purged.map_err(|source| RoomError::Purge { run, source })?;
        }
        Ok(Ok(()))
    }

    /// The log, and the percent of its room that is taken; nothing when its room is not limited.
    async fn measure(&self) -> Result<(State, u64), RoomError> {
        let stream = self.bus().jetstream().get_stream(STREAM).await;
        let stream = stream.map_err(|error| RoomError::Measure(Box::new(error)))?;
        let info = stream.cached_info();
        let percent = match u64::try_from(info.config.max_bytes) {
            Ok(room) if room > 0 => info.state.bytes.saturating_mul(100) / room,
            _ => 0,
        };
        Ok((info.state.clone(), percent))
    }
}

//! Removing blobs that nothing names: what a process stored before it died, and what a purged reply named.
//!
//! Names are searched in everything that can hold one: the log, its archives, memory, what is parked. When any of it can not be
//! read, nothing is removed. Whoever stores a blob names it soon after, so young ones are left alone.
//!
//! A blob is not searched for names, but for archives. The saved state of an agent names blobs too, long texts and bundles of
//! its worktree: they are kept because the journal of its run names them, and a state whose run is not in the log is not
//! gone on from.

use std::collections::HashSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kit::blobs::{BlobError, Blobs};
use kit::bus::Bus;
use kit::class::chain;
use kit::clock;
use kit::journal::STREAM;
use kit::message::Verbatim;
use kit::scan::ScanError;
use kit::service::Context;
use schemas::RunId;
use schemas::envelope::KINDS_HEADER;

use crate::domain::blobs::{named_in, named_in_letter};
use crate::{parked, read};

/// After the start of the service. A laptop is seldom up for a day.
const FIRST_AFTER: Duration = Duration::from_mins(10);

/// How often it is done. It reads the whole log.
const EVERY: Duration = Duration::from_hours(24);

/// Blobs younger than this are left alone: nobody takes so long to name one.
const YOUNG: SignedDuration = SignedDuration::from_hours(24);

/// Everything whose messages can name a blob. Kept replies can too, and are gone long before a blob is old.
const NAMING: [&str; 4] = [STREAM, "MEMORY", "CONTROL", PARKED];

/// What is parked: messages inside of messages, which may never have been anywhere else.
const PARKED: &str = parked::STREAM;

/// Nothing was removed, or not all that nothing names.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// What may name blobs can not be read.
    #[error("what names blobs can not be read")]
    Scan(#[from] ScanError),
    /// A decision about an archive can not be read, and nobody knows what the archive names.
    #[error("message {sequence} names an archive and can not be read")]
    Unreadable {
        /// Which.
        sequence: u64,
    },
    /// An archive can not be read, and nobody knows what it names.
    #[error("the archive of run {run} can not be read, so nobody knows which blobs it names")]
    Archive {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A blob can not be removed.
    #[error("blobs can not be removed")]
    Remove(#[from] BlobError),
}

/// Sweeps from time to time, until shutdown.
pub(crate) async fn keep(bus: Bus, context: Context) {
    let mut pause = FIRST_AFTER;
    loop {
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = EVERY;
        let before = clock::now().saturating_sub(YOUNG);
        let swept = tokio::select! {
            () = context.shutdown.cancelled() => return,
            swept = sweep_blobs(&bus, before.unwrap_or(Timestamp::MIN)) => swept,
        };
        match swept {
            Ok(removed) => tracing::info!(removed, "removed blobs that nothing names"),
            Err(error) => tracing::warn!(error = chain(&error), "no blobs were removed"),
        }
    }
}

/// Removes every blob from before `before` that nothing names, and says how many. Needs user `run-correlator`.
pub async fn sweep_blobs(bus: &Bus, before: Timestamp) -> Result<u64, SweepError> {
    let blobs = Blobs::new(bus);
    // What is named is taken from what there is, so a long history takes no more memory than the store has blobs.
    let mut unnamed = blobs.stored_before(before).await?;
    for stream in NAMING {
        let mut from = Some(1);
        while let Some(next) = from {
            let page = bus.scan(stream, ">", next).await?;
            for message in &page.messages {
                if stream == PARKED {
                    keep_all(&mut unnamed, named_in_letter(&message.body));
                    continue;
                }
                keep_all(&mut unnamed, named_in(&message.body));
                keep_archived(&blobs, message, &mut unnamed).await?;
            }
            from = page.next;
        }
    }
    Ok(blobs.sweep(&unnamed, before).await?)
}

fn keep_all(unnamed: &mut HashSet<String>, named: impl IntoIterator<Item = String>) {
    for name in named {
        unnamed.remove(&name);
    }
}

/// Keeps what an archive names, also when the decision about it does not list that.
async fn keep_archived(blobs: &Blobs, message: &Verbatim, unnamed: &mut HashSet<String>) -> Result<(), SweepError> {
    let kinds = message.header(KINDS_HEADER).unwrap_or_default();
    if !kinds.split(',').any(|kind| kind == "archived") {
        return Ok(());
    }
    let stored = message.stored().ok();
    let archived = stored.and_then(|stored| Some((stored.run_id()?, read::archive_in(&stored)?)));
    let Some((run, archived)) = archived else {
        return Err(SweepError::Unreadable { sequence: message.sequence });
    };
    if let Some(listed) = archived.blobs {
        keep_all(unnamed, listed);
        return Ok(());
    }
    let held = read::open(blobs, run, &archived).await;
    let held = held.map_err(|error| SweepError::Archive { run, source: Box::new(error) })?;
    keep_all(unnamed, held.iter().flat_map(|message| named_in(&message.body)));
    Ok(())
}

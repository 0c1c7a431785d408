//! Keeping KV `runs` up to date: batches of journal messages in, each run's summary written once a batch.
//!
//! The bucket is the state. What is in memory is a bounded cache of it, so nothing grows with history; a run that is not
//! there is read from the bucket, and one of which messages were not seen is folded from the log. A summary is
//! written only over the revision that it came from, so two replicas, or a rebuild beside the service, can not put an older one
//! over a newer.

use std::collections::HashMap;

use async_nats::jetstream::kv;
use async_nats::jetstream::kv::{UpdateError, UpdateErrorKind};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kit::bus::Bus;
use kit::class::{Classified, ErrorClass};
use kit::message::Stored;
use kit::scan::ScanError;
use schemas::summary::{RunState, RunSummary};
use schemas::{Decision, RunId};

use crate::domain::evidence::Link;
use crate::domain::summary::{self, Folded};
use crate::read::{self, TimelineError};
use crate::summaries::{self, Kept};

/// Runs in the cache: more than are ever live at once, and a few megabytes.
const CACHED: usize = 4_096;

/// Runs that are written at once: enough to fill the way to the server, few enough to be answered in time.
const WRITES_AT_ONCE: usize = 64;

/// How often a summary is folded again that somebody else wrote meanwhile. Each time is one more writer that was faster.
const CONFLICTS: u32 = 8;

/// Summaries could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The bucket can not be read now.
    #[error("the summary of run {run} can not be read")]
    Read {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: ScanError,
    },
    /// The run can not be read from the log now.
    #[error("run {run} can not be folded from the log")]
    Fold {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: TimelineError,
    },
    /// The bucket does not take it now.
    #[error("the summary of run {run} can not be written")]
    Write {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: UpdateError,
    },
    /// Others wrote it again and again.
    #[error("the summary of run {run} is written by too many at once")]
    Contended {
        /// The run.
        run: RunId,
    },
}

impl Classified for ProjectError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Transient
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => "summary_read",
            Self::Fold { .. } => "summary_fold",
            Self::Write { .. } => "summary_write",
            Self::Contended { .. } => "summary_contended",
        }
    }
}

/// A journal message, decoded as far as it can be.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    sequence: u64,
    after: Option<u64>,
    time: Timestamp,
    decision: Option<Decision>,
}

impl Message {
    pub(crate) fn of(stored: &Stored) -> Self {
        let decision = stored.decode();
        let decision = decision.inspect_err(|error| {
            // A gap in the run's timeline tells it, and whoever acts on decisions parks it.
            tracing::warn!(sequence = stored.sequence, %error, "a decision can not be read");
        });
        Self { sequence: stored.sequence, after: stored.after, time: stored.time, decision: decision.ok() }
    }

    const fn link(&self) -> Link<'_> {
        Link { sequence: self.sequence, after: self.after, time: self.time, decision: self.decision.as_ref() }
    }
}

/// Folds messages into KV `runs`.
#[derive(Debug)]
pub(crate) struct Projector {
    bus: Bus,
    store: kv::Store,
    cache: HashMap<RunId, Cached>,
    batches: u64,
}

#[derive(Debug)]
struct Cached {
    kept: Kept,
    used: u64,
}

impl Projector {
    pub(crate) fn new(bus: Bus, store: kv::Store) -> Self {
        Self { bus, store, cache: HashMap::new(), batches: 0 }
    }

    /// Brings the summaries of all runs in `messages` up to date, and says which could not be. The messages of a run come in
    /// any order, and again.
    pub(crate) async fn take(&mut self, messages: HashMap<RunId, Vec<Message>>) -> HashMap<RunId, ProjectError> {
        self.batches += 1;
        let (bus, store) = (&self.bus, &self.store);
        let cache = &mut self.cache;
        let work = messages.into_iter().map(|(run, mut messages)| {
            messages.sort_by_key(|message| message.sequence);
            let known = cache.remove(&run).map(|cached| cached.kept);
            async move { (run, bring_up(bus, store, run, known, &messages).await) }
        });
        let work: Vec<_> = work.collect();
        let done: Vec<_> = stream::iter(work).buffer_unordered(WRITES_AT_ONCE).collect().await;
        let mut failed = HashMap::new();
        for (run, outcome) in done {
            match outcome {
                Ok(Some(kept)) => self.remember(run, kept),
                Ok(None) => {}
                Err(error) => {
                    failed.insert(run, error);
                }
            }
        }
        failed
    }

    /// Nothing more is expected of a run that has ended, so it needs no place.
    fn remember(&mut self, run: RunId, kept: Kept) {
        let ended = |summary: &RunSummary| summary.state == RunState::Ended;
        if kept.summary.as_ref().is_none_or(ended) {
            return;
        }
        if self.cache.len() >= CACHED {
            self.forget_older_half();
        }
        let used = self.batches;
        self.cache.insert(run, Cached { kept, used });
    }

    fn forget_older_half(&mut self) {
        let mut used: Vec<_> = self.cache.values().map(|cached| cached.used).collect();
        used.sort_unstable();
        let median = used[used.len() / 2];
        // Those of one batch are as old as each other: at least half must go, or the cache would not shrink.
        self.cache.retain(|_, cached| cached.used > median);
    }
}

/// The summary of `run` with `messages` in it, written. None when the run has lost its beginning: then there is no summary.
async fn bring_up(
    bus: &Bus,
    store: &kv::Store,
    run: RunId,
    known: Option<Kept>,
    messages: &[Message],
) -> Result<Option<Kept>, ProjectError> {
    // A run's first message has no summary before it. Where that is wrong, the write is refused and the summary read.
    let is_first = messages.first().is_some_and(|first| first.after == Some(0));
    let mut known = known.or_else(|| is_first.then(Kept::default));
    for _ in 0..CONFLICTS {
        let kept = match known.take() {
            Some(kept) => kept,
            None => summaries::get_kept(bus, run).await.map_err(|source| ProjectError::Read { run, source })?,
        };
        let Some(after) = folded(bus, run, kept.summary.clone(), messages).await? else {
            return Ok(None);
        };
        if kept.summary.as_ref() == Some(&after) {
            return Ok(Some(kept));
        }
        match summaries::put(store, &after, kept.revision).await {
            Ok(revision) => {
                let summary = Some(after);
                return Ok(Some(Kept { summary, revision }));
            }
            // Somebody else wrote it: theirs is read, and what it lacks is folded into it.
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => {}
            Err(source) => return Err(ProjectError::Write { run, source }),
        }
    }
    Err(ProjectError::Contended { run })
}

/// `before` with `messages` folded in. What does not follow is folded from the log.
async fn folded(
    bus: &Bus,
    run: RunId,
    before: Option<RunSummary>,
    messages: &[Message],
) -> Result<Option<RunSummary>, ProjectError> {
    let Some(until) = messages.last().map(|last| last.sequence) else {
        return Ok(before);
    };
    let (mut summary, rest) = match (before, messages) {
        (None, [first, rest @ ..]) => match summary::begin(run, first.link()) {
            Some(begun) => (begun, rest),
            None => return from_log(bus, run, until).await,
        },
        (None, []) => return Ok(None),
        (Some(before), messages) => (before, messages),
    };
    for message in rest {
        if summary::apply(&mut summary, message.link()) == Folded::Hole {
            return from_log(bus, run, until).await.map(|whole| whole.or(Some(summary)));
        }
    }
    Ok(Some(summary))
}

/// The summary of the run as it was with the message `until`: what comes later comes by itself, and a rebuild then gives the
/// same, whenever it is made.
async fn from_log(bus: &Bus, run: RunId, until: u64) -> Result<Option<RunSummary>, ProjectError> {
    match read::gather(bus, run).await {
        Ok((_, evidence)) => {
            let mut links = evidence.links();
            links.retain(|link| link.sequence <= until);
            Ok(summary::fold(run, &links))
        }
        Err(TimelineError::NotFound(_)) => Ok(None),
        Err(source) => Err(ProjectError::Fold { run, source }),
    }
}

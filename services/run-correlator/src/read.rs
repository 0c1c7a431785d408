//! Reading everything about a run: its messages from log and archive, its log lines, its children.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use jiff::Timestamp;
use kit::blobs::{BlobError, Blobs};
use kit::bus::Bus;
use kit::class::chain;
use kit::clock;
use kit::journal::{Journal, ReadError, STREAM};
use kit::logs::{LogStore, RunLines};
use kit::message::{Stored, Verbatim};
use kit::scan::ScanError;
use schemas::event::Archived;
use schemas::subject::filter;
use schemas::summary::{RunState, RunSummary};
use schemas::timeline::{Gap, Timeline};
use schemas::{Decision, RunEvent, RunId, Subject};

use crate::domain::archive::{self, ArchiveError};
use crate::domain::evidence::{Evidence, JournalMessage};
use crate::domain::{gaps, summary, timeline as build};
use crate::summaries;

/// How often the log is read again when the replica that answered lags behind the leader.
const ATTEMPTS: u32 = 5;

/// Pause between these tries.
const PAUSE: Duration = Duration::from_millis(50);

/// A timeline can not be had.
#[derive(Debug, thiserror::Error)]
pub enum TimelineError {
    /// No such run is in the log.
    #[error("run {0} is not in the log")]
    NotFound(RunId),
    /// Neither the run's first message nor a summary of it can be read.
    #[error("run {0} has lost its beginning, and there is no summary of it")]
    NoBeginning(RunId),
    /// The log can not be read now.
    #[error("the messages of run {run} can not be read")]
    Log {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: ScanError,
    },
    /// The end of the run can not be found now.
    #[error("the end of run {run} can not be read")]
    End {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: ReadError,
    },
}

/// A journal can not be had whole.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The run can not be read.
    #[error(transparent)]
    Read(#[from] TimelineError),
    /// A message of it can not be read.
    #[error("message {sequence} of run {run} can not be read: {reason}")]
    Unreadable {
        /// The run.
        run: RunId,
        /// Which.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// Something of it is missing.
    #[error("run {run} is not whole: {gap}")]
    Gap {
        /// The run.
        run: RunId,
        /// What is missing.
        gap: Gap,
    },
}

/// An archive can not be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("its blob can not be had")]
    Blob(#[from] BlobError),
    #[error("it can not be opened")]
    Content(#[from] ArchiveError),
}

/// The timeline of `run`, with those of its children when `tree`. Needs a user that may read `SWARM`, KV `runs` and `blobs`,
/// such as `nightcrew`.
pub async fn timeline(bus: &Bus, logs: &LogStore, run: RunId, tree: bool) -> Result<Timeline, TimelineError> {
    let mut told = BTreeSet::new();
    Reader { bus, logs }.timeline(run, tree, &mut told).await
}

/// What `run` decided, whole and in order, whether it is in the log or in an archive. For who folds it; a journal with a gap
/// is an error.
pub async fn journal(bus: &Bus, run: RunId) -> Result<Vec<JournalMessage>, JournalError> {
    let (_, evidence) = gather(bus, run).await?;
    if let Some(unreadable) = evidence.unreadable.iter().find(|message| message.in_journal) {
        let (sequence, reason) = (unreadable.sequence, unreadable.reason.clone());
        return Err(JournalError::Unreadable { run, sequence, reason });
    }
    let holes = gaps::broken_chain(&evidence).into_iter().map(|found| found.gap);
    let missing = holes.chain(evidence.missing).next();
    match missing {
        Some(gap) => Err(JournalError::Gap { run, gap }),
        None => Ok(evidence.journal),
    }
}

struct Reader<'a> {
    bus: &'a Bus,
    logs: &'a LogStore,
}

type Told<'a> = Pin<Box<dyn Future<Output = Result<Timeline, TimelineError>> + Send + 'a>>;

impl Reader<'_> {
    /// Each run once, whatever the log says: a journal that names its own ancestor as a child must not be followed for ever.
    fn timeline<'a>(&'a self, run: RunId, tree: bool, told: &'a mut BTreeSet<RunId>) -> Told<'a> {
        Box::pin(async move {
            told.insert(run);
            let (known, mut evidence) = gather(self.bus, run).await?;
            let folded = summary::fold(run, &evidence.links());
            let summary = folded.or(known).ok_or(TimelineError::NoBeginning(run))?;
            self.add_log_lines(&summary, &mut evidence).await;
            let mut children = Vec::new();
            for child in evidence.children() {
                if !tree || told.contains(&child) {
                    continue;
                }
                match self.timeline(child, tree, told).await {
                    Ok(child) => children.push(child),
                    Err(TimelineError::NotFound(child_run_id)) => {
                        evidence.missing.push(Gap::ChildMissing { child_run_id });
                    }
                    Err(error) => return Err(error),
                }
            }
            let timeline = build::timeline(summary, &evidence, clock::now());
            Ok(Timeline { children, ..timeline })
        })
    }

    /// The log lines of the run. What of them is gone, or can not be read, is a gap and no error.
    async fn add_log_lines(&self, summary: &RunSummary, evidence: &mut Evidence) {
        let logs = self.logs.clone();
        let (run, since) = (summary.run_id, summary.requested_at);
        let until = if summary.state == RunState::Ended { summary.updated_at } else { Timestamp::MAX };
        let read = tokio::task::spawn_blocking(move || logs.lines_between(run, since, until)).await;
        let lines = match read {
            Ok(Ok(lines)) => lines,
            Ok(Err(error)) => {
                let reason = chain(&error);
                return evidence.missing.push(Gap::LogsUnreadable { reason });
            }
            Err(error) => {
                let reason = chain(&error);
                return evidence.missing.push(Gap::LogsUnreadable { reason });
            }
        };
        evidence.missing.extend(lost_lines(&lines, since));
        evidence.lines = lines.lines;
    }
}

/// What of the log lines of a run that was requested at `since` is gone, or was never here.
fn lost_lines(lines: &RunLines, since: Timestamp) -> impl Iterator<Item = Gap> {
    let expired = lines.expired_before.filter(|before| *before > since);
    // What expired was here once.
    let missing = expired.is_none() && lines.kept_since.is_none_or(|kept| kept > since);
    let gaps = [
        expired.map(|before| Gap::LogsExpired { before }),
        missing.then_some(Gap::LogsMissing { before: lines.kept_since }),
        (lines.broken > 0).then_some(Gap::LogsBroken { lines: lines.broken }),
        (lines.omitted > 0).then_some(Gap::LogsOmitted { lines: lines.omitted }),
    ];
    gaps.into_iter().flatten()
}

/// Everything that log and archive hold of a run, and its summary in KV `runs` when there is one.
pub(crate) async fn gather(bus: &Bus, run: RunId) -> Result<(Option<RunSummary>, Evidence), TimelineError> {
    // Before the log, so that the log can only be ahead of it.
    let known = summaries::get(bus, run).await;
    let known = known.map_err(|source| TimelineError::Log { run, source })?;
    let from = known.as_ref().map_or(1, |known| known.first_sequence);
    let mut messages = of_the_log(bus, run, from).await?;
    let mut missing = Vec::new();
    if let Some(archived) = archived(&messages) {
        match open(&Blobs::new(bus), run, &archived).await {
            Ok(opened) => messages.extend(opened),
            Err(error) => {
                missing.push(Gap::ArchiveUnreadable { blob: archived.archive.blob.clone(), reason: chain(&error) });
            }
        }
    }
    let mut evidence = Evidence::of(&messages);
    evidence.known_last = known.as_ref().map_or(0, |known| known.last_sequence);
    evidence.missing = missing;
    Ok((known, evidence))
}

/// Everything that the log holds of a run: journal, signals, calls.
pub(crate) async fn of_the_log(bus: &Bus, run: RunId, from: u64) -> Result<Vec<Verbatim>, TimelineError> {
    let mut messages = journal_in_log(bus, run, from).await?;
    if messages.is_empty() {
        return Err(TimelineError::NotFound(run));
    }
    for filter in [filter::signals_of(run), Subject::Call(run).to_string()] {
        let read = bus.scan_all(STREAM, &filter, from).await;
        messages.extend(read.map_err(|source| TimelineError::Log { run, source })?);
    }
    Ok(messages)
}

/// The messages of the journal that are in the log, up to the one that the leader says is the last.
async fn journal_in_log(bus: &Bus, run: RunId, from: u64) -> Result<Vec<Verbatim>, TimelineError> {
    let filter = filter::run(run);
    let mut attempt = 1;
    loop {
        let messages = bus.scan_all(STREAM, &filter, from).await;
        let messages = messages.map_err(|source| TimelineError::Log { run, source })?;
        let last = match Journal::new(bus).last(run).await {
            Ok(last) => last.map(|last| last.sequence),
            // It is there; what it says is of no interest here.
            Err(ReadError::Decode { source, .. }) => source.sequence,
            Err(source) => return Err(TimelineError::End { run, source }),
        };
        let read = messages.last().map(|message| message.sequence);
        if read >= last || attempt == ATTEMPTS {
            return Ok(messages);
        }
        attempt += 1;
        tokio::time::sleep(PAUSE).await;
    }
}

/// What the journal says about its archive, when it has one.
pub(crate) fn archived(messages: &[Verbatim]) -> Option<Archived> {
    let mut messages = messages.iter().rev();
    messages.find_map(|message| archive_in(&message.stored().ok()?))
}

/// The archive that a decision names.
pub(crate) fn archive_in(stored: &Stored) -> Option<Archived> {
    if !stored.has("archived") {
        return None;
    }
    let decision: Decision = stored.decode().ok()?;
    decision.events.into_iter().find_map(|event| match event {
        RunEvent::Archived(archived) => Some(archived),
        _ => None,
    })
}

/// The messages in an archive.
pub(crate) async fn open(blobs: &Blobs, run: RunId, archived: &Archived) -> Result<Vec<Verbatim>, OpenError> {
    let content = blobs.get(&archived.archive).await?;
    Ok(archive::unpack(run, &content, &archived.digest)?)
}

//! Archiving one run, step by step: pack, store, record, purge.
//!
//! Between each two of these steps the process may die, and nothing is lost or done twice:
//! - after *pack*, nothing has happened;
//! - after *store*, a blob lies there that nothing names; packing again gives the same bytes, unless something came in
//!   meanwhile, and then the sweep of unnamed blobs removes it;
//! - after *record*, the log names the archive and still holds the messages. Whoever reads both takes each message once. The
//!   `archived` decision is itself what makes [`crate::run`]'s consumer purge, and it is acknowledged only after that;
//! - *purge* is three purges, each of which can be repeated.
//!
//! `archived` is appended with the expected sequence of the run, so the journal in the archive is whole. Signals and calls
//! have no such order: only those up to the last one that is in the archive are purged, and what came later stays. The
//! `archived` message stays under the run's prefix for ever, so the trigger of an archived run is still refused.

use jiff::{SignedDuration, Timestamp};
use kit::blobs::{BlobError, Blobs};
use kit::bus::Bus;
use kit::class::{Classified, ErrorClass};
use kit::clock;
use kit::journal::{AppendError, Journal, STREAM};
use kit::message::{EncodeError, Outgoing, Verbatim};
use schemas::envelope::DECISION_TYPE;
use schemas::event::Archived;
use schemas::subject::filter;
use schemas::summary::{RunState, RunSummary};
use schemas::{BlobRef, Decision, Envelope, EventId, RunEvent, RunId, Subject};

use crate::domain::archive::{self as format, ArchiveError, Packed};
use crate::domain::evidence::Evidence;
use crate::domain::{gaps, summary};
use crate::read::{self, OpenError, TimelineError};

/// A step was not done.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The run can not be read now.
    #[error("the run can not be read")]
    Read(#[source] TimelineError),
    /// It can not be packed.
    #[error("the run can not be packed")]
    Pack(#[source] ArchiveError),
    /// The archive can not be stored.
    #[error("the archive of the run can not be stored")]
    Store(#[source] BlobError),
    /// The decision has no wire form.
    #[error("the archived decision can not be encoded")]
    Encode(#[source] EncodeError),
    /// The decision can not be appended.
    #[error("the archived decision can not be appended")]
    Append(#[source] AppendError),
    /// The run is archived, and still in the log.
    #[error("the run is archived and can not be removed from the log")]
    Purge(#[from] PurgeError),
}

impl Classified for StepError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Read(_) => ErrorClass::Transient,
            Self::Pack(_) | Self::Encode(_) => ErrorClass::Broken,
            Self::Store(error) => error.class(),
            Self::Append(error) => error.class(),
            Self::Purge(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Read(_) => "archive_read",
            Self::Pack(_) => "archive_pack",
            Self::Store(error) => error.code(),
            Self::Encode(error) => error.code(),
            Self::Append(error) => error.code(),
            Self::Purge(error) => error.code(),
        }
    }
}

/// Messages were not purged; all of them are still there, or in the archive.
#[derive(Debug, thiserror::Error)]
pub enum PurgeError {
    /// The archive can not be read back.
    #[error("the archive can not be read back, so nothing is purged")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>, ErrorClass),
    /// The stream does not do it now.
    #[error("the messages on {filter} can not be purged")]
    Purge {
        /// Which.
        filter: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classified for PurgeError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Archive(_, class) => *class,
            Self::Purge { .. } => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Archive(..) => "archive_unreadable",
            Self::Purge { .. } => "purge",
        }
    }
}

/// Why a run is left in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotNow {
    /// It has not ended, or not long ago.
    Live,
    /// What it said or wanted is not known to be delivered or done, or was refused not long ago: its messages are still needed.
    Unconfirmed,
    /// It is archived.
    Done,
    /// Its beginning can not be read.
    NoBeginning,
    /// Something came in while it was packed.
    Changed,
}

/// A run that is packed.
#[derive(Debug, Clone)]
pub struct Ready {
    summary: RunSummary,
    packed: Packed,
    last: u64,
}

/// Archives runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Archiver {
    bus: Bus,
    blobs: Blobs,
}

impl Archiver {
    /// On a connection as user `run-correlator`.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), blobs: Blobs::new(bus) }
    }

    pub(crate) const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// All steps for one run that ended at least `settled` before `now`.
    pub async fn archive(
        &self,
        run: RunId,
        first_sequence: u64,
        settled: SignedDuration,
        now: Timestamp,
    ) -> Result<Result<(), NotNow>, StepError> {
        let ready = match self.pack(run, first_sequence, now).await? {
            Ok(ready) if now.duration_since(ready.summary.updated_at) < settled => {
                return Ok(Err(NotNow::Live));
            }
            Ok(ready) => ready,
            Err(not_now) => return Ok(Err(not_now)),
        };
        let blob = self.store(&ready).await?;
        match self.record(&ready, blob).await? {
            // The consumer does so too, and need not be waited for.
            Ok(archived) => Ok(Ok(self.purge(run, &archived).await?)),
            Err(not_now) => Ok(Err(not_now)),
        }
    }

    /// Step one: reads the run and packs it.
    pub async fn pack(
        &self,
        run: RunId,
        first_sequence: u64,
        now: Timestamp,
    ) -> Result<Result<Ready, NotNow>, StepError> {
        let messages = read::of_the_log(&self.bus, run, first_sequence).await;
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(TimelineError::NotFound(_)) => return Ok(Err(NotNow::Done)),
            Err(error) => return Err(StepError::Read(error)),
        };
        messages.sort_by_key(|message| message.sequence);
        let evidence = Evidence::of(&messages);
        let links = evidence.links();
        if read::archived(&messages).is_some() {
            return Ok(Err(NotNow::Done));
        }
        let (Some(summary), Some(last)) = (summary::fold(run, &links), links.last()) else {
            return Ok(Err(NotNow::NoBeginning));
        };
        if summary.state != RunState::Ended {
            return Ok(Err(NotNow::Live));
        }
        if !gaps::is_settled(&evidence, now) {
            return Ok(Err(NotNow::Unconfirmed));
        }
        let last = last.sequence;
        let packed = format::pack(run, &messages).map_err(StepError::Pack)?;
        Ok(Ok(Ready { summary, packed, last }))
    }

    /// Step two: puts the archive into the blobs.
    pub async fn store(&self, ready: &Ready) -> Result<BlobRef, StepError> {
        let content = ready.packed.content.clone().into();
        self.blobs.put(content).await.map_err(StepError::Store)
    }

    /// Step three: names the archive in the log.
    pub async fn record(&self, ready: &Ready, archive: BlobRef) -> Result<Result<Archived, NotNow>, StepError> {
        let run = ready.summary.run_id;
        let archived = Archived {
            archive,
            digest: ready.packed.digest.clone(),
            messages: ready.packed.messages.clone(),
            first_sequence: ready.summary.first_sequence,
            last_sequence: ready.packed.last_sequence,
            blobs: ready.packed.blobs.clone(),
        };
        let message = self.decision(ready, &archived).map_err(StepError::Encode)?;
        let appended = Journal::new(&self.bus).append(run, ready.last, message).await;
        match appended {
            Ok(_) => Ok(Ok(archived)),
            Err(AppendError::Conflict { .. }) => Ok(Err(NotNow::Changed)),
            Err(error) => Err(StepError::Append(error)),
        }
    }

    fn decision(&self, ready: &Ready, archived: &Archived) -> Result<Outgoing, EncodeError> {
        let summary = &ready.summary;
        // The same archive is the same message; another one is refused for its expected sequence.
        let id = EventId::new(summary.run_id.to_string()).derive(&archived.archive.blob);
        let mut envelope = Envelope::new(id, DECISION_TYPE, self.bus.service(), clock::now());
        envelope.parent_run_id = summary.parent_run_id;
        envelope.root_run_id = Some(summary.root_run_id);
        envelope.agent = Some(summary.agent.clone());
        let decision = Decision { events: vec![RunEvent::Archived(archived.clone())] };
        Outgoing::decision(Subject::Journal(summary.run_id), envelope, &decision)
    }

    /// Step four: removes from the log what the archive, read back, is found to hold.
    pub async fn purge(&self, run: RunId, archived: &Archived) -> Result<(), PurgeError> {
        let held = read::open(&self.blobs, run, archived).await;
        let held = held.map_err(|error| {
            let class = match &error {
                OpenError::Blob(error) => error.class(),
                OpenError::Content(_) => ErrorClass::Broken,
            };
            PurgeError::Archive(Box::new(error), class)
        })?;
        for part in [Part::Signals, Part::Calls, Part::Journal] {
            self.purge_part(run, part, &held).await?;
        }
        Ok(())
    }

    /// One purge of the three.
    pub async fn purge_part(&self, run: RunId, part: Part, held: &[Verbatim]) -> Result<(), PurgeError> {
        let held = held.iter().filter(|message| part.holds(run, message));
        let Some(last) = held.map(|message| message.sequence).max() else {
            return Ok(());
        };
        let filter = part.filter(run);
        let failed = |source| PurgeError::Purge { filter: filter.clone(), source };
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await;
        let stream = stream.map_err(|error| failed(Box::new(error)))?;
        // Up to, and not including.
        let purged = stream.purge().filter(&filter).sequence(last + 1).await;
        purged.map_err(|error| failed(Box::new(error)))?;
        Ok(())
    }
}

/// What a run has in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// What it decided.
    Journal,
    /// What it was told.
    Signals,
    /// Its model calls on the wire.
    Calls,
}

impl Part {
    /// Also for a message whose subject can not be parsed.
    fn holds(self, run: RunId, message: &Verbatim) -> bool {
        let filter = self.filter(run);
        let prefix = filter.trim_end_matches(['>', '*']);
        message.subject.starts_with(prefix)
    }

    fn filter(self, run: RunId) -> String {
        match self {
            Self::Journal => filter::run(run),
            Self::Signals => filter::signals_of(run),
            Self::Calls => Subject::Call(run).to_string(),
        }
    }
}

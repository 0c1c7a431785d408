//! The journal of runs: the only code that writes or reads under `swarm.run.>`.
//!
//! A run has one writer at a time because each write says after which message of the run it comes, with exactly one
//! filter, `swarm.run.<id>.>`: the server lets one of two through. That holds in a cluster only when *every* write
//! under the prefix does so, so there is no other way to write here, batches and first messages included.
//!
//! A refusal and a lost ack look alike. An append that was stored, and whose ack was lost, is refused when it is sent
//! again. So no error of the server is believed by itself: the run's tail is read from the stream's leader and the
//! message's own id is looked for there, before anybody is told that somebody else holds the run.
//!
//! A read is a snapshot that may lag in a cluster. What was folded from it is known to be complete only once an append
//! with the last sequence of that fold has succeeded.

mod append;
mod batch;
mod read;
mod together;

use schemas::{RunId, Subject, subject::filter};

use crate::bus::{Bus, Fault};
use crate::class::{Classified, ErrorClass};
use crate::message::{DecodeError, EncodeError, Outgoing, Stored};

pub use batch::{Entry, MAX_BATCH_MESSAGES};
pub use together::Appender;

/// The stream that holds journals, signals, calls and public events.
pub const STREAM: &str = "SWARM";

/// Writes and reads journals. Clones share the connection.
#[derive(Clone, Debug)]
pub struct Journal {
    bus: Bus,
}

/// Nothing was appended, or nobody knows whether it was.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Something else is the run's last message: whoever wrote it holds the run. Nothing of the append is stored.
    #[error("run {run} is at {} and not where the append expected it", position(.last.as_deref()))]
    Conflict {
        /// The run.
        run: RunId,
        /// Its last message; none when the run has no message that this build can read.
        last: Option<Box<Stored>>,
    },
    /// A message is larger than a message may be. Nothing is stored.
    #[error("a message for {subject} has {bytes} bytes with {limit} allowed: put its parts into blobs")]
    TooLarge {
        /// Its subject.
        subject: String,
        /// Its size without headers.
        bytes: usize,
        /// What is allowed with headers.
        limit: usize,
    },
    /// The stream has no room. Nothing is stored.
    #[error("the log is full")]
    StreamFull(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A message has no wire form. Nothing is stored.
    #[error("a message for {subject} can not be encoded")]
    Encode {
        /// Its subject.
        subject: String,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// The append breaks a rule of journals. Nothing is stored.
    #[error("an append that is not allowed: {0}")]
    Misuse(Misuse),
    /// This service may not write there. Nothing is stored.
    #[error("this service may not append")]
    Forbidden(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The bus could not be asked, or did not say. The append may be stored, now or in a moment: append the same
    /// message, with the same id, again.
    #[error("the bus did not say whether the append is stored")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A rule of journals that an append breaks: a mistake of its caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// The subject is not under the run's prefix.
    #[error("{subject} is no subject of run {run}")]
    OtherRun {
        /// The message's subject.
        subject: String,
        /// The run it was to be appended to.
        run: RunId,
    },
    /// A journal message without an expectation, or another with one.
    #[error("{subject} must come with the last sequence of its run if, and only if, it is part of a journal")]
    Expectation {
        /// The message's subject.
        subject: String,
    },
    /// A run decides once a batch: what is decided together is one message.
    #[error("run {run} is in one batch twice")]
    RunTwice {
        /// The run.
        run: RunId,
    },
    /// Without an expectation nobody can find out whether a batch was stored.
    #[error("a batch without a message for a journal")]
    NoJournal,
    /// Too many messages.
    #[error("{messages} messages in a batch, {MAX_BATCH_MESSAGES} are allowed")]
    TooMany {
        /// How many.
        messages: usize,
    },
}

/// Nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// A message of the run is not readable.
    #[error("run {run} has a message that is not readable")]
    Decode {
        /// The run.
        run: RunId,
        /// Which, and why.
        #[source]
        source: Box<DecodeError>,
    },
    /// The bus could not be asked, or did not answer in full.
    #[error("run {run} can not be read now")]
    Unavailable {
        /// The run.
        run: RunId,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Journal {
    /// The journals of the bus's project.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }

    /// The bus it works on.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }
}

fn position(last: Option<&Stored>) -> String {
    last.map_or_else(|| "no message".to_owned(), |last| format!("sequence {}", last.sequence))
}

/// The subjects of which a run's position is the last: the one filter of every expectation.
fn prefix(run: RunId) -> String {
    filter::run(run)
}

fn subject_of(outgoing: &Outgoing) -> String {
    outgoing.subject.to_string()
}

impl AppendError {
    /// The error of a fault after which nothing is stored, or none can be told.
    fn from_fault(outgoing: &Outgoing, fault: Fault) -> Self {
        if fault.is_full() {
            return Self::StreamFull(Box::new(fault));
        }
        match fault {
            Fault::TooLarge { bytes, limit } => Self::TooLarge { subject: subject_of(outgoing), bytes, limit },
            Fault::Forbidden { .. } => Self::Forbidden(Box::new(fault)),
            fault => Self::Unavailable(Box::new(fault)),
        }
    }
}

impl Classified for AppendError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Conflict { .. } | Self::StreamFull(_) | Self::Unavailable(_) => ErrorClass::Transient,
            Self::TooLarge { .. } | Self::Encode { .. } | Self::Misuse(_) | Self::Forbidden(_) => ErrorClass::Broken,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Conflict { .. } => "append_conflict",
            Self::TooLarge { .. } => "message_too_large",
            Self::StreamFull(_) => "stream_full",
            Self::Encode { .. } => "message_encode",
            Self::Misuse(_) => "append_misuse",
            Self::Forbidden(_) => "bus_forbidden",
            Self::Unavailable(_) => "bus_unavailable",
        }
    }
}

impl Classified for ReadError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Decode { .. } => ErrorClass::Broken,
            Self::Unavailable { .. } => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode { source, .. } => source.code(),
            Self::Unavailable { .. } => "bus_unavailable",
        }
    }
}

/// Whether a subject may be part of a batch beside journals.
const fn beside_journals(subject: &Subject) -> bool {
    matches!(subject, Subject::Signal(..) | Subject::Event(_) | Subject::Call(_))
}

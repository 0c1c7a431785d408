//! The timeline of a run: everything that is known of it, in order, with its gaps marked.
//!
//! It is made on demand from the log (and from the archive of a run whose messages are no longer in the log), never
//! stored. What is missing is in [`Timeline::gaps`], and stands between the other entries where it was noticed.

use std::fmt;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{EventId, RunId},
    summary::RunSummary,
};

/// Version of the timeline's shape; grows when a reader has to change.
pub const TIMELINE_VERSION: u32 = 1;

/// Everything that is known of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Timeline {
    /// [`TIMELINE_VERSION`] of the writer.
    pub version: u32,
    /// The run at a glance.
    pub summary: RunSummary,
    /// What happened, in the order in which it happened.
    pub entries: Vec<Entry>,
    /// What should be there and is not. Empty for a run that is explained completely.
    pub gaps: Vec<Gap>,
    /// The timelines of its children, in the order in which they were started; only in a tree.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children: Vec<Timeline>,
}

impl Timeline {
    /// Whether neither it nor any child in it has a gap.
    pub fn is_complete(&self) -> bool {
        self.gaps.is_empty() && self.children.iter().all(Self::is_complete)
    }
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// When, by the clock of who stored it.
    pub at: Timestamp,
    /// Where it was read.
    pub source: Source,
    /// The stream sequence of its message; absent for log lines and gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The event's id: `<ce-id>/<n>` in the journal, `ce-id` elsewhere; absent for log lines and gaps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// What kind of thing, as its source names it; a log line's level or stream, a gap's name.
    pub kind: String,
    /// One line for people: short, without control characters. What it quotes of agents and tools is untrusted.
    pub line: String,
    /// The thing itself, as its source has it: untrusted and as long as it is.
    pub detail: serde_json::Value,
}

/// Where an entry was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The run's journal.
    Journal,
    /// A signal for the run.
    Signal,
    /// A model call on the wire.
    Call,
    /// A line that a service logged or a tool printed.
    Log,
    /// Nowhere: one of [`Timeline::gaps`], at the place where something is missing.
    Gap,
}

/// Something that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "gap", rename_all = "snake_case")]
pub enum Gap {
    /// The run has not ended although its deadline has passed.
    NotEnded {
        /// Its deadline.
        deadline: Timestamp,
    },
    /// A model was called, and neither an answer nor a failure nor another try follows.
    NotReplied {
        /// The step.
        step: u32,
    },
    /// A model's answer is in the journal, and budget-proxy recorded no call of that step.
    NotMetered {
        /// The step.
        step: u32,
    },
    /// A tool was called and did not return.
    NotReturned {
        /// The call.
        call_id: String,
    },
    /// A child was started and its end is not in the journal.
    ChildNotEnded {
        /// The child.
        child_run_id: RunId,
    },
    /// A child was started and nothing of it is in the log.
    ChildMissing {
        /// The child.
        child_run_id: RunId,
    },
    /// Something was said and its delivery is not known.
    NotDelivered {
        /// The decision that said it.
        decision_id: EventId,
    },
    /// An effect was decided and it is not known to be done.
    EffectNotDone {
        /// The decision that wanted it.
        decision_id: EventId,
        /// The outside system.
        system: String,
    },
    /// Messages of the journal are missing: those up to `expected`, which should come right before `before`.
    MissingSequence {
        /// The message after the gap; absent when the end of the journal is missing.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<u64>,
        /// The sequence that is missing: the last of several in a row.
        expected: u64,
    },
    /// A message of the run can not be read.
    Unreadable {
        /// Its sequence.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// The run was archived and its archive can not be read.
    ArchiveUnreadable {
        /// The archive's blob.
        blob: String,
        /// Why.
        reason: String,
    },
    /// Log lines from before this time have expired.
    LogsExpired {
        /// Until when.
        before: Timestamp,
    },
    /// Log lines from before this time were never stored here, or are gone with their whole store.
    LogsMissing {
        /// Until when; absent when none are stored here at all, as on another machine than that of the services.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Timestamp>,
    },
    /// Stored log lines from the time of the run can not be read, and some may be the run's: a crash cut them in half.
    LogsBroken {
        /// How many.
        lines: u64,
    },
    /// The run has more log lines than are shown; the oldest are left out.
    LogsOmitted {
        /// How many.
        lines: u64,
    },
    /// The store of log lines can not be read.
    LogsUnreadable {
        /// Why.
        reason: String,
    },
}

impl Gap {
    /// The gap's name, as in its field `gap`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotEnded { .. } => "not_ended",
            Self::NotReplied { .. } => "not_replied",
            Self::NotMetered { .. } => "not_metered",
            Self::NotReturned { .. } => "not_returned",
            Self::ChildNotEnded { .. } => "child_not_ended",
            Self::ChildMissing { .. } => "child_missing",
            Self::NotDelivered { .. } => "not_delivered",
            Self::EffectNotDone { .. } => "effect_not_done",
            Self::MissingSequence { .. } => "missing_sequence",
            Self::Unreadable { .. } => "unreadable",
            Self::ArchiveUnreadable { .. } => "archive_unreadable",
            Self::LogsExpired { .. } => "logs_expired",
            Self::LogsMissing { .. } => "logs_missing",
            Self::LogsBroken { .. } => "logs_broken",
            Self::LogsOmitted { .. } => "logs_omitted",
            Self::LogsUnreadable { .. } => "logs_unreadable",
        }
    }

    /// Whether it is about log lines: what of them is missing does not come any more.
    pub const fn is_of_logs(&self) -> bool {
        matches!(
            self,
            Self::LogsExpired { .. }
                | Self::LogsMissing { .. }
                | Self::LogsBroken { .. }
                | Self::LogsOmitted { .. }
                | Self::LogsUnreadable { .. }
        )
    }
}

/// One line for people. What it quotes is untrusted and not made safe here.
impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotEnded { deadline } => {
                write!(f, "the run has not ended although its deadline was {deadline:.0}")
            }
            Self::NotReplied { step } => {
                write!(f, "the model was called for step {step} and what came of it is not recorded")
            }
            Self::NotMetered { step } => {
                write!(f, "the answer to step {step} was not recorded on the wire: what it cost is not proven")
            }
            Self::NotReturned { call_id } => {
                write!(f, "the tool call {call_id} was made and what came of it is not recorded")
            }
            Self::ChildNotEnded { child_run_id } => {
                write!(f, "the child run {child_run_id} was started and its end is not recorded")
            }
            Self::ChildMissing { child_run_id } => {
                write!(f, "the child run {child_run_id} was started and nothing of it is in the log")
            }
            Self::NotDelivered { decision_id } => {
                write!(f, "what decision {decision_id} said is not known to be delivered")
            }
            Self::EffectNotDone { decision_id, system } => {
                write!(f, "what decision {decision_id} wanted from {system} is not known to be done")
            }
            Self::MissingSequence { before: Some(before), expected } => {
                write!(f, "message {expected} of the run is missing, which message {before} came after")
            }
            Self::MissingSequence { before: None, expected } => {
                write!(f, "the end of the run is missing: it once reached message {expected}")
            }
            Self::Unreadable { sequence, reason } => {
                write!(f, "message {sequence} can not be read: {reason}")
            }
            Self::ArchiveUnreadable { blob, reason } => {
                write!(f, "the run's archive {blob} can not be read: {reason}")
            }
            Self::LogsExpired { before } => {
                write!(f, "log lines from before {before:.0} have expired")
            }
            Self::LogsMissing { before: Some(before) } => {
                write!(f, "log lines from before {before:.0} are not stored here")
            }
            Self::LogsMissing { before: None } => {
                f.write_str("log lines are not stored here: they are where the services run")
            }
            Self::LogsBroken { lines } => {
                write!(f, "{lines} stored log lines of that time, of this run or another, can not be read")
            }
            Self::LogsOmitted { lines } => {
                write!(f, "{lines} older log lines are left out because there are too many")
            }
            Self::LogsUnreadable { reason } => {
                write!(f, "the stored log lines can not be read: {reason}")
            }
        }
    }
}

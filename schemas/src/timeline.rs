//! The timeline of a run: everything that is known of it, in order, with its gaps marked.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{ids::RunId, summary::RunSummary};

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
    /// Whether it, and every child in it, has no gap.
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
    /// The stream sequence of its message; absent for log lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<u64>,
    /// The event's id: `<ce-id>/<n>` in the journal, `ce-id` elsewhere; absent for log lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// What kind of thing, as its source names it.
    pub kind: String,
    /// One line for people. Untrusted: it may quote an agent or a tool.
    pub line: String,
    /// The thing itself, as its source has it.
    pub detail: serde_json::Value,
}

/// Where an entry was read.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
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
}

/// Something that should be there and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "gap", rename_all = "snake_case")]
pub enum Gap {
    /// The run was started, has not ended, and nothing came for longer than its deadline allows.
    NotEnded,
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
    /// Something was said and its delivery is not known.
    NotDelivered {
        /// The decision that said it.
        decision_id: String,
    },
    /// A message of the journal is missing: the one after it says so.
    MissingSequence {
        /// The message after the gap.
        before: u64,
        /// The sequence that it came after.
        expected: u64,
    },
    /// A message of the run can not be read.
    Unreadable {
        /// Its sequence.
        sequence: u64,
        /// Why.
        reason: String,
    },
    /// Log lines from before this time have expired.
    LogsExpired {
        /// Until when.
        before: Timestamp,
    },
}

//! Points of a run's way that a test may want to stand at: between an effect and its place in the journal.
//!
//! A test ends the process there, and sees that another one goes on as if nothing had been. Nobody else sets a probe,
//! and one that is not set costs a look at an option. It may look and end the process; it can not change what happens.

use std::{fmt, sync::Arc};

use schemas::{AgentName, RunId};

/// A point that a holder has reached.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: &'a AgentName,
    /// Where in the way.
    pub place: Place,
    /// The kinds of the decision, the tool, or the model step.
    pub what: &'a str,
}

/// Where in the way of an effect a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Place {
    /// A decision is about to be appended.
    BeforeAppend,
    /// A decision is in the log, and nothing was done about it.
    AfterAppend,
    /// A model is about to be called: the decision is in the log, the bearer is there.
    BeforeModel,
    /// A model answered, and the answer is not in the log.
    AfterModel,
    /// A tool is about to be called: the decision is in the log.
    BeforeTool,
    /// A tool has acted, and nothing of it is saved.
    AfterTool,
    /// The worktree is in the blobs, and not named in the log.
    AfterSnapshot,
    /// It was seen that the run is held, and its branch is about to be brought into its repository.
    BeforePublish,
    /// The run's branch is in its repository, and not named in the log.
    AfterPublish,
    /// The tick that wakes a waiting run is scheduled, and the wait is not in the log.
    AfterSchedule,
}

impl Place {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::BeforeModel,
        Self::AfterModel,
        Self::BeforeTool,
        Self::AfterTool,
        Self::AfterSnapshot,
        Self::BeforePublish,
        Self::AfterPublish,
        Self::AfterSchedule,
    ];
}

type Seen = dyn Fn(Point<'_>) + Send + Sync;

/// What a test wants to be told.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<Seen>>);

impl Probe {
    /// A probe that calls `seen` at each point.
    pub fn new(seen: impl Fn(Point<'_>) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(seen)))
    }

    pub(crate) fn at(&self, run: RunId, agent: &AgentName, place: Place, what: &str) {
        if let Some(seen) = &self.0 {
            seen(Point { run, agent, place, what });
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Probe").field(&self.0.is_some()).finish()
    }
}

//! Points of a call's way that a test may want to stand at: between what it costs and what is known of it.
//!
//! A test ends the proxy there, and sees what a repeat comes to. Nobody else sets a probe, and one that is not set costs a
//! look at an option. It may look and end the proxy; it can not change what happens.

use std::{fmt, sync::Arc};

use schemas::RunId;

/// Where in the way of a call a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The upstream has answered to the end, and nothing of it is on record or kept.
    AfterAnswer,
    /// The record is on its way into the log, and the reply is not kept.
    BeforeKeep,
}

type Seen = dyn Fn(RunId, Point) + Send + Sync;

/// What a test wants to be told.
#[derive(Clone, Default)]
pub struct Probe(Option<Arc<Seen>>);

impl Probe {
    /// A probe that calls `seen` at each point.
    pub fn new(seen: impl Fn(RunId, Point) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(seen)))
    }

    pub(crate) fn at(&self, run: RunId, place: Point) {
        if let Some(seen) = &self.0 {
            seen(run, place);
        }
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Probe").field(&self.0.is_some()).finish()
    }
}

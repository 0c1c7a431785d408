//! What drives an agent. Nightcrew's own loop is one harness; command-line agents are others.

use futures::future::BoxFuture;

use crate::{
    hold::{Held, HoldError},
    holds::Hold,
};

/// How a harness let a run go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// It ended: its wake is acknowledged.
    Ended,
    /// It waits for a signal: its wake is acknowledged, the signal is the next one.
    Waiting,
    /// It is paused: its wake is kept and looked at again, so that no end of a pause can be missed.
    Paused,
}

/// Drives a held run until it ends or waits.
pub trait Harness: Send + Sync {
    /// Its name in `capabilities.yaml` and in `started`.
    fn name(&self) -> &'static str;

    /// Drives `held`. Everything that it does is in the journal before it is done; when it returns an error, nothing
    /// of the run goes on in this process.
    fn drive<'a>(&'a self, held: &'a mut Held, hold: &'a mut Hold) -> BoxFuture<'a, Result<Release, HoldError>>;
}

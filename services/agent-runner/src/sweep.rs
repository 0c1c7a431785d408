//! Removing the worktrees of runs that have ended.
//!
//! Whoever ends a run leaves its worktree: the end must not wait for a disk, and a runner that is lost at that moment
//! could not remove it anyway. Instead every runner looks now and then at some of the worktrees on its disk, asks the log
//! whether their runs have ended, and removes those.
//!
//! What ended stays ended, so nothing is removed that is wanted again. Runs that are held or wait keep their worktrees.
//! Several runners may share a disk: whoever uses a worktree has it locked, also one that has lost its run and does not
//! know yet, and then it stays until the next look. A run that is not in this log is another project's, and left alone.

use std::{io, time::Duration};

use kit::{
    class::chain,
    journal::{Journal, ReadError},
};
use schemas::RunId;
use tokio_util::sync::CancellationToken;

use crate::worktree::Worktrees;

/// Between two passes. A night's worth of worktrees is gone within minutes, and an idle crew asks the log little.
const EVERY: Duration = Duration::from_secs(30);

/// Worktrees that one pass looks at: each is a question to the log, and at most one removal from the disk.
const LOOKS: usize = 100;

/// The worktrees can not be listed.
#[derive(Debug, thiserror::Error)]
#[error("the worktrees on this disk can not be listed")]
pub struct ListError(#[source] io::Error);

/// Sweeps one disk.
#[derive(Clone)]
pub struct Sweeper {
    worktrees: Worktrees,
    journal: Journal,
    /// The run that was looked at last: the next pass goes on after it, so that many that wait do not hide one that ended.
    last: Option<RunId>,
}

impl Sweeper {
    /// Sweeps `worktrees` by what `journal` says of their runs.
    pub const fn new(worktrees: Worktrees, journal: Journal) -> Self {
        Self { worktrees, journal, last: None }
    }

    /// Sweeps until shutdown. What fails is tried again with a later pass.
    pub async fn keep(mut self, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(EVERY) => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                pass = self.pass() => if let Err(error) = pass {
                    tracing::warn!(error = %chain(&error), "worktrees of ended runs are not removed");
                },
            }
        }
    }

    /// Looks at the next worktrees, and gives the runs whose worktrees it removed.
    pub async fn pass(&mut self) -> Result<Vec<RunId>, ListError> {
        let worktrees = self.worktrees.clone();
        let listed = tokio::task::spawn_blocking(move || worktrees.runs()).await;
        let runs = listed.map_err(io::Error::other).and_then(|runs| runs).map_err(ListError)?;
        let mut removed = Vec::new();
        for run in after(&runs, self.last).take(LOOKS) {
            self.last = Some(run);
            match self.has_ended(run).await {
                Ok(true) => {}
                Ok(false) => continue,
                Err(error) => {
                    tracing::warn!(%run, error = %chain(&error), "whether a run has ended can not be seen now");
                    continue;
                }
            }
            match self.worktrees.remove(run).await {
                Ok(true) => removed.push(run),
                Ok(false) => {}
                Err(error) => {
                    tracing::warn!(%run, error = %chain(&error), "the worktree of an ended run can not be removed");
                }
            }
        }
        if !removed.is_empty() {
            tracing::info!(worktrees = removed.len(), "removed the worktrees of ended runs");
        }
        Ok(removed)
    }

    async fn has_ended(&self, run: RunId) -> Result<bool, ReadError> {
        let last = self.journal.last(run).await?;
        Ok(last.is_some_and(|last| last.is_end() || last.has("archived")))
    }
}

/// `runs`, which are in order, each once, beginning after `last`.
fn after(runs: &[RunId], last: Option<RunId>) -> impl Iterator<Item = RunId> {
    let start = last.map_or(0, |last| runs.partition_point(|run| *run <= last));
    let (before, from) = runs.split_at(start);
    from.iter().chain(before).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_run_has_its_turn() {
        let run = |n| RunId::from_uuid(uuid::Uuid::from_u128(n));
        let runs = [run(1), run(3), run(5)];
        let order = |last| after(&runs, last).collect::<Vec<_>>();
        assert_eq!(order(None), runs);
        assert_eq!(order(Some(run(1))), [run(3), run(5), run(1)]);
        assert_eq!(order(Some(run(4))), [run(5), run(1), run(3)], "also when the last one is gone");
        assert_eq!(order(Some(run(5))), runs);
        assert_eq!(after(&[], Some(run(1))).count(), 0);
    }
}

//! Requests that are written together.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use futures::future;
use schemas::RunId;

use super::{Job, Request, RequestError};
use crate::journal::{AppendError, Entry as BatchEntry, Journal, MAX_BATCH_MESSAGES};

/// Up to so many are published side by side: an atomic batch of any size costs what ten of them do.
const SINGLY: usize = 8;

/// Bytes of a group. A batch is staged and then copied by the server, which must not hold others up.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// Requests of different runs, and those that ask for one of these runs again.
pub(super) struct Group {
    jobs: HashMap<RunId, Job>,
    repeats: Vec<(RunId, Job)>,
    bytes: usize,
}

type Outcome = Result<Request, RequestError>;

impl Group {
    pub(super) fn of(job: Job) -> Self {
        let mut group = Self { jobs: HashMap::new(), repeats: Vec::new(), bytes: 0 };
        group.add(job);
        group
    }

    pub(super) fn has_room(&self) -> bool {
        let messages = self.jobs.len() + self.repeats.len();
        messages < MAX_BATCH_MESSAGES && self.bytes < GROUP_BYTES
    }

    pub(super) fn add(&mut self, job: Job) {
        let Some(run) = job.outgoing.journal_of() else {
            return;
        };
        self.bytes += job.outgoing.body.len();
        match self.jobs.entry(run) {
            Entry::Vacant(place) => {
                place.insert(job);
            }
            Entry::Occupied(_) => self.repeats.push((run, job)),
        }
    }

    /// Writes the group and answers everybody.
    pub(super) async fn write(mut self, journal: &Journal) {
        let outcomes = self.write_jobs(journal).await;
        for (run, job) in self.repeats {
            let outcome = match outcomes.get(&run) {
                Some(Ok(_)) => Ok(Request::AlreadyThere),
                Some(Err(error)) => Err(error.clone()),
                None => Err(RequestError::ShuttingDown),
            };
            answer(job, outcome);
        }
    }

    async fn write_jobs(&mut self, journal: &Journal) -> HashMap<RunId, Outcome> {
        let mut outcomes = HashMap::new();
        while !self.jobs.is_empty() {
            let settled = if self.jobs.len() <= SINGLY {
                self.write_singly(journal).await
            } else {
                self.write_batch(journal).await
            };
            for (run, outcome) in settled {
                if let Some(job) = self.jobs.remove(&run) {
                    outcomes.insert(run, outcome.clone());
                    answer(job, outcome);
                }
            }
        }
        outcomes
    }

    async fn write_singly(&self, journal: &Journal) -> Vec<(RunId, Outcome)> {
        let writes = self.jobs.iter().map(|(&run, job)| async move {
            let outcome = match journal.append_or_find(run, 0, &job.outgoing).await {
                Ok(appended) if appended.found => Ok(Request::AlreadyThere),
                Ok(appended) => Ok(Request::Started { sequence: appended.sequence }),
                Err(AppendError::Conflict { .. }) => Ok(Request::AlreadyThere),
                Err(error) => Err(RequestError::Append(Arc::new(error))),
            };
            (run, outcome)
        });
        future::join_all(writes).await
    }

    /// Writes all in one batch. When one of them spoils it, those whose run is there already are settled, and the rest
    /// is for the next try.
    async fn write_batch(&self, journal: &Journal) -> Vec<(RunId, Outcome)> {
        let runs: Vec<RunId> = self.jobs.keys().copied().collect();
        let entries = self.jobs.iter().map(|(&run, job)| BatchEntry::journal(run, 0, job.outgoing.clone())).collect();
        match journal.append_batch(entries).await {
            Ok(sequences) => runs
                .into_iter()
                .zip(sequences)
                .map(|(run, sequence)| (run, Ok(Request::Started { sequence })))
                .collect(),
            Err(AppendError::Conflict { run, .. }) => already_there(journal, runs, run).await,
            // One that does not fit, or can not be written, must not fail the others.
            Err(
                AppendError::TooLarge { .. }
                | AppendError::Encode { .. }
                | AppendError::Misuse(_)
                | AppendError::Forbidden(_),
            ) => self.write_singly(journal).await,
            Err(error) => {
                let error = Arc::new(error);
                let failed = |run| (run, Err(RequestError::Append(Arc::clone(&error))));
                runs.into_iter().map(failed).collect()
            }
        }
    }
}

/// Which of `runs` are in the log; `known` is.
async fn already_there(journal: &Journal, runs: Vec<RunId>, known: RunId) -> Vec<(RunId, Outcome)> {
    let looks = runs.into_iter().map(|run| async move {
        // One that can not be looked up is tried again with the rest.
        let there = run == known || matches!(journal.exists(run).await, Ok(true));
        there.then_some((run, Ok(Request::AlreadyThere)))
    });
    let looked = future::join_all(looks).await;
    looked.into_iter().flatten().collect()
}

/// Whoever asked may have gone.
fn answer(job: Job, outcome: Outcome) {
    let _ = job.answer.send(outcome);
}

//! Appends of many runs at once, written together.
//!
//! The server syncs one message after the other, so a thousand runs that append at the same moment wait for a thousand
//! syncs; an atomic batch is synced once. So whoever appends while little is on its way is written at once and by itself,
//! and when more is on its way the rest gathers, and goes in one batch as soon as that has landed. In a batch as by itself a
//! message says after which one of its run it comes: holding is as it was.
//!
//! Idempotency: the message's id, as with any append. Ordering: none between runs, and who appends to one run waits for
//! each append. On failure: a batch is whole or not there. One message that spoils it does not fail the others, for each is
//! then written by itself; when nobody knows whether it is stored, everybody is told so.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use futures::{
    FutureExt as _, StreamExt as _,
    future::{self, BoxFuture},
    stream::{self, FuturesUnordered},
};
use schemas::RunId;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{AppendError, Entry, Journal};
use crate::{message::Outgoing, service::Context};

/// Up to so many are on their way side by side, each by itself: a small batch costs the server what ten of them do.
const SINGLY: usize = 8;

/// Messages of a batch. It takes the server some milliseconds, in which nothing else is stored; and when one of them spoils
/// it, that one is looked for among so many.
const BATCH: usize = 256;

/// Bytes of a batch, which the server stages and then copies.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Appends that wait for the writer; whoever appends beyond waits for room.
const QUEUE: usize = 4096;

/// Appends to the journals of many runs. Clones share the batches.
#[derive(Clone, Debug)]
pub struct Appender {
    journal: Journal,
    queue: mpsc::Sender<Job>,
}

/// One append and who waits for it.
#[derive(Debug)]
struct Job {
    run: RunId,
    expected: u64,
    outgoing: Outgoing,
    answer: oneshot::Sender<Result<u64, AppendError>>,
}

impl Appender {
    /// Starts to write to `journal`, as a vital task of `context`.
    pub fn start(journal: Journal, context: &Context) -> Self {
        let (queue, jobs) = mpsc::channel(QUEUE);
        context.spawn_vital("appender", write(journal.clone(), jobs, context.shutdown.clone()));
        Self { journal, queue }
    }

    /// The journals.
    pub const fn journal(&self) -> &Journal {
        &self.journal
    }

    /// As [`Journal::append`]. After the shutdown has begun each append is written by itself.
    pub async fn append(&self, run: RunId, expected: u64, outgoing: Outgoing) -> Result<u64, AppendError> {
        let (answer, answered) = oneshot::channel();
        let job = Job { run, expected, outgoing: outgoing.clone(), answer };
        if self.queue.send(job).await.is_ok()
            && let Ok(appended) = answered.await
        {
            return appended;
        }
        // It was not written, or who wrote it is gone: its id tells.
        self.journal.append(run, expected, outgoing).await
    }
}

/// Writes what is queued until the shutdown, and then what was queued by then.
async fn write(journal: Journal, mut jobs: mpsc::Receiver<Job>, shutdown: CancellationToken) {
    let mut waiting = VecDeque::new();
    let mut under_way = FuturesUnordered::new();
    let mut open = true;
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled(), if !jobs.is_closed() => jobs.close(),
            Some(()) = under_way.next() => {}
            job = jobs.recv(), if open && waiting.len() < QUEUE => match job {
                Some(job) => waiting.push_back(job),
                None => open = false,
            },
            else => return,
        }
        while waiting.len() < QUEUE
            && let Ok(job) = jobs.try_recv()
        {
            waiting.push_back(job);
        }
        send(&journal, &mut waiting, &mut under_way);
    }
}

/// Sends what waits, as far as it may go now. When nothing is under way, something goes.
fn send(journal: &Journal, waiting: &mut VecDeque<Job>, under_way: &mut FuturesUnordered<BoxFuture<'static, ()>>) {
    // Whoever has gone does not go on from it.
    waiting.retain(|job| !job.answer.is_closed());
    if under_way.len() + waiting.len() <= SINGLY {
        under_way.extend(waiting.drain(..).map(|job| singly(journal.clone(), job).boxed()));
    } else if under_way.is_empty() {
        under_way.push(together(journal.clone(), batch(waiting)).boxed());
    }
}

/// Takes the next batch out of what waits. A run is in it once.
fn batch(waiting: &mut VecDeque<Job>) -> Vec<Job> {
    let mut runs = HashSet::new();
    let mut bytes = 0;
    let mut taken = Vec::new();
    while taken.len() < BATCH
        && let Some(job) = waiting.pop_front()
    {
        bytes += job.outgoing.body.len();
        if (bytes > BATCH_BYTES && !taken.is_empty()) || !runs.insert(job.run) {
            waiting.push_front(job);
            break;
        }
        taken.push(job);
    }
    taken
}

/// Ends with whoever asked: who has gone does not go on from what is written.
async fn singly(journal: Journal, job: Job) {
    let Job { run, expected, outgoing, mut answer } = job;
    let appended = tokio::select! {
        appended = journal.append(run, expected, outgoing) => appended,
        () = answer.closed() => return,
    };
    let _ = answer.send(appended);
}

async fn together(journal: Journal, mut jobs: Vec<Job>) {
    let entry = |job: &Job| Entry::journal(job.run, job.expected, job.outgoing.clone());
    let entries = jobs.iter().map(entry).collect();
    let appended = tokio::select! {
        appended = journal.append_batch(entries) => appended,
        _ = future::join_all(jobs.iter_mut().map(|job| job.answer.closed())) => return,
    };
    match appended {
        Ok(sequences) => {
            for (job, sequence) in jobs.into_iter().zip(sequences) {
                let _ = job.answer.send(Ok(sequence));
            }
        }
        Err(AppendError::Unavailable(source)) => {
            let source: Arc<dyn std::error::Error + Send + Sync> = Arc::from(source);
            for job in jobs {
                let _ = job.answer.send(Err(AppendError::Unavailable(Box::new(Arc::clone(&source)))));
            }
        }
        Err(_) => stream::iter(jobs).for_each_concurrent(SINGLY, |job| singly(journal.clone(), job)).await,
    }
}

//! The way into a store for tasks: a bounded queue and one thread that writes.
//!
//! Whoever logs never waits ([`LogSink::try_append`]); what does not fit is counted by run, and the count is written as
//! a line of that run as soon as there is room. A tool's output may wait instead ([`LogSink::append`]).

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc as std_mpsc},
    time::Duration,
};

use schemas::RunId;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use super::{Level, LogLine, LogStore, LogWriter};
use crate::clock;

/// Lines that may wait for the disk: a second of a very chatty tool, at most some megabytes.
const QUEUE_LINES: usize = 8192;

/// Lines written in one go.
const BATCH_LINES: usize = 256;

/// Runs whose lost lines are counted one by one; those of further runs are counted together.
const MAX_COUNTED_RUNS: usize = 1024;

/// How long an ending process waits until the queue is on disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// The target of lines that the store writes about itself.
const OWN_TARGET: &str = "kit::logs";

/// Puts lines into a store. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogSink {
    queue: mpsc::Sender<LogLine>,
    state: Arc<Mutex<State>>,
}

/// What went wrong so far.
#[derive(Debug, Default)]
struct State {
    service: String,
    lost: BTreeMap<Option<RunId>, u64>,
    failing: Option<String>,
}

/// Writes what is still queued when it is dropped.
#[derive(Debug)]
#[must_use = "dropping it ends the writing"]
pub struct SinkGuard {
    stop: Option<oneshot::Sender<()>>,
    stopped: std_mpsc::Receiver<()>,
}

impl LogSink {
    /// Starts the writing thread. `service` signs what the store has to say about itself.
    pub fn start(store: &LogStore, service: &str) -> io::Result<(Self, SinkGuard)> {
        let (queue, lines) = mpsc::channel(QUEUE_LINES);
        let (stop, stopping) = oneshot::channel();
        let (done, stopped) = std_mpsc::sync_channel(1);
        let state = State { service: service.to_owned(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let thread = Thread { writer: store.writer(), lines, state: Arc::clone(&state) };
        std::thread::Builder::new().name("logs".to_owned()).spawn(move || {
            futures::executor::block_on(thread.run(stopping));
            // Nobody listens when the guard gave up waiting.
            let _ = done.send(());
        })?;
        Ok((Self { queue, state }, SinkGuard { stop: Some(stop), stopped }))
    }

    /// Queues a line, or counts it as lost when the queue is full. Never waits.
    pub fn try_append(&self, line: LogLine) {
        if let Err(error) = self.queue.try_send(line) {
            let line = error.into_inner();
            lock(&self.state).lose(line.run_id, 1);
        }
    }

    /// Queues a line, waiting for room.
    pub async fn append(&self, line: LogLine) {
        if let Err(error) = self.queue.send(line).await {
            lock(&self.state).lose(error.0.run_id, 1);
        }
    }

    /// Why lines can not be written, while that is so.
    pub fn failing(&self) -> Option<String> {
        lock(&self.state).failing.clone()
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        drop(self.stop.take());
        // Either answer ends the wait: written, or given up.
        let _ = self.stopped.recv_timeout(FLUSH_TIMEOUT);
    }
}

impl State {
    fn lose(&mut self, run: Option<RunId>, lines: u64) {
        let full = self.lost.len() >= MAX_COUNTED_RUNS;
        let run = run.filter(|run| !full || self.lost.contains_key(&Some(*run)));
        *self.lost.entry(run).or_default() += lines;
    }

    /// A line for each run that lost some.
    fn take_losses(&mut self) -> Vec<LogLine> {
        let lost = std::mem::take(&mut self.lost);
        lost.into_iter().map(|(run, lines)| loss(&self.service, run, lines)).collect()
    }
}

fn loss(service: &str, run_id: Option<RunId>, lines: u64) -> LogLine {
    LogLine {
        time: clock::now(),
        service: service.to_owned(),
        level: Level::Warn,
        run_id,
        target: OWN_TARGET.to_owned(),
        message: format!("{lines} log lines before this one were lost"),
        stream: None,
        fields: Map::from_iter([(LOST_FIELD.to_owned(), Value::from(lines))]),
    }
}

/// The field that counts lost lines.
const LOST_FIELD: &str = "lost_lines";

struct Thread {
    writer: LogWriter,
    lines: mpsc::Receiver<LogLine>,
    state: Arc<Mutex<State>>,
}

impl Thread {
    async fn run(mut self, mut stopping: oneshot::Receiver<()>) {
        let mut batch = Vec::with_capacity(BATCH_LINES);
        loop {
            tokio::select! {
                // Lines first: the end comes when the queue is empty.
                biased;
                received = self.lines.recv_many(&mut batch, BATCH_LINES) => {
                    if received == 0 {
                        break;
                    }
                    self.write(&batch);
                    batch.clear();
                }
                _ = &mut stopping => break,
            }
        }
        // What was lost since the last batch has not been said yet.
        self.write(&[]);
    }

    fn write(&mut self, batch: &[LogLine]) {
        let losses = lock(&self.state).take_losses();
        let result = self.writer.append(&[&losses, batch].concat(), clock::now());
        let mut state = lock(&self.state);
        state.failing = result.err().map(|error| error.to_string());
        if state.failing.is_some() {
            for line in losses.iter().chain(batch) {
                let lines = line.fields.get(LOST_FIELD).and_then(Value::as_u64).unwrap_or(1);
                state.lose(line.run_id, lines);
            }
        }
    }
}

/// Counters stay right whatever a panicking thread did, so poison is no reason to stop counting.
fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

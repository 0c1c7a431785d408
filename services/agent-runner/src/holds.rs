//! Which runs this process holds, and how others reach their holders.
//!
//! A process that was stopped or cut off goes on holding runs that others have taken over since. It finds out when it
//! writes, but a holder whose tool runs for ten minutes does not write. So whoever asks for the holder names the epoch
//! that it read in the log, and a holder of an earlier one does not answer, but lets go.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use schemas::{AgentName, EventId, RunId, Signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Runs that one process holds at once. Each is a few tasks and its conversation; 2,000 of them fit in 200 MB.
pub const MAX_HELD: usize = 2_000;

/// Signals that wait for one holder. A holder reads them before each step; what does not fit is delivered again later.
const INBOX: usize = 64;

/// A signal on its way to the holder.
#[derive(Debug)]
pub struct Mail {
    /// The signal's `ce-id`.
    pub id: EventId,
    /// The signal.
    pub signal: Signal,
    /// Told once the signal is in the journal.
    pub taken: oneshot::Sender<()>,
}

/// The runs that this process holds. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Holds {
    runs: Arc<Mutex<HashMap<RunId, Handle>>>,
}

#[derive(Debug, Clone)]
struct Handle {
    agent: AgentName,
    epoch: u32,
    wake: Option<EventId>,
    inbox: mpsc::Sender<Mail>,
    lost: CancellationToken,
    position: Arc<AtomicU64>,
    released: watch::Receiver<()>,
}

/// What became of a signal that was given to a holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// It is in the journal.
    Taken,
    /// The holder released the run first, or its inbox is full.
    Busy,
    /// It is what the run was woken by: it must stay unacknowledged for as long as the run is held.
    IsWake,
    /// The run is not held here.
    NotHeld,
}

/// A holder's side; the run is released when this is dropped.
#[derive(Debug)]
pub struct Hold {
    run: RunId,
    holds: Holds,
    first: Option<Mail>,
    inbox: mpsc::Receiver<Mail>,
    lost: CancellationToken,
    position: Arc<AtomicU64>,
    _released: watch::Sender<()>,
}

impl Holds {
    /// Enters a run of `agent` to take it the `epoch`th time, woken by the signal `wake` if by any; nothing when it is held
    /// here, or when as many as may be are.
    pub fn enter(&self, run: RunId, agent: AgentName, epoch: u32, wake: Option<EventId>) -> Option<Hold> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.contains_key(&run) || runs.len() >= MAX_HELD {
            return None;
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        let (released, watcher) = watch::channel(());
        let (lost, position) = (CancellationToken::new(), Arc::<AtomicU64>::default());
        let handle = Handle {
            agent,
            epoch,
            wake,
            inbox: sender,
            lost: lost.clone(),
            position: Arc::clone(&position),
            released: watcher,
        };
        runs.insert(run, handle);
        Some(Hold { run, holds: self.clone(), first: None, inbox, lost, position, _released: released })
    }

    /// The last message of a run that is held here, as its holder knows it: a sequence, 0 before its first append. When the
    /// log has no later one, nobody has taken the run over.
    pub fn position(&self, run: RunId) -> Option<u64> {
        self.handle(run).map(|handle| handle.position.load(Ordering::Relaxed))
    }

    /// Whether the run is held here by who took it the `epoch`th time or later. Who took it before has lost it, and is
    /// told so.
    pub fn answers(&self, run: RunId, epoch: u32) -> bool {
        let Some(handle) = self.handle(run) else {
            return false;
        };
        if handle.epoch < epoch {
            handle.lost.cancel();
            return false;
        }
        true
    }

    /// How many runs are held here.
    pub fn len(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// How many runs of each agent are held here.
    pub fn by_agent(&self) -> BTreeMap<AgentName, u64> {
        let mut held = BTreeMap::new();
        for handle in self.runs.lock().unwrap_or_else(PoisonError::into_inner).values() {
            *held.entry(handle.agent.clone()).or_default() += 1;
        }
        held
    }

    /// Whether no run is held here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Gives a signal to the run's holder and waits until it is in the journal.
    pub async fn deliver(&self, run: RunId, id: EventId, signal: Signal) -> Delivered {
        let Some(handle) = self.handle(run) else {
            return Delivered::NotHeld;
        };
        if handle.wake.as_ref() == Some(&id) {
            return Delivered::IsWake;
        }
        let (taken, told) = oneshot::channel();
        if handle.inbox.try_send(Mail { id, signal, taken }).is_err() {
            return Delivered::Busy;
        }
        if told.await.is_ok() { Delivered::Taken } else { Delivered::Busy }
    }

    /// Waits until the run is not held here.
    pub async fn released(&self, run: RunId) {
        if let Some(mut handle) = self.handle(run) {
            while handle.released.changed().await.is_ok() {}
        }
    }

    fn handle(&self, run: RunId) -> Option<Handle> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).get(&run).cloned()
    }
}

impl Hold {
    /// Puts the signal that woke the run before all others.
    pub fn preload(&mut self, mail: Option<Mail>) {
        self.first = mail;
    }

    /// Notes that the run's last message, which is the holder's, stands at this sequence.
    pub fn appended(&self, sequence: u64) {
        self.position.store(sequence, Ordering::Relaxed);
    }

    /// The next signal that is here already.
    pub fn try_next(&mut self) -> Option<Mail> {
        self.first.take().or_else(|| self.inbox.try_recv().ok())
    }

    /// Returns once somebody has said that the run was taken over.
    pub fn lost(&self) -> WaitForCancellationFutureOwned {
        self.lost.clone().cancelled_owned()
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> Option<Mail> {
        match self.first.take() {
            Some(mail) => Some(mail),
            None => self.inbox.recv().await,
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.holds.runs.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.run);
    }
}

//! Gates: places where an answer waits until a test lets it go on.
//!
//! A gate once open stays open until it is closed, so a call that is repeated after a crash passes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// All gates of the server's scenarios. There are no others, so their number is bounded by the files.
#[derive(Debug)]
pub(crate) struct Gates {
    by_name: BTreeMap<Arc<str>, Gate>,
}

#[derive(Debug)]
struct Gate {
    open: watch::Sender<bool>,
    waiting: Mutex<BTreeSet<u64>>,
}

/// One gate as `GET /rehearsal/gates` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateView {
    /// Its name.
    pub name: String,
    /// Whether answers pass.
    pub open: bool,
    /// The ids of the requests whose answers wait, oldest first.
    pub waiting: Vec<u64>,
}

/// No scenario has a gate of that name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("no gate is named `{name}`; the scenarios have: {known}")]
pub struct UnknownGate {
    name: String,
    known: String,
}

impl Gates {
    /// These gates, all closed.
    pub(crate) fn new<'a>(names: impl Iterator<Item = &'a Arc<str>>) -> Self {
        let gate = || Gate { open: watch::Sender::new(false), waiting: Mutex::default() };
        Self { by_name: names.map(|name| (name.clone(), gate())).collect() }
    }

    /// Opens or closes a gate.
    ///
    /// # Errors
    /// When there is none of that name.
    pub(crate) fn set(&self, name: &str, open: bool) -> Result<(), UnknownGate> {
        let gate = self.by_name.get(name).ok_or_else(|| UnknownGate {
            name: name.to_owned(),
            known: self.by_name.keys().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
        })?;
        gate.open.send_replace(open);
        Ok(())
    }

    /// Closes all gates.
    pub(crate) fn close_all(&self) {
        for gate in self.by_name.values() {
            gate.open.send_replace(false);
        }
    }

    /// Waits until the gate is open. The request counts as waiting for as long as the future lives.
    pub(crate) async fn pass(&self, name: &str, request: u64) {
        let Some(gate) = self.by_name.get(name) else {
            return;
        };
        let mut open = gate.open.subscribe();
        if *open.borrow_and_update() {
            return;
        }
        let _waiting = Waiting::new(gate, request);
        // The sender lives as long as the gates do, so this ends only by opening.
        let _ = open.wait_for(|open| *open).await;
    }

    /// All gates, by name.
    pub(crate) fn view(&self) -> Vec<GateView> {
        self.by_name.iter().map(|(name, gate)| gate.view(name)).collect()
    }
}

impl Gate {
    fn view(&self, name: &str) -> GateView {
        let waiting = lock(&self.waiting).iter().copied().collect();
        GateView { name: name.to_owned(), open: *self.open.borrow(), waiting }
    }
}

struct Waiting<'a> {
    gate: &'a Gate,
    request: u64,
}

impl<'a> Waiting<'a> {
    fn new(gate: &'a Gate, request: u64) -> Self {
        lock(&gate.waiting).insert(request);
        Self { gate, request }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        lock(&self.gate.waiting).remove(&self.request);
    }
}

fn lock(waiting: &Mutex<BTreeSet<u64>>) -> std::sync::MutexGuard<'_, BTreeSet<u64>> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Which calls are under way, by run and key.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use schemas::RunId;

use crate::{replies::CallKey, tape::Tape};

/// The calls under way.
#[derive(Debug, Default)]
pub struct Board {
    runs: Mutex<HashMap<RunId, HashMap<CallKey, Tape>>>,
}

/// What became of a call that wants to be entered.
#[derive(Debug)]
pub enum Place {
    /// It is entered until this is dropped.
    Entered(Entry),
    /// It is under way already.
    Taken(Tape),
    /// Its run has as many as it may.
    Full,
}

/// A call's place. Dropped, it is free.
#[derive(Debug)]
pub struct Entry {
    board: Arc<Board>,
    key: CallKey,
}

impl Board {
    /// The call under way under `key`.
    pub fn find(&self, key: &CallKey) -> Option<Tape> {
        self.runs().get(&key.run)?.get(key).cloned()
    }

    /// Enters a call, unless it is there or its run has `most` of them.
    pub fn enter(self: &Arc<Self>, key: CallKey, tape: &Tape, most: usize) -> Place {
        let mut runs = self.runs();
        let calls = runs.entry(key.run).or_default();
        if let Some(tape) = calls.get(&key) {
            return Place::Taken(tape.clone());
        }
        if calls.len() >= most {
            return Place::Full;
        }
        calls.insert(key, tape.clone());
        Place::Entered(Entry { board: Arc::clone(self), key })
    }

    fn runs(&self) -> MutexGuard<'_, HashMap<RunId, HashMap<CallKey, Tape>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut runs = self.board.runs();
        if let Some(calls) = runs.get_mut(&self.key.run) {
            calls.remove(&self.key);
            if calls.is_empty() {
                runs.remove(&self.key.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Api;

    fn key(run: u128, call: &str) -> CallKey {
        CallKey::new(RunId::from_uuid(uuid::Uuid::from_u128(run)), Api::OpenAi, call, b"")
    }

    #[test]
    fn a_place_is_taken_once_and_free_when_dropped() {
        let board = Arc::new(Board::default());
        let (tape, _writer) = Tape::new();
        let Place::Entered(entry) = board.enter(key(1, "a"), &tape, 2) else {
            panic!("it is free");
        };
        assert!(matches!(board.enter(key(1, "a"), &tape, 2), Place::Taken(_)));
        assert!(board.find(&key(1, "a")).is_some() && board.find(&key(2, "a")).is_none());
        drop(entry);
        assert!(board.find(&key(1, "a")).is_none() && board.runs().is_empty());
    }

    #[test]
    fn a_run_has_so_many_places_and_no_more() {
        let board = Arc::new(Board::default());
        let (tape, _writer) = Tape::new();
        let first = board.enter(key(1, "a"), &tape, 1);
        assert!(matches!(board.enter(key(1, "b"), &tape, 1), Place::Full));
        assert!(matches!(board.enter(key(2, "b"), &tape, 1), Place::Entered(_)));
        drop(first);
        assert!(matches!(board.enter(key(1, "b"), &tape, 1), Place::Entered(_)));
    }
}

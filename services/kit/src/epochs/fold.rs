//! The fold: kinds of journal messages, in any order, to how a run stands. Pure.

use std::collections::HashMap;

use schemas::RunId;
use schemas::event::{END_KINDS, EPOCH_KINDS};
use tokio::sync::watch;

use super::EpochError;

/// Runs that are remembered in each of two generations. Several times what a runner holds; an entry has 100 bytes.
const GENERATION: usize = 16_384;

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    epoch: u64,
    released: u64,
    ended: bool,
}

impl Standing {
    /// Takes a message of the run. Order does not matter, and a repeat changes nothing.
    pub(super) fn apply(&mut self, sequence: u64, kinds: &[String]) {
        let has = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
        if has(&EPOCH_KINDS) {
            self.epoch = self.epoch.max(sequence);
        }
        if has(&["waiting"]) {
            self.released = self.released.max(sequence);
        }
        self.ended |= has(&END_KINDS);
    }

    /// Whether no more than this need be known of the run's past: an epoch is later than all that came before it, and an
    /// end is final.
    const fn is_decisive(self) -> bool {
        self.epoch > 0 || self.ended
    }

    /// Adds what another fold of the same run has seen.
    fn merge(&mut self, other: Self) {
        self.epoch = self.epoch.max(other.epoch);
        self.released = self.released.max(other.released);
        self.ended |= other.ended;
    }

    /// Whether `epoch` is the live one.
    pub fn check(self, epoch: u64) -> Result<(), EpochError> {
        if self.ended {
            return Err(EpochError::Ended);
        }
        if epoch > self.epoch {
            return Err(EpochError::Unknown);
        }
        if epoch < self.epoch {
            return Err(EpochError::Old { current: self.epoch });
        }
        if self.released > self.epoch {
            return Err(EpochError::Released);
        }
        Ok(())
    }
}

/// The runs that opened an epoch or ended lately, and those that somebody asked about lately.
///
/// Two generations: when the younger is full, the older is forgotten and the younger takes its place. Whatever is used
/// moves to the younger, so what is forgotten was not used for at least a generation.
#[derive(Debug, Default)]
pub(super) struct Runs {
    younger: HashMap<RunId, Known>,
    older: HashMap<RunId, Known>,
    watched: HashMap<RunId, watch::Sender<()>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    standing: Standing,
    /// Whether the log holds nothing that would change it: its past was read, or an epoch or end was seen as it came.
    complete: bool,
}

impl Runs {
    pub(super) fn get(&mut self, run: RunId) -> Option<Standing> {
        let known = self.known(run)?;
        known.complete.then_some(known.standing)
    }

    /// Enters a run whose past is about to be read.
    pub(super) fn enter(&mut self, run: RunId) {
        if self.known(run).is_none() {
            self.insert(run, Known::default());
        }
    }

    /// Takes a message as it comes. The epoch that it opens is the latest, and an end is final: either way its run is
    /// known then. Others matter only to runs that are known.
    pub(super) fn apply(&mut self, run: RunId, sequence: u64, kinds: &[String]) {
        let mut seen = Standing::default();
        seen.apply(sequence, kinds);
        if seen == Standing::default() {
            return;
        }
        let decisive = seen.is_decisive();
        match self.known(run) {
            Some(known) => {
                known.standing.merge(seen);
                known.complete |= decisive;
            }
            None if decisive => self.insert(run, Known { standing: seen, complete: true }),
            None => {}
        }
        if let Some(watched) = self.watched.get(&run) {
            watched.send_replace(());
        }
    }

    /// The past of a run was read as `past`, from some message on; what came meanwhile is added to it.
    pub(super) fn complete(&mut self, run: RunId, past: Standing) -> Standing {
        let Some(known) = self.known(run) else {
            // Forgotten meanwhile: it is read again by the next who asks.
            return past;
        };
        known.standing.merge(past);
        // A run that the log does not have is not remembered as such: anybody could fill the memory with them.
        known.complete |= past.is_decisive();
        known.standing
    }

    pub(super) fn watch(&mut self, run: RunId) -> watch::Receiver<()> {
        let watched = self.watched.entry(run);
        watched.or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    /// To be called by who has dropped a receiver of the run.
    pub(super) fn unwatch(&mut self, run: RunId) {
        let unwatched = |watched: &watch::Sender<()>| watched.receiver_count() == 0;
        if self.watched.get(&run).is_some_and(unwatched) {
            self.watched.remove(&run);
        }
    }

    fn known(&mut self, run: RunId) -> Option<&mut Known> {
        if let Some(known) = self.older.remove(&run) {
            self.insert(run, known);
        }
        self.younger.get_mut(&run)
    }

    fn insert(&mut self, run: RunId, known: Known) {
        if self.younger.len() >= GENERATION {
            self.older = std::mem::take(&mut self.younger);
        }
        self.younger.insert(run, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        text.split(',').map(ToOwned::to_owned).collect()
    }

    fn run(n: u128) -> RunId {
        RunId::from_uuid(uuid::Uuid::from_u128(n))
    }

    fn standing(messages: &[(u64, &str)]) -> Standing {
        let mut standing = Standing::default();
        for (sequence, text) in messages {
            standing.apply(*sequence, &kinds(text));
        }
        standing
    }

    #[test]
    fn the_latest_epoch_is_live_until_released_or_ended_in_whatever_order_it_is_read() {
        let mut messages = vec![(2, "started,context_loaded,model_called"), (5, "model_replied"), (9, "resumed")];
        for _ in 0..2 {
            let now = standing(&messages);
            assert!(now.check(9).is_ok());
            assert!(matches!(now.check(2), Err(EpochError::Old { current: 9 })));
            assert!(matches!(now.check(11), Err(EpochError::Unknown)));
            messages.reverse();
        }
        let waits = standing(&[(2, "started"), (4, "handed_off,waiting")]);
        assert!(matches!(waits.check(2), Err(EpochError::Released)));
        let ended = standing(&[(2, "started"), (4, "message_sent,finished")]);
        assert!(matches!(ended.check(2), Err(EpochError::Ended)));
    }

    #[test]
    fn a_run_is_known_once_its_past_was_read_and_what_came_meanwhile_counts() {
        let mut runs = Runs::default();
        runs.enter(run(1));
        runs.apply(run(1), 4, &kinds("waiting"));
        assert_eq!(runs.get(run(1)), None, "its past is not read yet");
        let known = runs.complete(run(1), standing(&[(2, "started")]));
        assert!(matches!(known.check(2), Err(EpochError::Released)));
        assert_eq!(runs.get(run(1)), Some(known));
    }

    #[test]
    fn a_run_is_not_known_by_a_past_that_was_read_from_behind_its_epoch() {
        let mut runs = Runs::default();
        runs.enter(run(1));
        let known = runs.complete(run(1), standing(&[(4, "waiting")]));
        assert!(matches!(known.check(3), Err(EpochError::Unknown)));
        assert_eq!(runs.get(run(1)), None, "its epoch, 2, was not read");
        let known = runs.complete(run(1), standing(&[(2, "started"), (4, "waiting")]));
        assert!(matches!(known.check(2), Err(EpochError::Released)));
        assert_eq!(runs.get(run(1)), Some(known));
    }

    #[test]
    fn an_epoch_that_is_seen_to_open_needs_no_reading() {
        let mut runs = Runs::default();
        runs.apply(run(1), 7, &kinds("model_called"));
        assert_eq!(runs.get(run(1)), None);
        runs.apply(run(1), 8, &kinds("resumed,context_loaded"));
        assert!(runs.get(run(1)).unwrap().check(8).is_ok());
    }

    #[test]
    fn a_run_that_is_not_there_is_asked_for_again() {
        let mut runs = Runs::default();
        runs.enter(run(1));
        let known = runs.complete(run(1), Standing::default());
        assert!(matches!(known.check(2), Err(EpochError::Unknown)));
        assert_eq!(runs.get(run(1)), None);
    }

    #[test]
    fn memory_is_bounded_and_keeps_what_is_used() {
        let mut runs = Runs::default();
        for n in 0..5 * GENERATION as u128 {
            runs.apply(run(n), 1, &kinds("started"));
            assert!(runs.get(run(0)).is_some(), "forgotten after {n}");
        }
        assert!(runs.younger.len() + runs.older.len() <= 2 * GENERATION);
    }

    #[test]
    fn the_last_watch_takes_its_entry_with_it() {
        let mut runs = Runs::default();
        let one = runs.watch(run(1));
        let other = runs.watch(run(1));
        runs.apply(run(1), 3, &kinds("finished"));
        assert!(one.has_changed().unwrap());
        drop(one);
        runs.unwatch(run(1));
        assert_eq!(runs.watched.len(), 1);
        drop(other);
        runs.unwatch(run(1));
        assert!(runs.watched.is_empty());
    }
}

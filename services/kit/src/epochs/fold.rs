//! The fold: kinds of journal messages, in any order, to how a run stands. Pure.

use std::collections::{HashMap, VecDeque};

use schemas::{
    RunId,
    event::{END_KINDS, EPOCH_KINDS},
};

use super::EpochError;

/// Runs that are remembered. Ten times what a runner holds; an entry has 100 bytes.
const MAX_RUNS: usize = 20_000;

/// How a run stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    epoch: u64,
    released: u64,
    ended: bool,
}

impl Standing {
    /// Takes a message of the run. Order does not matter, and a repeat changes nothing.
    fn apply(&mut self, sequence: u64, kinds: &[String]) {
        let has = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
        if has(&EPOCH_KINDS) {
            self.epoch = self.epoch.max(sequence);
        }
        if has(&["waiting"]) {
            self.released = self.released.max(sequence);
        }
        self.ended |= has(&END_KINDS);
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

/// The runs that somebody asked about.
#[derive(Debug, Default)]
pub(super) struct Runs {
    runs: HashMap<RunId, Known>,
    order: VecDeque<RunId>,
}

#[derive(Debug, Default)]
struct Known {
    standing: Standing,
    complete: bool,
}

impl Runs {
    pub(super) fn get(&self, run: RunId) -> Option<Standing> {
        self.runs.get(&run).filter(|known| known.complete).map(|known| known.standing)
    }

    /// Enters a run whose past is about to be read; forgets the run that was entered longest ago when full.
    pub(super) fn enter(&mut self, run: RunId) {
        if self.runs.contains_key(&run) {
            return;
        }
        if self.order.len() >= MAX_RUNS
            && let Some(oldest) = self.order.pop_front()
        {
            self.runs.remove(&oldest);
        }
        self.runs.insert(run, Known::default());
        self.order.push_back(run);
    }

    pub(super) fn forget(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.order.retain(|known| *known != run);
    }

    pub(super) fn apply(&mut self, run: RunId, sequence: u64, kinds: &[String]) {
        if let Some(known) = self.runs.get_mut(&run) {
            known.standing.apply(sequence, kinds);
        }
    }

    /// The past has been applied.
    pub(super) fn complete(&mut self, run: RunId) -> Standing {
        let Some(known) = self.runs.get_mut(&run) else {
            return Standing::default();
        };
        known.complete = true;
        known.standing
    }

    /// What the follower did not see may be missing in all of them.
    pub(super) fn clear(&mut self) {
        self.runs.clear();
        self.order.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(text: &str) -> Vec<String> {
        text.split(',').map(ToOwned::to_owned).collect()
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
        let run = RunId::from_uuid(uuid::Uuid::from_u128(1));
        let mut runs = Runs::default();
        runs.enter(run);
        runs.apply(run, 9, &kinds("finished"));
        assert_eq!(runs.get(run), None, "its past is not read yet");
        runs.apply(run, 2, &kinds("started"));
        assert!(matches!(runs.complete(run).check(2), Err(EpochError::Ended)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut runs = Runs::default();
        for n in 0..=MAX_RUNS as u128 {
            runs.enter(RunId::from_uuid(uuid::Uuid::from_u128(n)));
        }
        assert_eq!((runs.runs.len(), runs.order.len()), (MAX_RUNS, MAX_RUNS));
    }
}

//! Which ends of runs the audit room knows of.
//!
//! The log speaks of an end twice: when it happens, and in `archived`, which is all that is left of a run that went into
//! the archive. So whoever reads both has to know, for each `archived`, whether the end was told when it happened.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

/// Ends that are this old when the bridge begins are history: a new audit room does not begin with a line for each run there
/// ever was.
const MAX_AGE: SignedDuration = SignedDuration::from_hours(24);

/// Ends that are remembered, some megabytes. Runs are archived oldest first and in the order of their beginnings, so of those
/// that ended before so many others hardly any is still to come.
const MAX_ENDS: usize = 100_000;

/// The end of a run, as the log has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Its sequence, also when only the archive has it.
    pub sequence: u64,
    /// When it was; unknown once it is archived.
    pub at: Option<Timestamp>,
}

impl End {
    /// Whether it is told with others, by a bridge that begins now.
    pub fn is_history(&self, now: Timestamp) -> bool {
        self.at.is_none_or(|at| now.duration_since(at) > MAX_AGE)
    }
}

/// The ends that were told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// All up to here were.
    up_to: u64,
    /// And these.
    ends: BTreeSet<u64>,
}

impl Seen {
    /// All ends up to a sequence.
    pub fn up_to(sequence: u64) -> Self {
        Self { up_to: sequence, ends: BTreeSet::new() }
    }

    /// Whether the end at `sequence` was told.
    pub fn has(&self, sequence: u64) -> bool {
        sequence <= self.up_to || self.ends.contains(&sequence)
    }

    /// The end at `sequence` is told.
    pub fn add(&mut self, sequence: u64) {
        self.ends.insert(sequence);
        if self.ends.len() > MAX_ENDS
            && let Some(oldest) = self.ends.pop_first()
        {
            self.up_to = self.up_to.max(oldest);
        }
    }
}

/// The line about so many runs that ended.
pub fn missed(runs: usize) -> String {
    let runs = if runs == 1 { "1 run".to_owned() } else { format!("{runs} runs") };
    format!("… {runs} ended while I could not tell of it here: `nightcrew runs` lists them.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_day_old_or_archived_is_history() {
        let now: Timestamp = "2026-01-02T12:00:00Z".parse().unwrap();
        let end = |at: Option<&str>| End { sequence: 1, at: at.map(|at| at.parse().unwrap()) };
        assert!(end(Some("2026-01-01T11:59:59Z")).is_history(now));
        assert!(!end(Some("2026-01-01T12:00:00Z")).is_history(now));
        assert!(end(None).is_history(now));
    }

    #[test]
    fn what_was_told_is_known_and_the_oldest_are_taken_for_told() {
        let mut seen = Seen::up_to(10);
        assert!(seen.has(10) && !seen.has(11));
        let last = 20 + MAX_ENDS as u64;
        for sequence in 20..=last {
            seen.add(sequence);
        }
        assert!(seen.has(20) && seen.has(last) && seen.has(11) && !seen.has(last + 1));
        assert_eq!(seen.ends.len(), MAX_ENDS);
    }

    #[test]
    fn the_line_counts() {
        assert!(missed(1).contains(" 1 run ended") && missed(2).contains(" 2 runs ended"));
    }
}

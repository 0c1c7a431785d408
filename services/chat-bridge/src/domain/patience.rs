//! How long the bridge goes on trying to say something of its own.

use std::time::Duration;

/// For how long the words of one batch may hold up what was written after it. A homeserver that is restarted is back
/// within it, and nobody waits much longer for an answer.
const WITHIN: Duration = Duration::from_mins(1);

/// Between two tries of a channel that does not say how long to wait.
const PAUSE: Duration = Duration::from_secs(2);

/// What is left of the time for words that can not be said at once. Those that can cost nothing, however many they are.
#[derive(Debug, PartialEq, Eq)]
pub struct Patience {
    left: Duration,
}

impl Patience {
    /// That of a new batch.
    pub fn fresh() -> Self {
        Self { left: WITHIN }
    }

    /// How long the next try may take.
    pub fn left(&self) -> Duration {
        self.left
    }

    /// A try that took `time` was of no use.
    pub fn lose(&mut self, time: Duration) {
        self.left = self.left.saturating_sub(time);
    }

    /// How long to wait before the next try of a channel that asks for `retry_after`: never less than it asks for.
    /// Nothing when that is longer than there is time.
    pub fn pause(&mut self, retry_after: Option<Duration>) -> Option<Duration> {
        let pause = retry_after.unwrap_or(PAUSE);
        let left = self.left.checked_sub(pause).filter(|left| !left.is_zero())?;
        self.left = left;
        Some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_waited_for_as_long_as_it_asks_for() {
        let mut patience = Patience::fresh();
        assert_eq!(patience.pause(None), Some(PAUSE));
        let asked = Duration::from_secs(20);
        assert_eq!(patience.pause(Some(asked)), Some(asked));
        assert_eq!(patience.left() + PAUSE + asked, WITHIN);
    }

    #[test]
    fn one_that_asks_for_too_much_is_given_up_and_the_time_is_kept_for_others() {
        let mut patience = Patience::fresh();
        assert_eq!(patience.pause(Some(WITHIN)), None);
        assert_eq!(patience, Patience::fresh());
    }

    #[test]
    fn tries_and_pauses_together_end() {
        let mut patience = Patience::fresh();
        let mut waited = Duration::ZERO;
        while let Some(pause) = patience.pause(None) {
            let tried = patience.left().min(Duration::from_secs(10));
            patience.lose(tried);
            waited += pause + tried;
        }
        assert!(waited <= WITHIN, "{waited:?}");
        patience.lose(WITHIN);
        assert_eq!((patience.left(), patience.pause(Some(Duration::ZERO))), (Duration::ZERO, None));
    }
}

//! What becomes of a delivery: decided here for every outcome of every handler.

use std::time::Duration;

use crate::class::{Classified, ErrorClass, chain};

/// First pause before a message that failed is delivered again: a hiccup of the bus or of a server is over by then.
const FIRST_BACKOFF: Duration = Duration::from_millis(200);

/// The longest such pause: short enough that a person who mended the cause does not wait for it.
pub const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// What a handler wants done with its delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is done.
    Ack,
    /// It shall be delivered again after that time.
    Later(Duration),
    /// It is somebody else's by now: no ack, nak, term or in-progress.
    Abandon,
}

/// What is done with a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ack it.
    Ack,
    /// Nak it with this delay.
    Later(Duration),
    /// Leave it alone.
    Abandon,
    /// Park it, then ack it.
    Park {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        reason: String,
    },
}

/// What becomes of the `attempt`th delivery of a message whose handler returned `outcome`.
pub(super) fn judge<E: Classified + 'static>(outcome: Result<Fate, E>, attempt: u64) -> Verdict {
    let error = match outcome {
        Ok(Fate::Ack) => return Verdict::Ack,
        Ok(Fate::Later(delay)) => return Verdict::Later(delay),
        Ok(Fate::Abandon) => return Verdict::Abandon,
        Err(error) => error,
    };
    let (code, reason) = (error.code(), chain(&error));
    match error.class() {
        ErrorClass::Refused => {
            tracing::info!(code, reason, "a message is refused");
            Verdict::Ack
        }
        ErrorClass::Transient => {
            let delay = backoff(attempt);
            // What is the matter for hours is said ever less often.
            if attempt.is_power_of_two() {
                tracing::warn!(code, reason, attempt, ?delay, "a message can not be handled now");
            } else {
                tracing::debug!(code, reason, attempt, ?delay, "a message can not be handled now");
            }
            Verdict::Later(delay)
        }
        ErrorClass::Broken => {
            tracing::error!(code, reason, "a message can not be handled and is parked");
            Verdict::Park { code: code.to_owned(), reason }
        }
    }
}

/// The pause after the `attempt`th delivery: doubling, bounded, and random by half so that what failed together does
/// not come back together.
pub fn backoff(attempt: u64) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = FIRST_BACKOFF.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_BACKOFF);
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Failure(ErrorClass, #[source] std::io::Error);

    impl Classified for Failure {
        fn class(&self) -> ErrorClass {
            self.0
        }

        fn code(&self) -> &'static str {
            "failure"
        }
    }

    fn failure(class: ErrorClass) -> Result<Fate, Failure> {
        Err(Failure(class, std::io::Error::other("inner")))
    }

    #[test]
    fn a_handlers_wish_is_done() {
        let wish = |fate| judge::<Failure>(Ok(fate), 1);
        assert_eq!(wish(Fate::Ack), Verdict::Ack);
        assert_eq!(wish(Fate::Abandon), Verdict::Abandon);
        let second = Duration::from_secs(1);
        assert_eq!(wish(Fate::Later(second)), Verdict::Later(second));
    }

    #[test]
    fn the_class_of_an_error_decides() {
        assert_eq!(judge(failure(ErrorClass::Refused), 1), Verdict::Ack);
        assert!(matches!(judge(failure(ErrorClass::Transient), 1), Verdict::Later(_)));
        assert_eq!(
            judge(failure(ErrorClass::Broken), 1),
            Verdict::Park { code: "failure".to_owned(), reason: "outer: inner".to_owned() }
        );
    }

    #[test]
    fn the_pause_grows_and_is_bounded() {
        assert!(backoff(1) <= FIRST_BACKOFF);
        assert!(backoff(4) > backoff(1));
        for attempt in [0, 20, 64, u64::MAX] {
            assert!(backoff(attempt) <= MAX_BACKOFF);
        }
    }
}

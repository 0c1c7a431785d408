//! The wall clock, read in this one place.
//!
//! Domain code takes time as an input, so that replaying a log gives what it gave live; the lints forbid the clock
//! everywhere else. Call this at the rim and hand the instant down. Durations are measured with `Instant`, not here.

use jiff::Timestamp;

/// The present instant.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn now() -> Timestamp {
    Timestamp::now()
}

//! The wall clock and random ids, read in this one place.
//!
//! Domain code takes time and ids as inputs, so that replaying a log gives what it gave live; the lints forbid the
//! clock everywhere else. Call this at the rim and hand the values down. Durations are measured with `Instant`, not
//! here.

use jiff::Timestamp;
use uuid::Uuid;

/// The present instant.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}

/// A UUIDv7 made now: ids made later in this process sort after it.
pub fn uuid7() -> Uuid {
    Uuid::now_v7()
}

/// A random UUID that says nothing about when it was made.
pub fn uuid4() -> Uuid {
    Uuid::new_v4()
}

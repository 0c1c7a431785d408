//! Where to begin in a room for which no position is kept.
//!
//! That is a room just joined, or every room after the position was lost. Whatever was written before the crew was
//! asked in, or before the crew last spoke, is history. What came after it was meant for somebody who listens, so it
//! is taken, unless it is so old that an answer would only surprise. A run id derives from its message, so a message
//! that was taken before starts nothing again.

use jiff::{SignedDuration, Timestamp};

/// Older messages get no answer after a loss of the position: an hour covers a restart with an empty disk and a
/// person who writes before the invitation is accepted.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// What an event says about where the crew began to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// The crew's account was invited.
    Invited,
    /// The crew's account joined without an invitation.
    Joined,
    /// The crew's account said something.
    Spoke,
    /// Anything else.
    Other,
}

/// Whether the events that come after this one are the ones to take, this one excluded.
pub fn begins_after(mark: Mark, at: Timestamp, now: Timestamp) -> bool {
    mark != Mark::Other || now.duration_since(at) > MAX_AGE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_ends_where_the_crew_came_in_or_spoke_or_an_hour_ago() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let recent = now - SignedDuration::from_mins(5);
        for mark in [Mark::Invited, Mark::Joined, Mark::Spoke] {
            assert!(begins_after(mark, recent, now));
        }
        assert!(!begins_after(Mark::Other, recent, now));
        assert!(begins_after(
            Mark::Other,
            now - SignedDuration::from_hours(2),
            now
        ));
    }
}

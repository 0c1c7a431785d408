//! Where to begin in a room whose events were not read up to now.
//!
//! In a room that the account has just come into, that is where it was asked in: somebody may write before the
//! invitation is accepted. When there is no position at all, because it is the first start or the position was lost,
//! it is also where the crew last spoke, and never further back than an hour, because a late answer would only
//! surprise. What the crew said after that start does not count: it answers the very messages that may have to be
//! read again. A run id derives from its message, so a message that was taken before starts nothing again.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Without a position, older messages get no answer: an hour covers a restart with an empty disk.
pub const MAX_AGE: SignedDuration = SignedDuration::from_hours(1);

/// Why the room has no position.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Origin {
    /// The account was not in it so far.
    NewRoom,
    /// There was no position for any room when the bridge began, then.
    NoPosition {
        /// When.
        begun: Timestamp,
    },
}

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

/// Whether the events after this one are the ones to take, this one excluded.
pub fn begins_after(mark: Mark, at: Timestamp, origin: Origin) -> bool {
    match (mark, origin) {
        (Mark::Invited | Mark::Joined, _) => true,
        (Mark::Spoke | Mark::Other, Origin::NewRoom) => false,
        (Mark::Spoke, Origin::NoPosition { begun }) => at < begun,
        (Mark::Other, Origin::NoPosition { begun }) => begun.duration_since(at) > MAX_AGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun() -> Timestamp {
        "2026-01-01T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_new_room_begins_where_the_crew_was_asked_in() {
        let long_ago = begun() - SignedDuration::from_hours(48);
        assert!(begins_after(Mark::Invited, long_ago, Origin::NewRoom));
        assert!(begins_after(Mark::Joined, long_ago, Origin::NewRoom));
        assert!(!begins_after(Mark::Spoke, begun(), Origin::NewRoom));
        assert!(!begins_after(Mark::Other, long_ago, Origin::NewRoom));
    }

    #[test]
    fn without_a_position_it_begins_where_the_crew_last_spoke_or_an_hour_ago() {
        let origin = Origin::NoPosition { begun: begun() };
        let minutes = SignedDuration::from_mins(5);
        assert!(begins_after(Mark::Spoke, begun() - minutes, origin));
        assert!(!begins_after(Mark::Other, begun() - minutes, origin));
        let old = begun() - SignedDuration::from_hours(2);
        assert!(begins_after(Mark::Other, old, origin));
    }

    #[test]
    fn an_answer_given_while_catching_up_hides_nothing_when_that_is_repeated() {
        let origin = Origin::NoPosition { begun: begun() };
        let later = begun() + SignedDuration::from_secs(10);
        assert!(!begins_after(Mark::Spoke, later, origin));
    }
}

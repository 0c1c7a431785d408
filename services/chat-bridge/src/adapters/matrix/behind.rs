//! Rooms that can not be read now while others can.
//!
//! Such a room keeps a position of its own, so the others go on and nothing of it is lost: it is tried again after a sync that
//! succeeds, with ever longer pauses. What is new elsewhere waits for such a try, so it is mostly short, and when one fails the
//! next one is after another sync. Health is red from the first failure on. When it lasts, the room and the audit room are told;
//! when it does not end, they are told that what was written meanwhile is not read.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use kit::class::chain;
use matrix_sdk::{
    Client, Error, RoomState,
    ruma::{OwnedRoomId, RoomId},
    sync::SyncResponse,
};
use serde::{Deserialize, Serialize};

use super::{
    history::{self, Newest},
    is_revoked,
    position::Position,
    read::Reader,
    rooms::Rooms,
};
use crate::{
    domain::{catch_up::Origin, inbound::Tell},
    health::Health,
    ports::Batch,
};

/// How much longer each pause is than the one before.
const PAUSE_STEP: SignedDuration = SignedDuration::from_secs(2);

/// The longest pause: whoever mended the room does not wait for it.
const MAX_PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// A homeserver that was restarted has answered by then, and nobody need know.
const TELL_AT: u32 = 4;

/// With these pauses about an hour. What fails for that long, while the homeserver answers everything else, does not get well
/// by itself.
const GIVE_UP_AT: u32 = 120;

/// What a homeserver does not give because it is ill just now, it gives by then: with these pauses some minutes.
const PATIENT_UNTIL: u32 = 15;

/// Where the reading of a room begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Start {
    /// After what this sync token covers.
    After(String),
    /// Where `domain::catch_up` says.
    Anew(Origin),
}

/// A room that could not be read with the others.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Behind {
    /// Where it goes on.
    start: Start,
    /// When it was first tried, by our clock.
    since: Timestamp,
    /// When it was last tried, at the end of that.
    tried_at: Timestamp,
    /// How often.
    tries: u32,
}

/// What is to be done about a room after one more failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    Wait,
    Tell,
    GiveUp,
}

impl Behind {
    fn new(start: Start, now: Timestamp) -> Self {
        Self { start, since: now, tried_at: now, tries: 0 }
    }

    fn failed(&mut self, now: Timestamp) -> Next {
        self.tries += 1;
        self.tried_at = now;
        match self.tries {
            GIVE_UP_AT.. => Next::GiveUp,
            TELL_AT => Next::Tell,
            _ => Next::Wait,
        }
    }

    /// Whether all of the room may wait for one message of it.
    pub(super) fn is_patient(&self) -> bool {
        self.tries < PATIENT_UNTIL
    }

    /// How long a page of the next try may take. Mostly less than any other page, and ever more seldom as long: one that is only
    /// slow comes then, and before anybody is told.
    fn page_within(&self) -> Duration {
        let in_full = self.tries + 1 >= TELL_AT && (self.tries + 1).is_power_of_two();
        if in_full { history::PAGE_WITHIN } else { history::DOUBTFUL_PAGE_WITHIN }
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let tries = i32::try_from(self.tries).unwrap_or(i32::MAX);
        now.duration_since(self.tried_at) >= PAUSE_STEP.saturating_mul(tries).min(MAX_PAUSE)
    }
}

/// Leaves a room behind, or notes that it still is.
pub(super) fn leave(
    reader: &Reader<'_>,
    room: &RoomId,
    start: Start,
    error: &Error,
    (position, batch): (&mut Position, &mut Batch),
) {
    let name = name(reader, room);
    let behind = position.behind.entry(room.to_owned()).or_insert_with(|| Behind::new(start, reader.now));
    let since = behind.since;
    // A try may take as long as a pause.
    let next = behind.failed(kit::clock::now());
    reader.health.report(&key(room), format!("the room {name} is not read since {since:.0}: {}", chain(error)));
    let text = match next {
        Next::Wait => return,
        Next::Tell => format!(
            "I can not read the room {name} since {since:.0}. I keep trying, and then take up what was written meanwhile."
        ),
        Next::GiveUp => {
            position.behind.remove(room);
            position.rooms.insert(room.to_owned());
            reader.health.clear(&key(room));
            format!(
                "I could not read what was written in the room {name} from {since:.0} until now, and do not try any longer. \
                 Please write again what was meant for the crew."
            )
        }
    };
    tracing::warn!(%room, error = chain(error), text, "a room is behind");
    let key = format!("behind/{room}/{since}/{next:?}");
    let audit = reader.settings.matrix.audit_room.clone();
    batch.notices.extend([Some(room.to_string()), audit].into_iter().flatten().map(|room| Tell {
        key: format!("{key}/{room}"),
        room,
        thread: None,
        text: text.clone(),
    }));
}

/// Reads the rooms that are behind and due, up to the end of `response`, until one fails. Fails only when our access is
/// revoked.
pub(super) async fn retry(
    reader: &Reader<'_>,
    client: &Client,
    response: &SyncResponse,
    (position, batch): (&mut Position, &mut Batch),
) -> matrix_sdk::Result<()> {
    let mut due = Vec::new();
    for (id, behind) in &reader.position.behind {
        match client.get_room(id).filter(|room| room.state() == RoomState::Joined) {
            None => gone(reader, id, behind, position, batch),
            Some(room) if behind.is_due(reader.now) => due.push((id, behind, room)),
            Some(_) => {}
        }
    }
    due.sort_by_key(|(_, behind, _)| behind.tried_at);
    for (id, behind, room) in due {
        let newest = Newest { events: &[], before: Some(&response.next_batch) };
        let reader = Reader { page_within: behind.page_within(), ..*reader };
        match reader.room(&room, &behind.start, newest, position).await {
            Ok(mut read) => {
                position.behind.remove(id);
                position.rooms.insert(id.clone());
                reader.health.clear(&key(id));
                batch.messages.append(&mut read.messages);
                batch.notices.append(&mut read.notices);
            }
            Err(error) if is_revoked(&error) => return Err(error),
            Err(error) => {
                leave(&reader, id, behind.start.clone(), &error, (position, batch));
                break;
            }
        }
    }
    Ok(())
}

/// Forgets a room that the account is not in any more: nobody could be answered there.
fn gone(reader: &Reader<'_>, id: &OwnedRoomId, behind: &Behind, position: &mut Position, batch: &mut Batch) {
    let text = format!(
        "The crew is not in the room {} any more. What was written there since {:.0} is not read.",
        name(reader, id),
        behind.since
    );
    tracing::warn!(room = %id, text, "a room that was behind is gone");
    position.behind.remove(id);
    reader.health.clear(&key(id));
    batch.notices.extend(reader.settings.matrix.audit_room.clone().map(|room| Tell {
        key: format!("behind/{id}/{}/gone", behind.since),
        room,
        thread: None,
        text,
    }));
}

/// Shows the rooms that were left behind before this process began.
pub(super) fn show(position: &Position, rooms: &Rooms, health: &Health) {
    for (room, behind) in &position.behind {
        let name = rooms.name(room).unwrap_or_else(|| room.to_string());
        health.report(&key(room), format!("the room {name} is not read since {:.0}", behind.since));
    }
}

/// Forgets that rooms are behind: their positions are worth nothing any more.
pub(super) fn forget(reader: &Reader<'_>) {
    for room in reader.position.behind.keys() {
        reader.health.clear(&key(room));
    }
}

fn name(reader: &Reader<'_>, room: &RoomId) -> String {
    reader.rooms.name(room).unwrap_or_else(|| room.to_string())
}

/// The health key of a room.
fn key(room: &RoomId) -> String {
    format!("matrix room {room}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_tried_ever_more_seldom_told_of_and_given_up_after_about_an_hour() {
        let begin = Timestamp::UNIX_EPOCH;
        let mut now = begin;
        let mut behind = Behind::new(Start::After("s1".to_owned()), now);
        let (mut told, mut in_full) = (Vec::new(), Vec::new());
        loop {
            in_full.extend((behind.page_within() == history::PAGE_WITHIN).then_some(behind.tries));
            let next = behind.failed(now);
            assert!(!behind.is_due(now));
            if next != Next::Wait {
                told.push((next, now.duration_since(begin).as_secs()));
            }
            if next == Next::GiveUp {
                break;
            }
            while !behind.is_due(now) {
                now += SignedDuration::from_secs(1);
            }
        }
        assert_eq!(told[0], (Next::Tell, 2 + 4 + 6));
        let (next, given_up) = told[1];
        assert!(next == Next::GiveUp && (3_000..4_000).contains(&given_up), "{told:?}");
        assert_eq!(in_full, [3, 7, 15, 31, 63]);
    }
}

//! Messages that can not be decrypted.
//!
//! Often the key is only late: it travels by another way than the message. So a message is tried again with every
//! sync; after a moment its room is told and health is red, and when the key comes the message is taken as if it had
//! just been read.

use jiff::{SignedDuration, Timestamp};
use matrix_sdk::{
    Client,
    deserialized_responses::TimelineEvent,
    ruma::{RoomId, api::error::ErrorKind},
};

use super::{
    position::{Position, Unreadable},
    rooms::Rooms,
    translate::{self, Place},
};
use crate::{domain::inbound::Tell, health::Health, ports::Batch};

/// A key that is merely late comes within seconds.
const TELL_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// A key that has not come within an hour does not come: the sender has been told, and health is green again.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Messages that are remembered. Each costs a request a sync.
const MAX_REMEMBERED: usize = 50;

/// Remembers a message whose key is missing.
pub(super) fn remember(event: &TimelineEvent, room: &RoomId, position: &mut Position, now: Timestamp) {
    let Some(id) = event.event_id() else { return };
    if position.unreadable.len() >= MAX_REMEMBERED {
        tracing::warn!(event = %id, %room, "too many messages without keys: this one is not tried again");
        return;
    }
    let thread = translate::thread_root(event);
    position.unreadable.entry(id).or_insert(Unreadable { room: room.to_owned(), thread, since: now, told: false });
}

/// Tries all of them again. What can be read is added to `batch`, what can not for a while is told.
pub(super) async fn retry(
    client: &Client,
    rooms: &Rooms,
    health: &Health,
    position: &mut Position,
    batch: &mut Batch,
    now: Timestamp,
) {
    let ids: Vec<_> = position.unreadable.keys().cloned().collect();
    for id in ids {
        let Some(entry) = position.unreadable.get_mut(&id) else {
            continue;
        };
        let key = format!("matrix message {id}");
        let Some(room) = client.get_room(&entry.room) else {
            continue;
        };
        let done = match room.event(&id, None).await {
            Ok(event) if !event.kind.is_utd() => {
                let name = rooms.name(&entry.room);
                let place = Place { room: entry.room.as_str(), room_name: name.as_deref(), me: room.own_user_id() };
                batch.messages.extend(translate::message(&event, place));
                true
            }
            Err(error) => matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound | ErrorKind::Forbidden)),
            Ok(_) => false,
        };
        let age = now.duration_since(entry.since);
        if done || age > GIVE_UP_AFTER {
            health.clear(&key);
            position.unreadable.remove(&id);
            continue;
        }
        if age > TELL_AFTER {
            health.report(&key, format!("a message in {} can not be decrypted", entry.room));
            if !entry.told {
                entry.told = true;
                batch.notices.push(notice(id.as_ref(), entry));
            }
        }
    }
}

fn notice(id: &str, entry: &Unreadable) -> Tell {
    Tell {
        room: entry.room.to_string(),
        thread: Some(entry.thread.clone().unwrap_or_else(|| id.to_owned())),
        key: format!("unreadable/{id}"),
        text: "I can not decrypt this message: its key has not reached me. Please send it again; if its key still comes, I will read it then."
            .to_owned(),
    }
}

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
    history,
    position::{Position, Unreadable},
    read::Reader,
    translate,
};
use crate::{domain::inbound::Tell, health::Health, ports::Batch};

/// A key that is merely late comes within seconds.
const TELL_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// A key that has not come within an hour does not come: the sender has been told, and health is green again.
const GIVE_UP_AFTER: SignedDuration = SignedDuration::from_hours(1);

/// Messages that are remembered. Each costs a request a sync.
const MAX_REMEMBERED: usize = 50;

/// Remembers a message whose key is missing. When there are too many, the oldest is not tried again; its room is told.
pub(super) fn remember(
    event: &TimelineEvent,
    room: &RoomId,
    health: &Health,
    position: &mut Position,
    batch: &mut Batch,
    now: Timestamp,
) {
    let Some(id) = event.event_id() else { return };
    let thread = translate::thread_root(event);
    position.unreadable.entry(id).or_insert(Unreadable { room: room.to_owned(), thread, since: now, told: false });
    while position.unreadable.len() > MAX_REMEMBERED {
        let oldest = position.unreadable.iter().min_by_key(|(_, entry)| entry.since).map(|(id, _)| id.clone());
        let Some((id, entry)) = oldest.and_then(|id| position.unreadable.remove_entry(&id)) else { return };
        tracing::warn!(event = %id, room = %entry.room, "too many messages without keys: one is not tried again");
        health.clear(&key(id.as_str()));
        if !entry.told {
            batch.notices.push(notice(id.as_str(), &entry));
        }
    }
}

/// Tries all of them again. What can be read is added to `batch`, what can not for a while is told.
pub(super) async fn retry(
    reader: &Reader<'_>,
    client: &Client,
    position: &mut Position,
    batch: &mut Batch,
    now: Timestamp,
) {
    let ids: Vec<_> = position.unreadable.keys().cloned().collect();
    for id in ids {
        let Some(entry) = position.unreadable.get_mut(&id) else {
            continue;
        };
        let Some(room) = client.get_room(&entry.room) else {
            continue;
        };
        let is_read = match history::within(reader.page_within, room.event(&id, None)).await {
            Ok(event) if event.kind.is_utd() => false,
            Ok(event) => reader.message(&room, &event, batch).await.is_ok(),
            Err(error) => {
                matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound | ErrorKind::Forbidden))
            }
        };
        let age = now.duration_since(entry.since);
        if is_read || age > GIVE_UP_AFTER {
            reader.health.clear(&key(id.as_str()));
            position.unreadable.remove(&id);
            continue;
        }
        if age > TELL_AFTER {
            reader.health.report(&key(id.as_str()), format!("a message in {} can not be decrypted", entry.room));
            if !entry.told {
                entry.told = true;
                batch.notices.push(notice(id.as_ref(), entry));
            }
        }
    }
}

/// The health key of a message.
fn key(id: &str) -> String {
    format!("matrix message {id}")
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

#[cfg(test)]
mod tests {
    use matrix_sdk::{
        deserialized_responses::{UnableToDecryptInfo, UnableToDecryptReason},
        ruma::serde::Raw,
    };
    use serde_json::json;

    use super::*;

    fn event(n: usize) -> TimelineEvent {
        let raw = Raw::from_json_string(json!({ "event_id": format!("${n}"), "content": {} }).to_string()).unwrap();
        let reason = UnableToDecryptReason::Unknown;
        TimelineEvent::from_utd(raw, UnableToDecryptInfo { session_id: None, reason })
    }

    #[test]
    fn of_too_many_the_oldest_are_told_and_not_tried_again() {
        let room = <&RoomId>::try_from("!room:x").unwrap();
        let checks = kit::service::Health::new("chat-bridge");
        let health = Health::new(checks.clone());
        let mut position = Position::beginning(Timestamp::UNIX_EPOCH);
        let mut batch = Batch::default();
        health.report(&key("$0"), "a message can not be decrypted");
        for n in 0..MAX_REMEMBERED + 3 {
            let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(i64::try_from(n).unwrap());
            remember(&event(n), room, &health, &mut position, &mut batch, now);
        }
        assert_eq!(position.unreadable.len(), MAX_REMEMBERED);
        let told: Vec<_> = batch.notices.iter().filter_map(|told| told.thread.as_deref()).collect();
        assert_eq!(told, ["$0", "$1", "$2"]);
        assert!(checks.report().problems().is_empty());
    }
}

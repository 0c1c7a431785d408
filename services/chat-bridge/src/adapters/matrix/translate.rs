//! Matrix events into what the core understands.

use jiff::Timestamp;
use matrix_sdk::{
    deserialized_responses::TimelineEvent,
    ruma::{
        MilliSecondsSinceUnixEpoch, UserId,
        events::{
            AnySyncMessageLikeEvent, AnySyncStateEvent, AnySyncTimelineEvent, Mentions, SyncMessageLikeEvent,
            room::{
                member::MembershipState,
                message::{MessageType, OriginalSyncRoomMessageEvent, Relation, sanitize::remove_plain_reply_fallback},
                redaction::SyncRoomRedactionEvent,
            },
        },
    },
};

use super::CHANNEL;
use crate::domain::{
    catch_up::Mark,
    inbound::{Content, IncomingMessage, Kind},
};

/// Where an event was found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place<'a> {
    /// The room's id.
    pub(super) room: &'a str,
    /// Its name in `team.yaml`.
    pub(super) room_name: Option<&'a str>,
    /// The crew's own account.
    pub(super) me: &'a UserId,
}

/// What a decrypted event says; nothing when it is no message for us: our own, a notice of another bot, a state event,
/// one that was redacted. An error when it is not what its type says.
pub(super) fn message(event: &TimelineEvent, place: Place<'_>) -> Result<Option<IncomingMessage>, serde_json::Error> {
    if event.kind.is_utd() {
        return Ok(None);
    }
    let event = event.raw().deserialize()?;
    if event.sender() == place.me {
        return Ok(None);
    }
    Ok(match event {
        AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(SyncMessageLikeEvent::Original(
            event,
        ))) => room_message(event, place),
        AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomRedaction(event)) => redaction(&event, place),
        _ => None,
    })
}

/// What an event says about where the crew began to listen.
pub(super) fn mark(event: &TimelineEvent, me: &UserId) -> (Mark, Timestamp) {
    let at = timestamp(event.timestamp_raw());
    let mark = match event.raw().deserialize() {
        Ok(AnySyncTimelineEvent::State(AnySyncStateEvent::RoomMember(member))) if member.state_key() == me => {
            match member.membership() {
                MembershipState::Invite => Mark::Invited,
                MembershipState::Join if !was_invited(event) => Mark::Joined,
                _ => Mark::Other,
            }
        }
        Ok(AnySyncTimelineEvent::MessageLike(event)) if event.sender() == me => Mark::Spoke,
        _ => Mark::Other,
    };
    (mark, at)
}

/// The text of a message, as one line of a thread.
pub(super) fn text(event: &TimelineEvent) -> Option<String> {
    match event.raw().deserialize().ok()? {
        AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(SyncMessageLikeEvent::Original(
            event,
        ))) => match event.content.relates_to {
            Some(Relation::Replacement(_)) => None,
            _ => Some(event.content.msgtype.body().to_owned()),
        },
        _ => None,
    }
}

/// The thread that an event stands in. It is readable in encrypted events, too.
pub(super) fn thread_root(event: &TimelineEvent) -> Option<String> {
    let content: serde_json::Value = event.raw().get_field("content").ok()??;
    let relation = &content["m.relates_to"];
    (relation["rel_type"] == "m.thread").then(|| relation["event_id"].as_str().map(ToOwned::to_owned)).flatten()
}

pub(super) fn timestamp(at: Option<MilliSecondsSinceUnixEpoch>) -> Timestamp {
    let millis = at.map_or(0, |at| i64::from(at.get()));
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn room_message(event: OriginalSyncRoomMessageEvent, place: Place<'_>) -> Option<IncomingMessage> {
    let content = event.content;
    let (kind, thread_root, msgtype, mentions) = match content.relates_to {
        Some(Relation::Replacement(edit)) => {
            let kind = Kind::Edit { of: edit.event_id.to_string() };
            (kind, None, edit.new_content.msgtype, edit.new_content.mentions)
        }
        Some(Relation::Thread(thread)) => {
            (Kind::New, Some(thread.event_id.to_string()), content.msgtype, content.mentions)
        }
        _ => (Kind::New, None, content.msgtype, content.mentions),
    };
    Some(IncomingMessage {
        channel: CHANNEL.to_owned(),
        room: place.room.to_owned(),
        room_name: place.room_name.map(ToOwned::to_owned),
        event_id: event.event_id.to_string(),
        sender: event.sender.to_string(),
        thread_root,
        mentions_account: mentions_us(mentions.as_ref(), &msgtype, place.me),
        content: readable(msgtype)?,
        kind,
        at: timestamp(Some(event.origin_server_ts)),
    })
}

fn redaction(event: &SyncRoomRedactionEvent, place: Place<'_>) -> Option<IncomingMessage> {
    let SyncRoomRedactionEvent::Original(event) = event else {
        return None;
    };
    let of = event.content.redacts.as_ref().or(event.redacts.as_ref())?;
    Some(IncomingMessage {
        channel: CHANNEL.to_owned(),
        room: place.room.to_owned(),
        room_name: place.room_name.map(ToOwned::to_owned),
        event_id: event.event_id.to_string(),
        sender: event.sender.to_string(),
        thread_root: None,
        mentions_account: false,
        kind: Kind::Redaction { of: of.to_string() },
        content: Content::Nothing,
        at: timestamp(Some(event.origin_server_ts)),
    })
}

/// Notices are what bots say to people: answering them is how two bots talk forever.
fn readable(msgtype: MessageType) -> Option<Content> {
    match msgtype {
        MessageType::Text(text) => Some(Content::Text(remove_plain_reply_fallback(&text.body).to_owned())),
        MessageType::Emote(emote) => Some(Content::Text(emote.body)),
        MessageType::Image(_) => Some(Content::Other("image")),
        MessageType::File(_) => Some(Content::Other("file")),
        MessageType::Audio(_) => Some(Content::Other("recording")),
        MessageType::Video(_) => Some(Content::Other("video")),
        MessageType::Location(_) => Some(Content::Other("location")),
        _ => None,
    }
}

/// Clients say whom a message mentions; older ones only link to the user in the HTML.
fn mentions_us(mentions: Option<&Mentions>, msgtype: &MessageType, me: &UserId) -> bool {
    if let Some(mentions) = mentions {
        return mentions.user_ids.contains(me);
    }
    let MessageType::Text(text) = msgtype else {
        return false;
    };
    let link = format!("matrix.to/#/{me}");
    text.formatted.as_ref().is_some_and(|html| html.body.replace("%40", "@").replace("%3A", ":").contains(&link))
}

fn was_invited(event: &TimelineEvent) -> bool {
    let unsigned: Option<serde_json::Value> = event.raw().get_field("unsigned").ok().flatten();
    unsigned.is_some_and(|unsigned| unsigned["prev_content"]["membership"] == "invite")
}

#[cfg(test)]
mod tests {
    use matrix_sdk::ruma::{serde::Raw, user_id};
    use serde_json::{Value, json};

    use super::*;

    fn read(content: &Value) -> Result<Option<IncomingMessage>, serde_json::Error> {
        let event = json!({
            "type": "m.room.message", "event_id": "$1", "sender": "@ada:x", "origin_server_ts": 1, "content": content,
        });
        let event = TimelineEvent::from_plaintext(Raw::from_json_string(event.to_string()).unwrap());
        message(&event, Place { room: "!room:x", room_name: Some("work"), me: user_id!("@crew:x") })
    }

    #[test]
    fn a_malformed_message_is_an_error_and_not_nothing() {
        assert!(read(&json!({ "msgtype": "m.text", "body": "hello" })).unwrap().is_some());
        assert!(read(&json!({ "msgtype": "m.notice", "body": "hello" })).unwrap().is_none());
        assert!(read(&json!({ "msgtype": "m.text", "body": 1 })).is_err());
    }
}

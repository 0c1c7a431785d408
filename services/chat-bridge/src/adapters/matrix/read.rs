//! What one sync response leads to: every event of every room, without a gap, translated.

use matrix_sdk::{
    Client, Room,
    deserialized_responses::TimelineEvent,
    ruma::{OwnedEventId, api::error::ErrorKind},
    sync::{JoinedRoomUpdate, SyncResponse},
};

use super::{
    Settings, history,
    position::Position,
    rooms::Rooms,
    translate::{self, Place},
    unreadable,
};
use crate::{
    domain::{
        catch_up::Origin,
        inbound::{IncomingMessage, Kind, Tell},
    },
    health::Health,
    ports::Batch,
};

/// Reads responses that follow a position.
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    pub(super) rooms: &'a Rooms,
    pub(super) health: &'a Health,
    /// The position that the response begins at.
    pub(super) position: &'a Position,
}

impl Reader<'_> {
    /// Everything that a response leads to, and the position behind it.
    pub(super) async fn read(&self, client: &Client, response: &SyncResponse) -> matrix_sdk::Result<(Batch, Position)> {
        let mut position = Position { since: Some(response.next_batch.clone()), ..self.position.clone() };
        let mut batch = Batch::default();
        for (id, update) in &response.rooms.joined {
            let Some(room) = client.get_room(id) else {
                continue;
            };
            let name = self.rooms.name(id);
            let events = self.events(&room, update, name.as_deref(), &mut batch).await?;
            for event in &events {
                self.take(&room, name.as_deref(), event, &mut batch, &mut position).await?;
            }
            position.rooms.insert(id.clone());
        }
        for id in response.rooms.left.keys() {
            position.rooms.remove(id);
        }
        unreadable::retry(self, client, &mut position, &mut batch, kit::clock::now()).await;
        Ok((batch, position))
    }

    /// The events of a room, oldest first, without a gap.
    async fn events(
        &self,
        room: &Room,
        update: &JoinedRoomUpdate,
        name: Option<&str>,
        batch: &mut Batch,
    ) -> matrix_sdk::Result<Vec<TimelineEvent>> {
        let timeline = &update.timeline;
        let since = self.position.since.as_deref().filter(|_| self.position.rooms.contains(room.room_id()));
        let Some(since) = since else {
            let prev_batch = timeline.prev_batch.as_deref().filter(|_| timeline.limited);
            let origin = match self.position.since {
                Some(_) => Origin::NewRoom,
                None => Origin::NoPosition { begun: self.position.begun },
            };
            return history::catch_up(room, &timeline.events, prev_batch, origin).await;
        };
        let (true, Some(prev_batch), true) = (timeline.limited, timeline.prev_batch.as_deref(), name.is_some()) else {
            return Ok(timeline.events.clone());
        };
        let mut gap = history::gap(room, since, prev_batch).await?;
        if gap.cut {
            batch.notices.push(Tell {
                room: room.room_id().to_string(),
                thread: None,
                key: format!("gap/{}/{since}", room.room_id()),
                text: format!(
                    "While I was away more than {} things were written here. I did not read the oldest of them.",
                    history::MAX_GAP
                ),
            });
        }
        gap.events.extend(timeline.events.iter().cloned());
        Ok(gap.events)
    }

    async fn take(
        &self,
        room: &Room,
        name: Option<&str>,
        event: &TimelineEvent,
        batch: &mut Batch,
        position: &mut Position,
    ) -> matrix_sdk::Result<()> {
        if event.kind.is_utd() {
            let heard = event.sender().is_some_and(|sender| self.settings.rules.hears(name, sender.as_str()));
            if heard {
                unreadable::remember(event, room.room_id(), self.health, position, batch, kit::clock::now());
            }
            return Ok(());
        }
        batch.messages.extend(self.message(room, event).await?);
        Ok(())
    }

    /// What a decrypted event says to us, if anything.
    pub(super) async fn message(
        &self,
        room: &Room,
        event: &TimelineEvent,
    ) -> matrix_sdk::Result<Option<IncomingMessage>> {
        let name = self.rooms.name(room.room_id());
        let place = Place { room: room.room_id().as_str(), room_name: name.as_deref(), me: room.own_user_id() };
        match translate::message(event, place) {
            Some(message) => self.complete(room, message).await,
            None => Ok(None),
        }
    }

    /// An edit does not say in which thread it stands, and in an encrypted room the homeserver does not check whose
    /// message it replaces.
    async fn complete(&self, room: &Room, mut message: IncomingMessage) -> matrix_sdk::Result<Option<IncomingMessage>> {
        let Kind::Edit { of } = &message.kind else {
            return Ok(Some(message));
        };
        if !self.settings.rules.hears(message.room_name.as_deref(), &message.sender) {
            return Ok(None);
        }
        let Ok(original) = OwnedEventId::try_from(of.as_str()) else {
            return Ok(None);
        };
        match room.event(&original, None).await {
            Ok(original) if original.sender().is_some_and(|sender| sender.as_str() == message.sender) => {
                message.thread_root = translate::thread_root(&original);
                Ok(Some(message))
            }
            Ok(_) => Ok(None),
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound | ErrorKind::Forbidden)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

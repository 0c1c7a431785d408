//! What one sync response leads to: every event of every room, without a gap, translated. A room that can not be read is
//! left behind ([`behind`]), and holds up the others for no more than a moment.

use std::time::Duration;

use jiff::Timestamp;
use kit::class::chain;
use matrix_sdk::{
    Client, Room,
    deserialized_responses::TimelineEvent,
    ruma::{OwnedEventId, RoomId, api::error::ErrorKind},
    sync::SyncResponse,
};

use super::{
    Answer, Settings, answer,
    behind::{self, Start},
    history::{self, Newest},
    is_revoked,
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
#[derive(Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) settings: &'a Settings,
    pub(super) rooms: &'a Rooms,
    pub(super) health: &'a Health,
    /// The position that the response begins at.
    pub(super) position: &'a Position,
    pub(super) now: Timestamp,
    /// How long a page of a room may take.
    pub(super) page_within: Duration,
}

impl Reader<'_> {
    /// Everything that a response leads to, and the position behind it. Fails only when our access is revoked.
    pub(super) async fn read(&self, client: &Client, response: &SyncResponse) -> matrix_sdk::Result<(Batch, Position)> {
        let mut position = Position { since: Some(response.next_batch.clone()), ..self.position.clone() };
        let mut batch = Batch::default();
        let mut reader = *self;
        for (id, update) in &response.rooms.joined {
            let (Some(room), false) = (client.get_room(id), position.behind.contains_key(id)) else {
                continue;
            };
            let timeline = &update.timeline;
            let before = timeline.prev_batch.as_deref().filter(|_| timeline.limited);
            let newest = Newest { events: &timeline.events, before };
            let start = self.start(id);
            match reader.room(&room, &start, newest, &mut position).await {
                Ok(mut read) => {
                    position.rooms.insert(id.clone());
                    batch.messages.append(&mut read.messages);
                    batch.notices.append(&mut read.notices);
                }
                Err(error) if is_revoked(&error) => return Err(error),
                Err(error) => {
                    behind::leave(self, id, start, &error, (&mut position, &mut batch));
                    // Where one can not be had others often can not either, and their times would add up.
                    reader.page_within = history::DOUBTFUL_PAGE_WITHIN;
                }
            }
        }
        for id in response.rooms.left.keys() {
            position.rooms.remove(id);
        }
        behind::retry(self, client, response, (&mut position, &mut batch)).await?;
        let doubtful = Reader { page_within: history::DOUBTFUL_PAGE_WITHIN, ..*self };
        unreadable::retry(&doubtful, client, &mut position, &mut batch, self.now).await;
        Ok((batch, position))
    }

    /// Where the events of a room that is not behind begin.
    fn start(&self, room: &RoomId) -> Start {
        match &self.position.since {
            Some(since) if self.position.rooms.contains(room) => Start::After(since.clone()),
            Some(_) => Start::Anew(Origin::NewRoom),
            None => Start::Anew(Origin::NoPosition { begun: self.position.begun }),
        }
    }

    /// What the events of a room from `start` on lead to: all of it, or an error.
    pub(super) async fn room(
        &self,
        room: &Room,
        start: &Start,
        newest: Newest<'_>,
        position: &mut Position,
    ) -> matrix_sdk::Result<Batch> {
        let mut batch = Batch::default();
        let name = self.rooms.name(room.room_id());
        let remembered = position.unreadable.clone();
        for event in &self.events(room, start, newest, name.as_deref(), &mut batch).await? {
            if let Err(error) = self.take(room, name.as_deref(), event, &mut batch, position).await {
                // What was put out of mind for this room is told by a batch that is not given out.
                position.unreadable = remembered;
                return Err(error);
            }
        }
        Ok(batch)
    }

    /// The events of a room, oldest first, without a gap.
    async fn events(
        &self,
        room: &Room,
        start: &Start,
        newest: Newest<'_>,
        name: Option<&str>,
        batch: &mut Batch,
    ) -> matrix_sdk::Result<Vec<TimelineEvent>> {
        let events = match start {
            Start::Anew(origin) => history::catch_up(room, newest, *origin, self.page_within).await?,
            // What is written where nobody is heard need not be fetched.
            Start::After(since) => {
                let before = newest.before.filter(|_| name.is_some());
                history::gap(room, since, Newest { before, ..newest }, self.page_within).await?
            }
        };
        if let (Some(seen), Some(_)) = (events.cut_at, name) {
            let from = match start {
                Start::After(since) => since.clone(),
                Start::Anew(origin) => {
                    format!("{origin:?}/{:?}", events.events.first().and_then(TimelineEvent::event_id))
                }
            };
            batch.notices.push(Tell {
                room: room.room_id().to_string(),
                thread: None,
                key: format!("gap/{}/{from}", room.room_id()),
                text: format!(
                    "While I was away more than {seen} things were written here. I did not read the oldest of them."
                ),
            });
        }
        Ok(events.events)
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
        self.message(room, event, batch).await
    }

    /// Adds what a decrypted event says to us, if anything.
    pub(super) async fn message(
        &self,
        room: &Room,
        event: &TimelineEvent,
        batch: &mut Batch,
    ) -> matrix_sdk::Result<()> {
        let name = self.rooms.name(room.room_id());
        let place = Place { room: room.room_id().as_str(), room_name: name.as_deref(), me: room.own_user_id() };
        match translate::message(event, place) {
            Ok(Some(message)) => self.complete(room, message, batch).await,
            Ok(None) => Ok(()),
            Err(error) => {
                let (id, sender) = (event.event_id(), event.sender());
                // Nobody can say whom it addresses, so nobody is answered; and a stranger does not fill the log.
                if sender.as_ref().is_some_and(|sender| self.settings.rules.hears(name.as_deref(), sender.as_str())) {
                    tracing::warn!(room = %room.room_id(), ?id, ?sender, %error, "a malformed message is not read");
                }
                Ok(())
            }
        }
    }

    /// An edit does not say in which thread it stands, and in an encrypted room the homeserver does not check whose
    /// message it replaces.
    async fn complete(&self, room: &Room, mut message: IncomingMessage, batch: &mut Batch) -> matrix_sdk::Result<()> {
        let Kind::Edit { of } = &message.kind else {
            batch.messages.push(message);
            return Ok(());
        };
        if !self.settings.rules.hears(message.room_name.as_deref(), &message.sender) {
            return Ok(());
        }
        let Ok(original) = OwnedEventId::try_from(of.as_str()) else {
            return Ok(());
        };
        match history::within(self.page_within, room.event(&original, None)).await {
            Ok(original) if original.sender().is_some_and(|sender| sender.as_str() == message.sender) => {
                message.thread_root = translate::thread_root(&original);
                batch.messages.push(message);
            }
            Ok(_) => {}
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound | ErrorKind::Forbidden)) => {
            }
            // One message that is not to be had must not cost all others of its room.
            Err(error) if !is_revoked(&error) && self.is_hopeless(room, answer(&error)) => {
                tracing::warn!(event = message.event_id, of, error = chain(&error), "an edit is not taken");
                batch.notices.push(Tell {
                    room: message.room,
                    thread: Some(of.clone()),
                    key: format!("edit/{}", message.event_id),
                    text: "I can not look up this message, so I have not taken its correction. Please write it as a new message.".to_owned(),
                });
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether an event of a room that was answered so is not worth another try.
    fn is_hopeless(&self, room: &Room, answer: Answer) -> bool {
        match answer {
            Answer::Away => false,
            Answer::Ill => self.position.behind.get(room.room_id()).is_some_and(|behind| !behind.is_patient()),
            Answer::No => true,
        }
    }
}

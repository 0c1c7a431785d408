//! The receiving half: sync, gaps, translation, position.

use std::time::Duration;

use jiff::Timestamp;
use kit::class::chain;
use matrix_sdk::{
    Client, Error,
    config::SyncSettings,
    ruma::{
        OwnedEventId, RoomId, UInt,
        api::{
            client::{
                filter::{FilterDefinition, LazyLoadOptions},
                sync::sync_events::v3::Filter,
            },
            error::ErrorKind,
        },
    },
    sync::SyncResponse,
};
use tokio::{sync::watch, time::Instant};

use super::{
    Answer, CHANNEL, Settings, answer, behind, history, invitations, is_revoked, is_unknown_position,
    position::{Position, PositionFile},
    read::Reader,
    refused,
    rooms::Rooms,
    session::{Home, LoginError},
    unavailable,
};
use crate::{
    domain::inbound::Tell,
    health::Health,
    ports::{Batch, Receive, ReceiveError, Said, Started, ThreadLine},
};

/// How long the homeserver may hold a sync open when nothing happens.
const LONG_POLL: Duration = Duration::from_secs(30);

/// The same while a message waits for its key or a room is to be tried again: soon enough to tell the room.
const SHORT_POLL: Duration = Duration::from_secs(2);

/// Health keys.
const LOGIN: &str = "matrix login";
const SYNC: &str = "matrix sync";

/// Receives from all rooms of the account.
pub struct Receiver {
    settings: Settings,
    rooms: Rooms,
    health: Health,
    home: Home,
    file: PositionFile,
    /// What is kept on disk.
    position: Position,
    client: Option<Client>,
    newly_logged_in: bool,
    publish: watch::Sender<Option<Client>>,
    /// The batch that was given out and is not committed, and the position behind it.
    pending: Option<(Batch, Position)>,
    /// To be said with the next batch.
    notices: Vec<Tell>,
    /// Since when a sync is tried; nothing after one that succeeded.
    waiting_since: Option<Instant>,
    last_sync_at: Timestamp,
}

impl Receiver {
    pub(super) fn open(
        settings: Settings,
        rooms: Rooms,
        health: Health,
        publish: watch::Sender<Option<Client>>,
    ) -> Result<Self, ReceiveError> {
        health.starting(SYNC);
        let home = Home::open(&settings.folder).map_err(refused)?;
        let file = PositionFile::in_folder(&settings.folder);
        let position = file.load(kit::clock::now()).map_err(refused)?;
        behind::show(&position, &rooms, &health);
        Ok(Self {
            rooms,
            health,
            home,
            file,
            position,
            client: None,
            newly_logged_in: false,
            publish,
            pending: None,
            notices: Vec::new(),
            waiting_since: None,
            last_sync_at: kit::clock::now(),
            settings,
        })
    }

    fn reader(&self) -> Reader<'_> {
        Reader {
            settings: &self.settings,
            rooms: &self.rooms,
            health: &self.health,
            position: &self.position,
            now: kit::clock::now(),
            page_within: history::PAGE_WITHIN,
        }
    }

    /// The client, logged in.
    async fn client(&mut self) -> Result<Client, ReceiveError> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        match self.home.log_in(&self.settings.matrix, &self.settings.env).await {
            Ok(client) => {
                self.health.works(LOGIN);
                self.newly_logged_in = true;
                self.publish.send_replace(Some(client.clone()));
                self.client = Some(client.clone());
                Ok(client)
            }
            Err(error) => {
                self.health.report(LOGIN, chain(&error));
                self.health.waits(SYNC, "not logged in");
                Err(if error.is_transient() { unavailable(error) } else { refused(error) })
            }
        }
    }

    /// What a response leads to.
    async fn read(&mut self, client: &Client, response: &SyncResponse) -> Result<Batch, ReceiveError> {
        match self.reader().read(client, response).await {
            Ok((mut batch, position)) => {
                batch.notices.append(&mut self.notices);
                self.pending = Some((batch.clone(), position));
                Ok(batch)
            }
            // The position is where it was, so the next device is given all of it again.
            Err(error) => Err(self.revoked(error)),
        }
    }

    /// The next response.
    ///
    /// matrix-sdk tries a request for a quarter of an hour when something in front of the homeserver answers that it is
    /// away. So a stall is noticed by the clock, whatever is being waited for. What the rooms of a response take afterwards is
    /// none.
    async fn fetch(&mut self) -> Result<(Client, SyncResponse), ReceiveError> {
        let (health, since) = (self.health.clone(), self.last_sync_at);
        let stalled_at = *self.waiting_since.get_or_insert_with(Instant::now) + self.settings.stalled_after;
        let mut fetch = Box::pin(self.fetch_patiently());
        tokio::select! {
            biased;
            result = &mut fetch => return result,
            () = tokio::time::sleep_until(stalled_at) => {}
        }
        // One that was reported is known with its reason.
        if !health.is_reported(SYNC) {
            health.report(SYNC, format!("no sync since {since}"));
        }
        fetch.await
    }

    /// The next response, with everything that has to be settled before it is read.
    async fn fetch_patiently(&mut self) -> Result<(Client, SyncResponse), ReceiveError> {
        let client = self.client().await?;
        self.rooms.resolve(&client).await;
        let response = self.sync(&client).await?;
        invitations::settle(&client, &self.settings.rules).await;
        if std::mem::take(&mut self.newly_logged_in) {
            invitations::join_configured(&client, &self.rooms).await;
        }
        Ok((client, response))
    }

    async fn sync(&mut self, client: &Client) -> Result<SyncResponse, ReceiveError> {
        let mut settings = SyncSettings::new().filter(filter(self.settings.timeline_limit)).timeout(self.poll());
        if let Some(since) = &self.position.since {
            // A new device knows no room yet: it needs their whole state with what happened since.
            settings = settings.token(since.clone()).full_state(client.joined_rooms().is_empty());
        } else {
            settings = settings.token(matrix_sdk::config::SyncToken::NoToken);
        }
        match client.sync_once(settings).await {
            Ok(response) => {
                self.synced();
                Ok(response)
            }
            Err(error) => Err(self.sync_failed(error)),
        }
    }

    /// How long the homeserver may hold this sync open. The first one tells that all is well, so it does not wait.
    fn poll(&self) -> Duration {
        if self.newly_logged_in {
            return Duration::ZERO;
        }
        let Position { behind, unreadable, .. } = &self.position;
        let soon = !behind.is_empty() || unreadable.values().any(|event| !event.told);
        if soon { SHORT_POLL } else { LONG_POLL }
    }

    fn synced(&mut self) {
        if self.health.works(SYNC) {
            let text =
                format!("I could not read my rooms from {} until now. I am reading on from there.", self.last_sync_at);
            self.tell_operators(&format!("stalled/{}", self.last_sync_at), &text);
        }
        self.waiting_since = None;
        self.last_sync_at = kit::clock::now();
    }

    fn sync_failed(&mut self, error: Error) -> ReceiveError {
        if is_revoked(&error) {
            return self.revoked(error);
        }
        if self.waiting_since.is_some_and(|since| since.elapsed() > self.settings.stalled_after) {
            self.health.report(SYNC, format!("no sync since {}: {}", self.last_sync_at, chain(&error)));
        }
        match &error {
            // As after a restored backup.
            _ if self.position.since.is_some() && is_unknown_position(&error) => {
                behind::forget(&self.reader());
                let unreadable = std::mem::take(&mut self.position.unreadable);
                self.position = Position { unreadable, ..Position::beginning(kit::clock::now()) };
                let text = "The homeserver does not know how far I had read. I go on with what is recent; check for messages without an answer.";
                self.tell_operators(&format!("position/{}", self.last_sync_at), text);
                unavailable(error)
            }
            // Nothing was processed.
            Error::Http(_) => unavailable(error),
            _ => ReceiveError::Broken { channel: CHANNEL, source: error.into() },
        }
    }

    fn revoked(&mut self, error: Error) -> ReceiveError {
        self.health.report(LOGIN, "the homeserver revoked our access token");
        self.client = None;
        self.publish.send_replace(None);
        if let Err(error) = self.home.revoke() {
            return refused(error);
        }
        let text = "My access token was revoked. I am logged in anew; encrypted messages from before that may stay unreadable.";
        self.tell_operators(&format!("revoked/{}", self.last_sync_at), text);
        unavailable(error)
    }

    /// Says something in the audit room or, without one, wherever the crew listens.
    fn tell_operators(&mut self, key: &str, text: &str) {
        let rooms: Vec<String> = match &self.settings.matrix.audit_room {
            Some(room) => vec![room.clone()],
            None => self.settings.rules.rooms.keys().cloned().collect(),
        };
        self.notices.extend(rooms.into_iter().map(|room| Tell {
            key: format!("{key}/{room}"),
            room,
            thread: None,
            text: text.to_owned(),
        }));
    }
}

impl Receive for Receiver {
    fn name(&self) -> &'static str {
        CHANNEL
    }

    async fn next(&mut self) -> Result<Batch, ReceiveError> {
        if let Some((batch, _)) = &self.pending {
            return Ok(batch.clone());
        }
        let (client, response) = self.fetch().await?;
        Box::pin(self.read(&client, &response)).await
    }

    async fn commit(&mut self, _: &[Started]) -> Result<(), ReceiveError> {
        let Some((_, position)) = &self.pending else {
            return Ok(());
        };
        self.file.save(position).map_err(unavailable)?;
        if let Some((_, position)) = self.pending.take() {
            self.position = position;
        }
        Ok(())
    }

    async fn thread(&self, room: &str, root: &str) -> Result<Vec<ThreadLine>, ReceiveError> {
        let not_there = || refused(Said(format!("the room {room} is not there")));
        let client = self.client.as_ref().ok_or_else(not_there)?;
        let id = <&RoomId>::try_from(room).map_err(refused)?;
        let root = OwnedEventId::try_from(root).map_err(refused)?;
        let room = client.get_room(id).ok_or_else(not_there)?;
        match history::thread(&room, root).await {
            // A thread whose root is gone or was never ours to see.
            Err(error) if matches!(error.client_api_error_kind(), Some(ErrorKind::NotFound | ErrorKind::Forbidden)) => {
                Ok(Vec::new())
            }
            Err(error) => Err(match answer(&error) {
                Answer::Away => unavailable(error),
                Answer::Ill => ReceiveError::Ill { channel: CHANNEL, source: error.into() },
                Answer::No => refused(error),
            }),
            Ok(lines) => Ok(lines),
        }
    }
}

fn filter(limit: u32) -> Filter {
    let mut filter = FilterDefinition::default();
    filter.presence.types = Some(Vec::new());
    filter.room.ephemeral.types = Some(Vec::new());
    filter.room.timeline.limit = Some(UInt::from(limit));
    filter.room.state.lazy_load_options = LazyLoadOptions::Enabled { include_redundant_members: false };
    Filter::FilterDefinition(filter)
}

impl From<LoginError> for ReceiveError {
    fn from(error: LoginError) -> Self {
        if error.is_transient() { unavailable(error) } else { refused(error) }
    }
}

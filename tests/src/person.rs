//! A person: a real Matrix client session of its own, as whoever talks to the crew has one.
//!
//! It creates rooms, encrypted or not, writes, edits, takes back, and waits for what others write, always with a
//! deadline. It survives a homeserver that is restarted: what it sends carries a transaction id of its own and is sent
//! again until the homeserver has it. Nothing here knows Nightcrew.

#[path = "person/line.rs"]
mod line;

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use matrix_sdk::{
    Client, Room, RoomMemberships,
    config::{RequestConfig, SyncSettings},
    room::{IncludeRelations, MessagesOptions, RelationsOptions},
    ruma::{
        OwnedEventId, OwnedRoomId, OwnedUserId, TransactionId, UInt, UserId,
        api::client::room::create_room::v3::{Request as CreateRoom, RoomPreset},
        events::{InitialStateEvent, relation::RelationType, room::encryption::RoomEncryptionEventContent},
    },
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use line::lines;
pub use line::{Line, transcript};

/// How long a homeserver may be away while something is sent.
const SEND_WITHIN: Duration = Duration::from_secs(90);

/// Between two looks at a room, and between two tries of a request.
const POLL: Duration = Duration::from_millis(100);

/// Events of one page of a room.
const PAGE: u32 = 200;

/// A logged-in person.
#[derive(Debug)]
pub struct Person {
    client: Client,
    id: OwnedUserId,
    // Ends with the person.
    _sync: JoinSet<()>,
}

/// What kind of room to make.
#[derive(Debug, Clone, Copy, Default)]
pub struct NewRoom<'a> {
    /// Its name.
    pub name: &'a str,
    /// The local part of its alias, if it gets one.
    pub alias: Option<&'a str>,
    /// Whether it is encrypted.
    pub encrypted: bool,
    /// Full ids of those who are invited.
    pub invite: &'a [&'a str],
}

impl Person {
    /// Logs in with a password; `user` is the full id or its local part.
    pub async fn log_in(homeserver: &str, user: &str, password: &str) -> anyhow::Result<Self> {
        let client = Client::builder()
            .homeserver_url(homeserver)
            .request_config(RequestConfig::new().max_retry_time(Duration::from_secs(1)))
            .build()
            .await
            .context("make a Matrix client")?;
        let login = client.matrix_auth().login_username(user, password);
        login.initial_device_display_name("person").send().await.with_context(|| format!("log {user} in"))?;
        client.sync_once(SyncSettings::new()).await.context("sync for the first time")?;
        let id = client.user_id().context("a logged-in client has a user")?.to_owned();
        let mut sync = JoinSet::new();
        let background = client.clone();
        sync.spawn(async move {
            loop {
                // One by one, because an error only means that the homeserver is being restarted.
                if background.sync_once(SyncSettings::new()).await.is_err() {
                    tokio::time::sleep(POLL).await;
                }
            }
        });
        Ok(Self { client, id, _sync: sync })
    }

    /// The person's full id.
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// The person's client, for what this fixture does not do.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Makes a private room and gives its id.
    pub async fn create_room(&self, wanted: NewRoom<'_>) -> anyhow::Result<String> {
        let mut request = CreateRoom::new();
        request.name = Some(wanted.name.to_owned());
        request.room_alias_name = wanted.alias.map(ToOwned::to_owned);
        request.preset = Some(RoomPreset::PrivateChat);
        request.invite = wanted.invite.iter().map(|user| user_id(user)).collect::<Result<_, _>>()?;
        if wanted.encrypted {
            let content = RoomEncryptionEventContent::with_recommended_defaults();
            request.initial_state = vec![InitialStateEvent::with_empty_state_key(content).to_raw_any()];
        }
        let room =
            self.client.create_room(request).await.with_context(|| format!("create the room {}", wanted.name))?;
        Ok(room.room_id().to_string())
    }

    /// Invites somebody.
    pub async fn invite(&self, room: &str, user: &str) -> anyhow::Result<()> {
        self.room(room).await?.invite_user_by_id(&user_id(user)?).await.with_context(|| format!("invite {user}"))
    }

    /// Joins a room by id.
    pub async fn join(&self, room: &str) -> anyhow::Result<()> {
        let id = OwnedRoomId::try_from(room)?;
        self.client.join_room_by_id(&id).await.with_context(|| format!("join {room}"))?;
        Ok(())
    }

    /// Waits until somebody is in a room and, where it is encrypted, can read what is said there from now on: the
    /// members of a room can be asked for, and then be known before their devices are.
    pub async fn wait_for_member(&self, room: &str, user: &str, within: Duration) -> anyhow::Result<()> {
        let room = self.room(room).await?;
        let user = user_id(user)?;
        let deadline = Instant::now() + within;
        loop {
            if let Ok(members) = room.members(RoomMemberships::JOIN).await
                && members.iter().any(|member| member.user_id() == user)
                && (!room.encryption_state().is_encrypted() || self.has_devices_of(&user).await)
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{user} did not join {} within {within:?}", room.room_id());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn has_devices_of(&self, user: &UserId) -> bool {
        let devices = self.client.encryption().get_user_devices(user).await;
        devices.is_ok_and(|devices| devices.devices().next().is_some())
    }

    /// Writes a message.
    pub async fn say(&self, room: &str, text: &str) -> anyhow::Result<String> {
        self.send(room, json!({ "msgtype": "m.text", "body": text, "m.mentions": {} })).await
    }

    /// Writes a message that mentions a user as clients do it.
    pub async fn mention(&self, room: &str, user: &str, text: &str) -> anyhow::Result<String> {
        let content = json!({ "msgtype": "m.text", "body": text, "m.mentions": { "user_ids": [user] } });
        self.send(room, content).await
    }

    /// Writes a message in a thread.
    pub async fn say_in_thread(&self, room: &str, root: &str, text: &str) -> anyhow::Result<String> {
        let relation = json!({
            "rel_type": "m.thread", "event_id": root, "is_falling_back": true, "m.in_reply_to": { "event_id": root },
        });
        let content = json!({ "msgtype": "m.text", "body": text, "m.mentions": {}, "m.relates_to": relation });
        self.send(room, content).await
    }

    /// Replaces a message of one's own.
    pub async fn edit(&self, room: &str, event: &str, text: &str) -> anyhow::Result<String> {
        let content = json!({
            "msgtype": "m.text", "body": format!("* {text}"), "m.mentions": {},
            "m.new_content": { "msgtype": "m.text", "body": text, "m.mentions": {} },
            "m.relates_to": { "rel_type": "m.replace", "event_id": event },
        });
        self.send(room, content).await
    }

    /// Takes a message back.
    pub async fn redact(&self, room: &str, event: &str) -> anyhow::Result<()> {
        let room = self.room(room).await?;
        let event = OwnedEventId::try_from(event)?;
        let transaction = TransactionId::new();
        persist("take a message back", || async {
            room.redact(&event, None, Some(transaction.clone())).await.map(|_| ()).map_err(Into::into)
        })
        .await
    }

    /// Sends any content as `m.room.message`.
    pub async fn send(&self, room: &str, content: Value) -> anyhow::Result<String> {
        let room = self.room(room).await?;
        let transaction = TransactionId::new();
        persist("send a message", || async {
            let sent = room.send_raw("m.room.message", content.clone()).with_transaction_id(&transaction).await;
            Ok(sent?.response.event_id.to_string())
        })
        .await
    }

    /// Waits for a message, from whenever, that meets `wanted`.
    pub async fn wait_for(&self, room: &str, within: Duration, wanted: impl Fn(&Line) -> bool) -> anyhow::Result<Line> {
        let deadline = Instant::now() + within;
        loop {
            // A homeserver that is away is a reason to look again.
            let lines = self.read(room).await.unwrap_or_default();
            if let Some(line) = lines.iter().find(|line| wanted(line)) {
                return Ok(line.clone());
            }
            if Instant::now() > deadline {
                bail!("no such message within {within:?}; the room:\n{}", transcript(&lines));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits for the first answer of somebody else in a thread.
    pub async fn wait_for_reply(&self, room: &str, root: &str, within: Duration) -> anyhow::Result<Line> {
        let is_reply = |line: &Line| line.thread.as_deref() == Some(root) && line.sender != self.id.as_str();
        self.wait_for(room, within, is_reply).await
    }

    /// All messages of a room, oldest first, edits applied.
    pub async fn read(&self, room: &str) -> anyhow::Result<Vec<Line>> {
        let room = self.room(room).await?;
        let mut events = Vec::new();
        let mut from: Option<String> = None;
        loop {
            let options = || {
                let mut options = MessagesOptions::backward().from(from.as_deref());
                options.limit = UInt::from(PAGE);
                options
            };
            let read = || async { Ok(room.messages(options()).await?) };
            let page = persist("read a room", read).await?;
            events.extend(page.chunk);
            if page.end.is_none() || page.end == from {
                break;
            }
            from = page.end;
        }
        events.reverse();
        Ok(lines(&events))
    }

    /// The answers in a thread, oldest first, edits applied.
    pub async fn thread(&self, room: &str, root: &str) -> anyhow::Result<Vec<Line>> {
        let room = self.room(room).await?;
        let root = OwnedEventId::try_from(root)?;
        let mut events = Vec::new();
        let mut from = None;
        loop {
            let options = RelationsOptions {
                from,
                limit: Some(UInt::from(PAGE)),
                include_relations: IncludeRelations::RelationsOfType(RelationType::Thread),
                ..RelationsOptions::default()
            };
            let page = room.relations(root.clone(), options).await?;
            events.extend(page.chunk);
            from = page.next_batch_token;
            if from.is_none() {
                break;
            }
        }
        events.reverse();
        Ok(lines(&events))
    }

    /// The room, once the person's client has it.
    async fn room(&self, id: &str) -> anyhow::Result<Room> {
        let id = OwnedRoomId::try_from(id)?;
        let deadline = Instant::now() + SEND_WITHIN;
        loop {
            if let Some(room) = self.client.get_room(&id) {
                return Ok(room);
            }
            if Instant::now() > deadline {
                bail!("{} does not see the room {id}", self.id);
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// Repeats what fails until the homeserver is back.
async fn persist<T, F>(what: &str, act: impl Fn() -> F) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + SEND_WITHIN;
    loop {
        match act().await {
            Ok(done) => return Ok(done),
            Err(error) if Instant::now() > deadline => return Err(error).context(what.to_owned()),
            Err(_) => tokio::time::sleep(POLL).await,
        }
    }
}

fn user_id(id: &str) -> anyhow::Result<OwnedUserId> {
    UserId::parse(id).with_context(|| format!("{id} is no user id"))
}

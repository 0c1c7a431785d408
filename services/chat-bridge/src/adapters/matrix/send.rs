//! The sending half.
//!
//! One message at a time in an encrypted room: the SDK looks whether a room's key has served its number of messages, and only then
//! encrypts with it. Of several messages at once all may see the last one left, and the second one to take it panics.

use std::{
    collections::HashMap,
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use matrix_sdk::{
    Client, EncryptionState, Error, Room, RoomState,
    ruma::{
        OwnedEventId, OwnedRoomId, OwnedTransactionId, RoomId,
        api::error::{ErrorKind, RetryAfter},
    },
};
use serde_json::{Value, json};

use super::{
    Current,
    content::{self, Mark},
    history,
    rooms::Rooms,
};
use crate::ports::{Body, Deliver, DeliverError, Outgoing, Said};

/// How long one message may take. A rate-limited homeserver asks for seconds to minutes; what hangs longer than this is
/// tried anew.
const DELIVER_WITHIN: Duration = Duration::from_mins(5);

/// Sends into the rooms of the account. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    client: Current,
    rooms: Rooms,
    turns: Turns,
}

/// Whose turn it is in each encrypted room that was sent to.
#[derive(Clone, Default)]
struct Turns(Arc<Mutex<HashMap<OwnedRoomId, Turn>>>);

type Turn = Arc<tokio::sync::Mutex<()>>;

impl Turns {
    fn of(&self, room: &RoomId) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(room.to_owned()).or_default())
    }
}

impl Sender {
    pub(super) fn new(client: Current, rooms: Rooms) -> Self {
        Self { client, rooms, turns: Turns::default() }
    }

    fn room(&self, message: &Outgoing) -> Result<(Client, Room), DeliverError> {
        let client = self.client.borrow().clone().ok_or_else(|| later(message, "not logged in"))?;
        let id = self.rooms.id(&message.room).ok_or_else(|| later(message, "the room's id is not known yet"))?;
        let room = client.get_room(&id).ok_or_else(|| later(message, "the account has not seen the room yet"))?;
        match room.state() {
            RoomState::Joined => Ok((client, room)),
            RoomState::Invited | RoomState::Knocked => Err(later(message, "the account has not joined the room yet")),
            RoomState::Left | RoomState::Banned => Err(DeliverError::Refused {
                room: message.room.clone(),
                source: Said("the account is not in the room".to_owned()).into(),
            }),
        }
    }
}

impl Deliver for Sender {
    async fn deliver(&self, message: &Outgoing) -> Result<String, DeliverError> {
        let sent = tokio::time::timeout(DELIVER_WITHIN, self.send(message)).await;
        sent.unwrap_or_else(|_| Err(later(message, "the homeserver took too long")))
    }
}

impl Sender {
    async fn send(&self, message: &Outgoing) -> Result<String, DeliverError> {
        let (client, room) = self.room(message)?;
        let _turn = if matches!(room.encryption_state(), EncryptionState::NotEncrypted) {
            None
        } else {
            Some(self.turns.of(room.room_id()).lock_owned().await)
        };
        let failed = |error| classify(error, message);
        let thread = message.thread.as_deref().and_then(|root| OwnedEventId::try_from(root).ok());
        if message.maybe_sent
            && let Some(found) = history::find(&room, thread.as_ref(), &message.id).await.map_err(failed)?
        {
            return Ok(found.to_string());
        }
        let mark = Mark { id: &message.id, run_id: message.run_id };
        let content = match &message.body {
            Body::Text(markdown) => content::text(markdown, message.notice, thread.as_ref(), mark),
            Body::File { name, text } => {
                let source = upload(&client, &room, text).await.map_err(failed)?;
                content::file(name, text.len(), source, thread.as_ref(), mark)
            }
        };
        let transaction = OwnedTransactionId::from(message.id.as_str());
        let sent = room.send_raw("m.room.message", content).with_transaction_id(&transaction).await;
        Ok(sent.map_err(failed)?.response.event_id.to_string())
    }
}

/// Uploads a file, encrypted when the room is, and says under which field of the content it belongs.
async fn upload(client: &Client, room: &Room, text: &str) -> matrix_sdk::Result<(&'static str, Value)> {
    if room.latest_encryption_state().await?.is_encrypted() {
        let file = client.upload_encrypted_file(&mut Cursor::new(text.as_bytes())).await?;
        return Ok(("file", json!(file)));
    }
    let kind = "text/markdown".parse().map_err(|_| Error::InsufficientData)?;
    let media = client.media().upload(&kind, text.as_bytes().to_vec(), None).await?;
    Ok(("url", json!(media.content_uri)))
}

fn later(message: &Outgoing, why: &str) -> DeliverError {
    DeliverError::Unavailable { room: message.room.clone(), retry_after: None, source: Said(why.to_owned()).into() }
}

fn classify(error: Error, message: &Outgoing) -> DeliverError {
    let room = message.room.clone();
    match error.client_api_error_kind() {
        Some(ErrorKind::LimitExceeded(limit)) => {
            let retry_after = match limit.retry_after {
                Some(RetryAfter::Delay(delay)) => Some(delay),
                _ => None,
            };
            DeliverError::Unavailable { room, retry_after, source: error.into() }
        }
        Some(ErrorKind::Forbidden | ErrorKind::TooLarge | ErrorKind::NotFound | ErrorKind::BadJson) => {
            DeliverError::Refused { room, source: error.into() }
        }
        _ => DeliverError::Unavailable { room, retry_after: None, source: error.into() },
    }
}

//! Takes a request's body in: bounded, and only for whoever may ask.
//!
//! A client that is refused while it still sends would see a broken connection in place of the refusal. So what is not
//! wanted is read and dropped, up to a bound.

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderMap, header},
};
use bytes::Bytes;
use futures::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{
    config::Patience,
    refusal::{Kind, Refusal},
};

/// Largest request: what the Messages API takes.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// Memory for requests that are not sent yet, in kibibytes: eight of the largest at once, or thousands of usual ones.
const ROOM_KIB: usize = 256 * 1024;

/// How long a request waits for that room.
const ROOM_WITHIN: Duration = Duration::from_secs(5);

/// How much of an unwanted body is read and dropped, and how long that may take.
const MAX_DROPPED_BYTES: usize = 2 * MAX_REQUEST_BYTES;
const DROP_WITHIN: Duration = Duration::from_secs(5);

/// Most that is reserved before it has come.
const RESERVED_AT_ONCE: usize = 64 * 1024;

/// Room for requests.
#[derive(Debug, Clone)]
pub struct Intake {
    room: Arc<Semaphore>,
    /// For the next bytes of a request.
    next: Duration,
    /// For all of a request.
    all: Duration,
}

impl Intake {
    /// All of the room, and `patience` for what takes it.
    pub fn new(patience: &Patience) -> Self {
        Self { room: Arc::new(Semaphore::new(ROOM_KIB)), next: patience.request_next, all: patience.request_all }
    }

    /// The whole body, and the room that it takes.
    pub async fn take(&self, headers: &HeaderMap, body: Body) -> Result<(Bytes, OwnedSemaphorePermit), Refusal> {
        let announced = announced(headers);
        let mut body = body.into_data_stream();
        if announced.is_some_and(|length| length > MAX_REQUEST_BYTES) {
            drop_rest(&mut body).await;
            return Err(too_large());
        }
        let kib = announced.unwrap_or(MAX_REQUEST_BYTES).div_ceil(1024).max(1);
        let kib = u32::try_from(kib).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(kib);
        let Ok(Ok(room)) = tokio::time::timeout(ROOM_WITHIN, room).await else {
            return Err(Refusal::unavailable("too many large requests at once"));
        };
        let mut taken = Vec::with_capacity(announced.unwrap_or(0).min(RESERVED_AT_ONCE));
        let deadline = Instant::now() + self.all;
        while let Some(chunk) = self.next(&mut body, deadline).await? {
            if taken.len() + chunk.len() > MAX_REQUEST_BYTES {
                drop(taken);
                drop_rest(&mut body).await;
                return Err(too_large());
            }
            taken.extend_from_slice(&chunk);
        }
        Ok((taken.into(), room))
    }

    async fn next(&self, body: &mut BodyDataStream, deadline: Instant) -> Result<Option<Bytes>, Refusal> {
        let soonest = deadline.min(Instant::now() + self.next);
        match timeout_at(soonest, body.next()).await {
            Ok(chunk) => chunk.transpose().map_err(|_| Refusal::invalid("the body broke off")),
            Err(_) => Err(Refusal::new(Kind::TooSlow, "the body did not come in time")),
        }
    }
}

/// Reads what is not wanted, so that its sender gets to read the refusal.
pub async fn drop_unwanted(headers: &HeaderMap, body: Body) {
    // Who asks before sending is told no in place of being told to go on.
    if !headers.contains_key(header::EXPECT) {
        drop_rest(&mut body.into_data_stream()).await;
    }
}

async fn drop_rest(body: &mut BodyDataStream) {
    let dropping = async {
        let mut dropped = 0;
        while let Some(Ok(chunk)) = body.next().await {
            dropped += chunk.len();
            if dropped > MAX_DROPPED_BYTES {
                return;
            }
        }
    };
    // Whoever takes longer finds the connection closed.
    let _ = tokio::time::timeout(DROP_WITHIN, dropping).await;
}

fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn too_large() -> Refusal {
    let message = format!("the request is larger than {MAX_REQUEST_BYTES} bytes");
    Refusal::new(Kind::TooLarge, message)
}

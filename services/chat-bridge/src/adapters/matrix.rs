//! Matrix, over matrix-sdk: one account for the whole crew, encrypted rooms included.
//!
//! # Why no message is lost
//!
//! matrix-sdk stores its sync token while it processes a response, before anybody saw the events in it: a crash in
//! between would lose them. So the bridge keeps a position of its own ([`position`]), written only when all
//! consequences of a response are in the log, and passes it as `since` to every sync. A homeserver answers an old `since`
//! again, in full. What that takes:
//!
//! - matrix-sdk answers a response whose `next_batch` it has stored already with an *empty* one. After a crash that is
//!   exactly the response that must be read again. So its stored token is removed before each session is opened.
//! - Room keys come to a device once, by to-device messages. Those are in the crypto store when matrix-sdk has
//!   processed a response, so events that are read again are decrypted from the store; a to-device message that comes
//!   again is recognised as a replay and does no harm.
//! - A response holds the newest events of a room only. When it says that it left some out, they are fetched between
//!   its `prev_batch` and our `since` ([`history`]), which is exactly the gap.
//! - A room that can not be read while others can keeps a position of its own ([`behind`]).
//! - A room that was not read so far, just joined or after the position was lost, begins where `domain::catch_up`
//!   says, and begins there again after a crash.
//! - A message whose key is not there yet is remembered with the position and tried again ([`unreadable`]).
//!
//! # Why a reply is sent once
//!
//! The transaction id derives from what is said, and the homeserver takes the same id from the same device for the same
//! message. Synapse forgets ids after a day, and a new device has ids of its own. So each event also carries its id in
//! its content, and when the bus says that a message may have been sent before, the thread is looked through first. One
//! case is left: in an encrypted room a new device can not read what a lost one wrote.
//!
//! # Boundary
//!
//! This folder alone knows matrix-sdk. It knows no bus and no run, only messages in and messages out.

mod behind;
mod content;
mod history;
mod invitations;
mod position;
mod read;
mod receive;
mod rooms;
mod send;
mod session;
mod translate;
mod unreadable;

use std::{path::PathBuf, sync::Arc, time::Duration};

use kit::crew::Crew;
use matrix_sdk::{Client, Error, HttpError, reqwest::StatusCode, ruma::api::error::ErrorKind};
use tokio::sync::watch;

use crate::{
    domain::rules::Rules,
    health::Health,
    ports::{Cause, ReceiveError},
};

pub use content::MARKER;
pub use receive::Receiver;
pub use send::Sender;

/// The channel's name.
pub const CHANNEL: &str = "matrix";

/// Looks up an environment variable.
pub type Lookup = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// What the Matrix channel needs.
#[derive(Clone)]
pub struct Settings {
    /// Homeserver, user, login, rooms.
    pub matrix: kit::crew::Matrix,
    /// Who is heard where.
    pub rules: Arc<Rules>,
    /// The folder for session, position and crypto store; made when it is not there.
    pub folder: PathBuf,
    /// The environment in which a password or token may stand.
    pub env: Lookup,
    /// Events a response holds per room at most; what is beyond is fetched as a gap.
    pub timeline_limit: u32,
    /// After how long without a sync health is red.
    pub stalled_after: Duration,
}

/// Events per room in one sync response. A crew's room seldom has more in the time of one sync, and what is left out
/// costs one more request.
pub const TIMELINE_LIMIT: u32 = 50;

/// A sync that has not succeeded for this long is a stall: a long poll, its slack, and one more try.
pub const STALLED_AFTER: Duration = Duration::from_secs(90);

impl Settings {
    /// The settings of `crew`; nothing when it has no Matrix.
    pub fn of(crew: &Crew, folder: PathBuf, env: Lookup) -> Option<Self> {
        Some(Self {
            matrix: crew.channels.matrix.clone()?,
            rules: Arc::new(Rules::matrix(crew)),
            folder,
            env,
            timeline_limit: TIMELINE_LIMIT,
            stalled_after: STALLED_AFTER,
        })
    }
}

/// Both halves of the channel. Nothing is sent or read before the receiver's first `next`, which logs in.
pub fn open(settings: Settings, health: Health) -> Result<(Receiver, Sender), ReceiveError> {
    let (publish, client) = watch::channel(None);
    let rooms = rooms::Rooms::new(&settings.matrix.rooms);
    let sender = Sender::new(client, rooms.clone());
    Ok((Receiver::open(settings, rooms, health, publish)?, sender))
}

/// The client that is logged in now, if any.
type Current = watch::Receiver<Option<Client>>;

fn unavailable(source: impl Into<Cause>) -> ReceiveError {
    ReceiveError::Unavailable { channel: CHANNEL, source: source.into() }
}

fn refused(source: impl Into<Cause>) -> ReceiveError {
    ReceiveError::Refused { channel: CHANNEL, source: source.into() }
}

/// Whether the homeserver says that it does not know the position that was given. One that is ill answers with the same code
/// and another status.
fn is_unknown_position(error: &Error) -> bool {
    let is_client_error = error.as_client_api_error().is_some_and(|error| error.status_code.is_client_error());
    is_client_error && matches!(error.client_api_error_kind(), Some(ErrorKind::Unknown | ErrorKind::InvalidParam))
}

/// What a request that failed says about what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// Nothing, and nothing about anything else: there is no homeserver.
    Away,
    /// Nothing now: the homeserver, or what stands in front of it, is ill or has too much to do. Over within minutes when it
    /// is restarted, and never when it is ill of just this.
    Ill,
    /// That it is not to be had, also after many tries.
    No,
}

fn answer(error: &Error) -> Answer {
    match error {
        // matrix-sdk goes on trying where it is told to come later, until our own time is up.
        Error::Timeout => return Answer::Ill,
        Error::Http(error) => {
            if let HttpError::Reqwest(error) = &**error {
                return if error.is_connect() { Answer::Away } else { Answer::Ill };
            }
        }
        _ => {}
    }
    let status = error.as_client_api_error().map(|error| error.status_code);
    match status {
        Some(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Answer::Ill,
        _ => Answer::No,
    }
}

/// Whether the homeserver says that the access token is not, or no longer, valid.
fn is_revoked(error: &Error) -> bool {
    matches!(error.client_api_error_kind(), Some(ErrorKind::UnknownToken { .. } | ErrorKind::MissingToken))
}

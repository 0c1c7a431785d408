//! The order of things: what is read, written, sent and acknowledged, and when.
//!
//! [`inbound`] takes a channel's batches to the log, [`outbound`] takes what runs say to the channel, [`audit`] tells the
//! audit room of ends. They know ports and the bus; no channel.

pub(crate) mod audit;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod requests;
mod signals;

use std::{sync::Arc, time::Duration};

use kit::{blobs::Blobs, bus::Bus, crew::Crew, journal::Journal};
use schemas::EventId;

use crate::{
    domain::{inbound::Tell, transaction},
    ports::{Body, Deliver, DeliverError, Outgoing},
};

/// `ce-source` of what the bridge writes.
const SOURCE: &str = "chat-bridge";

/// A transaction id is remembered by Synapse for half an hour at least. What is older than this, or delivered again, is
/// looked for in its room before it is sent.
const SURELY_REMEMBERED: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

/// Tries of the bridge's own words to a room that can not be reached now.
const TELL_ATTEMPTS: u32 = 5;

/// Between them.
const TELL_PAUSE: Duration = Duration::from_secs(2);

/// What all handlers work with. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    pub(crate) crew: Arc<Crew>,
    pub(crate) bus: Bus,
    pub(crate) journal: Journal,
    pub(crate) blobs: Blobs,
}

impl Project {
    pub(crate) fn new(crew: Arc<Crew>, bus: &Bus) -> Self {
        Self { crew, bus: bus.clone(), journal: Journal::new(bus), blobs: Blobs::new(bus) }
    }
}

/// Says something in the bridge's own name. A room that can not be reached is tried for a while and then given up: these
/// are words about a problem, and must not hold up what works.
async fn tell(sender: &impl Deliver, channel: &str, tell: &Tell) {
    let cause = EventId::new(format!("tell/{channel}/{}", tell.key));
    let outgoing = Outgoing {
        id: transaction::id(&cause, 0),
        room: tell.room.clone(),
        thread: tell.thread.clone(),
        body: Body::Text(tell.text.clone()),
        run_id: None,
        notice: true,
        maybe_sent: false,
    };
    for attempt in 1..=TELL_ATTEMPTS {
        match sender.deliver(&outgoing).await {
            Ok(_) => return,
            Err(error @ DeliverError::Unavailable { .. }) if attempt < TELL_ATTEMPTS => {
                tracing::debug!(error = kit::class::chain(&error), "a room can not be told now");
                tokio::time::sleep(TELL_PAUSE).await;
            }
            Err(error) => {
                tracing::error!(error = kit::class::chain(&error), text = tell.text, "a room could not be told");
                return;
            }
        }
    }
}

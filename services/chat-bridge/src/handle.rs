//! The order of things: what is read, written, sent and acknowledged, and when.
//!
//! [`inbound`] takes a channel's batches to the log, [`outbound`] takes what runs say to the channel, [`audit`] tells the
//! audit room of ends. They know ports and the bus; no channel.

pub(crate) mod audit;
pub(crate) mod inbound;
pub(crate) mod outbound;
mod requests;
mod signals;
mod words;

use std::sync::Arc;

use kit::{blobs::Blobs, bus::Bus, crew::Crew, journal::Journal};

/// `ce-source` of what the bridge writes.
const SOURCE: &str = "chat-bridge";

/// A transaction id is remembered by Synapse for half an hour at least. What is older than this, or delivered again, is
/// looked for in its room before it is sent.
const SURELY_REMEMBERED: jiff::SignedDuration = jiff::SignedDuration::from_mins(10);

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

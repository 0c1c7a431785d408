//! The sending half: to whoever sits at the session, if somebody still does.

use async_nats::RequestErrorKind;
use kit::bus::Bus;
use schemas::signal::Delivered;

use super::{ANSWER_WITHIN, Said, session_subject};
use crate::ports::{Body, Cause, Deliver, DeliverError, Outgoing};

/// Sends into sessions. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    bus: Bus,
}

impl Sender {
    /// Sends over `bus`.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone() }
    }
}

impl Deliver for Sender {
    async fn deliver(&self, message: &Outgoing) -> Result<String, DeliverError> {
        let room = || message.room.clone();
        let never = |source: Cause| DeliverError::Refused { room: room(), source };
        let later = |source: Cause| DeliverError::Unavailable { room: room(), retry_after: None, source };
        let subject = session_subject(&message.room).map_err(|error| never(error.into()))?;
        let said = Said {
            id: message.id.clone(),
            thread: message.thread.clone(),
            run_id: message.run_id,
            text: match &message.body {
                Body::Text(text) | Body::File { text, .. } => text.clone(),
            },
        };
        let body = serde_json::to_vec(&said).map_err(|error| never(error.into()))?;
        let asked = self.bus.client().request(subject.to_string(), body.into());
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(_)) => Ok(said.id),
            Ok(Err(error)) => match error.kind() {
                // What was said is in the log, and its timeline tells that nobody saw it.
                RequestErrorKind::NoResponders => Ok(Delivered::UNATTENDED.to_owned()),
                RequestErrorKind::MaxPayloadExceeded => Err(never(error.into())),
                _ => Err(later(error.into())),
            },
            Err(elapsed) => Err(later(elapsed.into())),
        }
    }
}

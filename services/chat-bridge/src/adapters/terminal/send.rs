//! The sending half: to whoever sits at the session, if somebody still does.

use async_nats::RequestErrorKind;
use kit::bus::Bus;

use super::{ANSWER_WITHIN, Said, session_subject};
use crate::ports::{Body, Deliver, DeliverError, Outgoing};

/// The id of a message that nobody was there to see. It is in the log.
const UNATTENDED: &str = "unattended";

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
        let subject = session_subject(&message.room)
            .map_err(|source| DeliverError::Refused { room: room(), source: source.into() })?;
        let said = Said {
            id: message.id.clone(),
            thread: message.thread.clone(),
            run_id: message.run_id,
            text: match &message.body {
                Body::Text(text) | Body::File { text, .. } => text.clone(),
            },
        };
        let later = |source: Box<dyn std::error::Error + Send + Sync>| DeliverError::Unavailable {
            room: room(),
            retry_after: None,
            source,
        };
        let body = serde_json::to_vec(&said).map_err(|error| later(error.into()))?;
        let asked = self.bus.client().request(subject.to_string(), body.into());
        match tokio::time::timeout(ANSWER_WITHIN, asked).await {
            Ok(Ok(_)) => Ok(said.id),
            Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => Ok(UNATTENDED.to_owned()),
            Ok(Err(error)) => Err(later(error.into())),
            Err(elapsed) => Err(later(elapsed.into())),
        }
    }
}

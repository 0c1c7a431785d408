//! Call records on their way to `swarm.call.<run_id>`.
//!
//! Idempotency: a record's id derives from run, key and start, so however often it is published it is one message.
//! Ordering: none. On failure: while the bus is away or the stream is full it waits; the call's place among those under
//! way stays taken, so that what can not be recorded bounds what can be called. At the process's end it has a moment
//! left, and then is written to the log of this service, so that nothing is lost silently.

use std::time::Duration;

use kit::{
    bus::Bus,
    class::{Classified as _, ErrorClass, chain},
    clock,
    message::Outgoing,
};
use schemas::{Envelope, EventId, RunId, Subject, call::ModelCall};
use tokio_util::sync::CancellationToken;

/// Pause between tries to publish a record while the bus is away.
const RETRY: Duration = Duration::from_millis(200);

/// `ce-type` of a call record.
const KIND: &str = "model_call";

/// Publishes records.
#[derive(Debug, Clone)]
pub struct Records {
    bus: Bus,
    shutdown: CancellationToken,
    /// What a record has left once calls under way were cut at the process's end.
    last: Duration,
}

impl Records {
    /// Records on `bus`; from `shutdown` on they have `last`.
    pub const fn new(bus: Bus, shutdown: CancellationToken, last: Duration) -> Self {
        Self { bus, shutdown, last }
    }

    /// Publishes a record; returns once it is in the log, or can not be.
    pub async fn publish(&self, record: &ModelCall, root: RunId) {
        let message = match message(record, root) {
            Ok(message) => message,
            Err(error) => {
                return tracing::error!(error = %chain(&error), "a call record can not be written");
            }
        };
        tokio::select! {
            biased;
            () = self.until_stored(&message) => {}
            () = self.given_up() => {
                let record = String::from_utf8_lossy(&message.body);
                tracing::error!(%record, "a call is not on record: the bus was not there until the end");
            }
        }
    }

    async fn until_stored(&self, message: &Outgoing) {
        loop {
            match self.bus.publish(message).await {
                Ok(_) => return,
                Err(error) if error.class() == ErrorClass::Broken => {
                    let record = String::from_utf8_lossy(&message.body);
                    return tracing::error!(error = %chain(&error), %record, "a call can not be put on record");
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "a call record waits for the bus");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Returns when there is no time left for what waits.
    pub async fn given_up(&self) {
        self.shutdown.cancelled().await;
        tokio::time::sleep(self.last).await;
    }
}

fn message(record: &ModelCall, root: RunId) -> Result<Outgoing, kit::message::EncodeError> {
    let mut envelope = Envelope::new(id(record), KIND, "budget-proxy", clock::now());
    envelope.agent = Some(record.agent.clone());
    envelope.root_run_id = Some(root);
    Outgoing::json(Subject::Call(record.run_id), envelope, record)
}

/// The same attempt of the same call has the same id.
fn id(record: &ModelCall) -> EventId {
    let call = format!("{}/{}", record.request_digest, record.idempotency_key);
    EventId::new(record.run_id.to_string()).derive(&call).derive(&record.started_at.to_string())
}

//! Follows the heads of all journals from now on.
//!
//! Consumes `swarm.run.>` with an ordered consumer, headers only. Emits into the fold. On failure: everything that was
//! known is forgotten before the consumer is made anew, and until it delivers nobody is told that an epoch is live.

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    consumer::{DeliverPolicy, StreamError, pull::OrderedConfig},
    context::GetStreamError,
    stream::ConsumerError,
};
use futures::StreamExt as _;
use schemas::{Subject, envelope::KINDS_HEADER, subject::filter};
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::bus::Bus;
use crate::class::chain;
use crate::journal::STREAM;

/// Pause before the consumer is made anew.
const RETRY: Duration = Duration::from_millis(100);

/// How often the connection is looked at between messages.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The log can not be followed.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The stream is not to be had.
    #[error("stream SWARM is not to be had")]
    Stream(#[source] GetStreamError),
    /// No consumer can be made.
    #[error("no consumer of SWARM can be made")]
    Consumer(#[source] ConsumerError),
    /// The consumer gives no messages.
    #[error("the consumer of SWARM gives no messages")]
    Messages(#[source] StreamError),
}

type Messages = async_nats::jetstream::consumer::pull::Ordered;

/// Follows the log.
pub(super) struct Follower {
    bus: Bus,
    shared: Arc<Shared>,
    first: Option<Box<Messages>>,
}

impl Follower {
    pub(super) async fn start(bus: Bus, shared: Arc<Shared>) -> Result<Self, StartError> {
        let first = messages(&bus).await?;
        shared.current.send_replace(true);
        Ok(Self { bus, shared, first: Some(Box::new(first)) })
    }

    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        loop {
            if let Some(mut messages) = self.first.take() {
                follow(&self.bus, &self.shared, &mut messages, &shutdown).await;
            }
            self.shared.current.send_replace(false);
            self.shared.runs().clear();
            self.shared.seen.send_modify(|seen| *seen += 1);
            if shutdown.is_cancelled() {
                return;
            }
            self.bus.connected().await;
            match messages(&self.bus).await {
                Ok(messages) => {
                    self.first = Some(Box::new(messages));
                    self.shared.current.send_replace(true);
                }
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the epochs can not be followed now");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

/// Follows until the end, an error or a lost connection.
async fn follow(bus: &Bus, shared: &Shared, messages: &mut Messages, shutdown: &CancellationToken) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    loop {
        let message = tokio::select! {
            () = shutdown.cancelled() => return,
            _ = look.tick() => {
                if bus.is_connected() { continue; }
                return;
            }
            message = messages.next() => message,
        };
        let Some(Ok(message)) = message else { return };
        let subject = message.subject.parse::<Subject>().ok();
        let Some(run) = subject.and_then(|subject| subject.run_id()) else { continue };
        let Ok(info) = message.info() else { continue };
        let header = message.headers.as_ref().and_then(|headers| headers.get(KINDS_HEADER));
        let kinds: Vec<String> =
            header.map(|kinds| kinds.as_str().split(',').map(ToOwned::to_owned).collect()).unwrap_or_default();
        shared.runs().apply(run, info.stream_sequence, &kinds);
        shared.seen.send_modify(|seen| *seen += 1);
    }
}

async fn messages(bus: &Bus) -> Result<Messages, StartError> {
    let stream = bus.jetstream().get_stream_no_info(STREAM).await.map_err(StartError::Stream)?;
    let config = OrderedConfig {
        // The bus refuses a consumer without a name on a stream where it might take another's.
        name: Some(crate::identity::reader_name(bus.service())),
        filter_subject: filter::RUNS.to_owned(),
        deliver_policy: DeliverPolicy::New,
        headers_only: true,
        ..OrderedConfig::default()
    };
    let consumer = stream.create_consumer(config).await.map_err(StartError::Consumer)?;
    consumer.messages().await.map_err(StartError::Messages)
}

//! The connection of a service to NATS: one a process and service, cheap to clone, never given up.
//!
//! Boundary: knows servers, credentials and acks, not what a run is. Publishing under `swarm.run.>` is not
//! offered here but in [`crate::journal`], which holds the one way that keeps a single writer per run.
//!
//! A publish is sent only while the connection is up. The client library would otherwise queue it and send it
//! whenever the bus returns, long after its caller was told that it failed.

mod connect;
mod fault;
mod fetch;
mod publish;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use schemas::ProjectId;
use schemas::ids::Token;
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

pub use connect::ConnectError;
pub(crate) use fault::{Fault, code};
pub(crate) use fetch::Last;
pub(crate) use publish::Ack;
pub use publish::PublishError;

/// How long a request to the bus waits for the connection and then for the answer.
pub(crate) const REQUEST_WITHIN: Duration = Duration::from_secs(5);

/// Atomic batches that one connection has under way. The server allows 50 a stream for all, and other services send some.
const BATCHES_AT_ONCE: usize = 32;

/// How to reach the bus, and as whom.
#[derive(Clone, Debug)]
pub struct BusConfig {
    /// One or more servers of the same cluster, `nats://host:port`.
    pub urls: Vec<String>,
    /// The credentials file of the service's user; none for a server without accounts.
    pub creds: Option<PathBuf>,
    /// The service: its user, the prefix of its inboxes and the `ce-source` of its messages.
    pub service: String,
    /// The project, which is the account.
    pub project: ProjectId,
}

/// The servers of a list such as `nats://one:4222,nats://two:4222`.
pub fn urls(list: &str) -> Vec<String> {
    list.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty()).collect()
}

/// Whether the bus can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// It can, since then.
    Up {
        /// When it was reached.
        since: Instant,
    },
    /// It can not, since then.
    Down {
        /// When it was lost.
        since: Instant,
    },
}

/// A connection to the bus. Clones share it.
#[derive(Clone, Debug)]
pub struct Bus {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    client: async_nats::Client,
    jetstream: Context,
    service: Token,
    project: ProjectId,
    connection: watch::Receiver<Connection>,
    refusals: watch::Receiver<Option<String>>,
    batches: Semaphore,
}

impl Bus {
    /// Connects, or says why it can not. Once connected it reconnects for as long as it lives.
    pub async fn connect(config: &BusConfig) -> Result<Self, ConnectError> {
        let service = Token::try_new(&config.service).map_err(ConnectError::Service)?;
        let (up, connection) = watch::channel(Connection::Up { since: Instant::now() });
        let (refused, refusals) = watch::channel(None);
        let options = connect::options(config, up, refused).await?;
        let client =
            options.connect(config.urls.as_slice()).await.map_err(|source| connect::failure(config, source))?;
        connect::check_version(config, &client.server_info().version)?;
        let mut jetstream = async_nats::jetstream::new(client.clone());
        jetstream.set_timeout(REQUEST_WITHIN);
        Ok(Self {
            shared: Arc::new(Shared {
                client,
                jetstream,
                service,
                project: config.project.clone(),
                connection,
                refusals,
                batches: Semaphore::new(BATCHES_AT_ONCE),
            }),
        })
    }

    /// The client, for core requests and subscriptions.
    pub fn client(&self) -> &async_nats::Client {
        &self.shared.client
    }

    /// JetStream, for what this crate does not cover.
    pub fn jetstream(&self) -> &Context {
        &self.shared.jetstream
    }

    /// Who is connected.
    pub fn service(&self) -> &str {
        self.shared.service.as_str()
    }

    /// Who is connected, as a token of subjects.
    pub fn service_token(&self) -> &Token {
        &self.shared.service
    }

    /// Whose bus it is.
    pub fn project(&self) -> &ProjectId {
        &self.shared.project
    }

    /// Whether the bus can be reached at this moment.
    pub fn is_connected(&self) -> bool {
        self.shared.client.connection_state() == async_nats::connection::State::Connected
    }

    /// The connection's state as it changes.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.shared.connection.clone()
    }

    /// Sends what is still buffered. For shutdown.
    pub async fn flush(&self) {
        if tokio::time::timeout(REQUEST_WITHIN, self.client().flush()).await.is_err() {
            tracing::warn!("the bus did not take what was still to be sent");
        }
    }

    /// The largest message, headers included.
    pub fn max_payload(&self) -> usize {
        self.shared.client.max_payload()
    }

    /// Waits for a place among the batches under way; dropping it gives it back.
    pub(crate) async fn batch_place(&self) -> Option<SemaphorePermit<'_>> {
        // The semaphore is never closed, so there always is one.
        self.shared.batches.acquire().await.ok()
    }

    /// Returns once the bus can be reached.
    pub async fn connected(&self) {
        let mut connection = self.connection();
        while !self.is_connected() {
            // The event may be handed over a moment before the client's own state says the same, or after it.
            let _ = tokio::time::timeout(connect::RECONNECT_FIRST, connection.changed()).await;
        }
    }
}

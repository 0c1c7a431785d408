//! The connection of a service to NATS: one a process and service, cheap to clone, never given up.
//!
//! Boundary: knows servers, credentials and acks, not what a run is. Publishing under `swarm.run.>` is not
//! offered here but in [`crate::journal`], which holds the one way that keeps a single writer per run.
//!
//! A publish is sent only while the connection is up. The client library would otherwise queue it and send it
//! whenever the bus returns, long after its caller was told that it failed.

mod fetch;
mod publish;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use schemas::ProjectId;
use schemas::ids::{InvalidName, Token};
use tokio::sync::{Semaphore, SemaphorePermit, watch};
use tokio::time::Instant;

use crate::class::{Classified, ErrorClass};

pub(crate) use fetch::Last;
pub use publish::PublishError;
pub(crate) use publish::{Ack, Fault, code};

/// The oldest server that has all that is used: message schedules came with it.
const OLDEST_SERVER: (u64, u64) = (2, 14);

/// Longest pause between two attempts to reconnect. Runs in hand wait for the bus, so it is short.
const RECONNECT_AT_MOST: Duration = Duration::from_secs(1);

/// First pause between attempts to reconnect; it doubles up to the longest.
const RECONNECT_FIRST: Duration = Duration::from_millis(20);

/// Between two pings. Two that stay unanswered end a connection, so a server that hangs is noticed in 6 s.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How long a first connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

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

/// Connecting failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The credentials file can not be read.
    #[error("the credentials of {service} in `{}` can not be read", path.display())]
    Credentials {
        /// Whose.
        service: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The service's name can not stand in a subject.
    #[error("a service can not be called that")]
    Service(#[source] InvalidName),
    /// An address is none.
    #[error("`{urls}` is not a list of NATS servers")]
    Address {
        /// As given.
        urls: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// Nobody answers there.
    #[error("no NATS server answers at {urls}")]
    Unreachable {
        /// Where.
        urls: String,
        /// Why.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server does not know who asks.
    #[error("the NATS server at {urls} refuses {service}: {}", hint(*.with_creds))]
    Unauthorized {
        /// Where.
        urls: String,
        /// Who.
        service: String,
        /// Whether credentials were shown.
        with_creds: bool,
        /// What the server said.
        #[source]
        source: async_nats::ConnectError,
    },
    /// The server lacks what is needed.
    #[error("the NATS server at {urls} is version {found}; {}.{} or newer is needed", OLDEST_SERVER.0, OLDEST_SERVER.1)]
    ServerTooOld {
        /// Where.
        urls: String,
        /// Its version.
        found: String,
    },
}

fn hint(with_creds: bool) -> &'static str {
    if with_creds {
        "its credentials are not of this server's account, revoked or expired"
    } else {
        "it has no credentials"
    }
}

impl Classified for ConnectError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unreachable { .. } => ErrorClass::Transient,
            _ => ErrorClass::Broken,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Credentials { .. } => "bus_credentials",
            Self::Service(_) => "bus_service",
            Self::Address { .. } => "bus_address",
            Self::Unreachable { .. } => "bus_unreachable",
            Self::Unauthorized { .. } => "bus_unauthorized",
            Self::ServerTooOld { .. } => "bus_server_too_old",
        }
    }
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
        let (up, connection) = watch::channel(Connection::Up {
            since: Instant::now(),
        });
        let (refused, refusals) = watch::channel(None);
        let options = options(config, up, refused).await?;
        let client = options
            .connect(config.urls.as_slice())
            .await
            .map_err(|source| failure(config, source))?;
        check_version(config, &client.server_info().version)?;
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
        if tokio::time::timeout(REQUEST_WITHIN, self.client().flush())
            .await
            .is_err()
        {
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
            let _ = tokio::time::timeout(RECONNECT_FIRST, connection.changed()).await;
        }
    }
}

async fn options(
    config: &BusConfig,
    connection: watch::Sender<Connection>,
    refusals: watch::Sender<Option<String>>,
) -> Result<ConnectOptions, ConnectError> {
    let options = match &config.creds {
        None => ConnectOptions::new(),
        Some(path) => ConnectOptions::with_credentials_file(path)
            .await
            .map_err(|source| ConnectError::Credentials {
                service: config.service.clone(),
                path: path.clone(),
                source,
            })?,
    };
    let service = config.service.clone();
    Ok(options
        .name(&config.service)
        .custom_inbox_prefix(format!("_INBOX.{}", config.service))
        .connection_timeout(CONNECT_WITHIN)
        .request_timeout(Some(REQUEST_WITHIN))
        .ping_interval(PING_EVERY)
        .max_reconnects(None)
        .reconnect_delay_callback(reconnect_delay)
        .event_callback(move |event| {
            note(&service, &event, &connection, &refusals);
            std::future::ready(())
        }))
}

fn reconnect_delay(attempts: usize) -> Duration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
    let longest = RECONNECT_FIRST
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(RECONNECT_AT_MOST);
    // Half of it is random, so that services do not return in step.
    longest.mul_f64(rand::random_range(0.5..=1.0))
}

fn note(
    service: &str,
    event: &Event,
    connection: &watch::Sender<Connection>,
    refusals: &watch::Sender<Option<String>>,
) {
    let since = Instant::now();
    match event {
        Event::Connected => {
            tracing::info!(service, "connected to the bus");
            connection.send_if_modified(|state| {
                let was_down = matches!(state, Connection::Down { .. });
                if was_down {
                    *state = Connection::Up { since };
                }
                was_down
            });
        }
        Event::Disconnected | Event::Closed => {
            tracing::warn!(service, "lost the bus");
            connection.send_replace(Connection::Down { since });
        }
        Event::ServerError(async_nats::ServerError::Other(text))
            if text.to_lowercase().contains("permissions violation") =>
        {
            tracing::error!(service, refusal = %text, "the bus refuses a subject to this service");
            refusals.send_replace(Some(text.clone()));
        }
        Event::SlowConsumer(subscription) => {
            tracing::warn!(
                service,
                subscription,
                "messages of a subscription were dropped: it is read too slowly"
            );
        }
        Event::ServerError(_) | Event::ClientError(_) => {
            tracing::warn!(service, %event, "trouble on the bus");
        }
        Event::LameDuckMode | Event::Draining => {
            tracing::info!(service, %event, "the bus goes away");
        }
    }
}

fn failure(config: &BusConfig, source: async_nats::ConnectError) -> ConnectError {
    let urls = config.urls.join(", ");
    match source.kind() {
        ConnectErrorKind::ServerParse => ConnectError::Address { urls, source },
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            ConnectError::Unauthorized {
                urls,
                service: config.service.clone(),
                with_creds: config.creds.is_some(),
                source,
            }
        }
        _ => ConnectError::Unreachable { urls, source },
    }
}

fn check_version(config: &BusConfig, version: &str) -> Result<(), ConnectError> {
    let mut numbers = version
        .split(['.', '-'])
        .map(|part| part.parse::<u64>().unwrap_or_default());
    let found = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    if found < OLDEST_SERVER {
        return Err(ConnectError::ServerTooOld {
            urls: config.urls.join(", "),
            found: version.to_owned(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_between_attempts_are_bounded() {
        for attempts in 0..100 {
            assert!(reconnect_delay(attempts) <= RECONNECT_AT_MOST);
        }
        assert!(reconnect_delay(1) <= RECONNECT_FIRST);
    }
}

//! Getting connected and staying so: options, what can go wrong, and what is made of the connection's events.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event};
use schemas::ids::InvalidName;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{BusConfig, Connection, REQUEST_WITHIN};
use crate::class::{Classified, ErrorClass};

/// The oldest server that has all that is used: message schedules came with it.
const OLDEST_SERVER: (u64, u64) = (2, 14);

/// Longest pause between two attempts to reconnect. Runs in hand wait for the bus, so it is short.
const RECONNECT_AT_MOST: Duration = Duration::from_secs(1);

/// First pause between attempts to reconnect; it doubles up to the longest.
pub(super) const RECONNECT_FIRST: Duration = Duration::from_millis(20);

/// Between two pings. Two that stay unanswered end a connection, so a server that hangs is noticed in 6 s.
const PING_EVERY: Duration = Duration::from_secs(2);

/// How long a first connection may take.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

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

/// Options to connect with, once the credentials were read.
pub(super) async fn options(
    config: &BusConfig,
    connection: watch::Sender<Connection>,
    refusals: watch::Sender<Option<String>>,
) -> Result<ConnectOptions, ConnectError> {
    let options = match &config.creds {
        None => ConnectOptions::new(),
        Some(path) => ConnectOptions::with_credentials_file(path).await.map_err(|source| {
            ConnectError::Credentials { service: config.service.clone(), path: path.clone(), source }
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
    let longest = RECONNECT_FIRST.saturating_mul(2_u32.saturating_pow(doublings)).min(RECONNECT_AT_MOST);
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
        Event::Disconnected => {
            tracing::warn!(service, "lost the bus");
            connection.send_replace(Connection::Down { since });
        }
        // Ours to close: it never gives up by itself.
        Event::Closed => {
            tracing::debug!(service, "left the bus");
            connection.send_replace(Connection::Down { since });
        }
        Event::ServerError(async_nats::ServerError::Other(text))
            if text.to_lowercase().contains("permissions violation") =>
        {
            tracing::error!(service, refusal = %text, "the bus refuses a subject to this service");
            refusals.send_replace(Some(text.clone()));
        }
        Event::SlowConsumer(subscription) => {
            tracing::warn!(service, subscription, "messages of a subscription were dropped: it is read too slowly");
        }
        Event::ServerError(_) | Event::ClientError(_) => {
            tracing::warn!(service, %event, "trouble on the bus");
        }
        Event::LameDuckMode | Event::Draining => {
            tracing::info!(service, %event, "the bus goes away");
        }
    }
}

pub(super) fn failure(config: &BusConfig, source: async_nats::ConnectError) -> ConnectError {
    let urls = config.urls.join(", ");
    match source.kind() {
        ConnectErrorKind::ServerParse => ConnectError::Address { urls, source },
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => ConnectError::Unauthorized {
            urls,
            service: config.service.clone(),
            with_creds: config.creds.is_some(),
            source,
        },
        _ => ConnectError::Unreachable { urls, source },
    }
}

pub(super) fn check_version(config: &BusConfig, version: &str) -> Result<(), ConnectError> {
    let mut numbers = version.split(['.', '-']).map(|part| part.parse::<u64>().unwrap_or_default());
    let found = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    if found < OLDEST_SERVER {
        return Err(ConnectError::ServerTooOld { urls: config.urls.join(", "), found: version.to_owned() });
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

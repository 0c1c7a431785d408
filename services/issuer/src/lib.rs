//! Mints the bearers of runs: the only service that holds the key that signs them.
//!
//! In: `swarm.ask.issuer.mint`, which the bus lets only those publish who hold runs, and
//! `swarm.ask.issuer.keys`, for whoever verifies. Out: replies, and nothing else: no stream, no bucket.
//! A bearer names run, epoch and deadline as they were asked for. Whether the epoch is the live one is for
//! the verifiers to know, who fold it from the log: a bearer of an older epoch is refused by them, so
//! minting needs no look at the log and stays fast.
//!
//! It must never say or log a secret, and never sign what does not expire. Several replicas with the same
//! key share the requests.

mod config;
mod domain;
mod handle;
mod key;

use std::time::Duration;

use async_nats::{Client, SubscribeError, UnsubscribeError};
use futures::StreamExt as _;
use jiff::Timestamp;
use kit::service::Context;
use schemas::ask;
use schemas::subject::filter;

pub use config::{Config, DEFAULT_MAX_LIFETIME};
pub use domain::Issuer;
pub use key::KeyError;

/// How long the last requests may take at shutdown. The server answers in a millisecond or is gone; whoever asked
/// asks again.
const DRAIN_WITHIN: Duration = Duration::from_secs(2);

/// What the service needs from outside.
#[derive(Clone, Debug)]
pub struct Deps {
    /// A connection as the bus user `issuer`.
    pub client: Client,
    /// The present: `kit::clock::now`.
    pub now: fn() -> Timestamp,
}

/// The service could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its key.
    #[error("loading the key that signs bearers")]
    Key(#[from] KeyError),
    /// The bus.
    #[error("subscribing to `{subject}`")]
    Subscribe {
        /// What was subscribed to.
        subject: String,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The subscription ended without a shutdown: the connection was closed for good.
    #[error("the subscription to `{subject}` has ended")]
    Ended {
        /// What was subscribed to.
        subject: String,
    },
}

/// Serves until shutdown, then answers what it had received. It is ready once requests reach it.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), RunError> {
    let key = key::load_or_create(&config.key_file)?;
    let issuer = Issuer::new(config.project, key, config.max_lifetime);
    let subject = filter::asks(ask::ISSUER);
    let failed = |source| RunError::Subscribe { subject: subject.clone(), source };
    let mut requests = deps
        .client
        .queue_subscribe(subject.clone(), ask::ISSUER.to_owned())
        .await
        .map_err(|error| failed(Box::new(error)))?;
    seen_by_server(&deps.client).await.map_err(|error| failed(Box::new(error)))?;
    tracing::info!(kid = issuer.kid(), "issuer is ready");
    context.ready();

    loop {
        tokio::select! {
            biased;
            () = context.shutdown.cancelled() => break,
            request = requests.next() => match request {
                Some(request) => handle::answer(&deps, &issuer, request).await,
                None => return Err(RunError::Ended { subject }),
            },
        }
    }
    drain(&deps, &issuer, requests).await;
    Ok(())
}

/// Returns once the server has acted on all that was sent so far, such as a subscription. A flush alone only says
/// that it was sent: draining a subscription waits for the server.
async fn seen_by_server(client: &Client) -> Result<(), SubscribeError> {
    let mut probe = client.subscribe(client.new_inbox()).await?;
    if probe.drain().await.is_ok() {
        while probe.next().await.is_some() {}
    }
    Ok(())
}

/// Leaves the queue group and answers what the server had already sent here.
async fn drain(deps: &Deps, issuer: &Issuer, mut requests: async_nats::Subscriber) {
    let answered = async {
        requests.drain().await?;
        while let Some(request) = requests.next().await {
            handle::answer(deps, issuer, request).await;
        }
        Ok::<(), UnsubscribeError>(())
    };
    match tokio::time::timeout(DRAIN_WITHIN, answered).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::debug!(%error, "the connection is gone, nothing is left to answer");
        }
        Err(_) => tracing::debug!("the server did not answer, last requests may be unanswered"),
    }
    if let Err(error) = deps.client.flush().await {
        tracing::debug!(%error, "last replies may not have been sent");
    }
}

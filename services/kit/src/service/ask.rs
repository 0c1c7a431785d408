//! Asking a service over the bus how it is: `swarm.ask.<service>.health`.
//!
//! For people at a terminal, who reach the bus and not each service's port. Every instance answers for itself; whoever
//! asks takes the first answer.

use std::time::Duration;

use async_nats::{Client, RequestErrorKind, SubscribeError};
use futures::StreamExt as _;
use schemas::Subject;
use schemas::ask::HEALTH;
use schemas::ids::{InvalidName, Token};

use super::{Context, HealthReport};
use crate::bus::Bus;

/// How long an answer may take: it is made from memory.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// A service did not say how it is.
#[derive(Debug, thiserror::Error)]
pub enum HealthAskError {
    /// Its name is none.
    #[error("`{0}` is no name of a service")]
    Name(String),
    /// Nobody answers to that name.
    #[error("{0} does not run")]
    Absent(String),
    /// It does not answer in time, or not readably.
    #[error("{service} does not answer")]
    Silent {
        /// The service.
        service: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn subject(service: &str) -> Result<String, InvalidName> {
    let operation = Token::try_new(HEALTH)?;
    Ok(Subject::Ask(Token::try_new(service)?, operation).to_string())
}

/// Answers for `context` until it ends, as a minor task of it. `client` is the service's own connection.
///
/// Consumes `swarm.ask.<service>.health`. Emits the report. Idempotency: reading. On failure the asker times out.
pub async fn answer_health(client: &Client, context: &Context) -> Result<(), SubscribeError> {
    let Ok(subject) = subject(context.name()) else {
        tracing::error!(service = context.name(), "the name of the service is no token: nobody can ask how it is");
        return Ok(());
    };
    let mut requests = client.subscribe(subject).await?;
    let (client, health, shutdown) = (client.clone(), context.health.clone(), context.shutdown.clone());
    context.spawn_minor("health", async move {
        loop {
            let request = tokio::select! {
                () = shutdown.cancelled() => return,
                request = requests.next() => request,
            };
            let Some(request) = request else { return };
            let report = serde_json::to_vec(&health.report());
            if let (Some(inbox), Ok(report)) = (request.reply, report) {
                // An answer that is lost is asked for again.
                drop(client.publish(inbox, report.into()).await);
            }
        }
    });
    Ok(())
}

/// Asks a service how it is.
pub async fn ask_health(bus: &Bus, service: &str) -> Result<HealthReport, HealthAskError> {
    let subject = subject(service).map_err(|_| HealthAskError::Name(service.to_owned()))?;
    let silent = |source| HealthAskError::Silent { service: service.to_owned(), source };
    let asked = bus.client().request(subject, "".into());
    match tokio::time::timeout(ANSWER_WITHIN, asked).await {
        Ok(Ok(answer)) => serde_json::from_slice(&answer.payload).map_err(|error| silent(error.into())),
        Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
            Err(HealthAskError::Absent(service.to_owned()))
        }
        Ok(Err(error)) => Err(silent(error.into())),
        Err(elapsed) => Err(silent(elapsed.into())),
    }
}

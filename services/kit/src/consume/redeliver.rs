//! Handling a parked message once more: `nightcrew dead replay` asks the consumer's owner to take it from its stream.
//!
//! A message that was parked still lies in its stream and was acked there. Publishing it again would make a second
//! fact of it, and a run's journal refuses that. So its owner fetches it by its sequence and gives it to the same
//! handler as any delivery.
//!
//! Consumes: `swarm.ask.<service>.redeliver-<consumer>`. Emits: the answer. Idempotency: the handler's own, as with
//! any redelivery. Ordering: none. On failure: the answer says so, and the letter stays parked. A handler may take as long
//! as a run: who waits for it is told that it is under way, and the letter stays until a repeat is told that it is done.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use schemas::Subject;
use schemas::ids::Token;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Durable;
use super::fate::{Fate, Verdict};
use super::work::{Delivery, Work};
use crate::bus::{Bus, Fault};
use crate::class::{Classified, ErrorClass, chain};
use crate::message;

/// Within this time whoever asked is answered: well below what a question may take.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Replays under way at once. Each may be a run; a person replays a few at a time, and `--all` one after the other.
const AT_ONCE: usize = 16;

/// Between two tries to hear of replays. Whoever asks meanwhile is told that nobody answers.
const SUBSCRIBE_AGAIN: Duration = Duration::from_secs(1);

/// Asks for a message of the consumer's stream to be handled once more.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    sequence: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Redelivered {
    /// It is handled.
    Done,
    /// It is being handled.
    UnderWay,
    /// It can not be handled now.
    Later,
    /// It is as broken as before.
    Broken {
        /// Why, for programs.
        code: String,
        /// Why, for people.
        reason: String,
    },
}

/// A message could not be handed to its consumer's owner.
#[derive(Debug, thiserror::Error)]
pub enum RedeliverError {
    /// The name is none.
    #[error("`{0}` is no name of a service's consumer")]
    Name(String),
    /// Nobody answers for that consumer.
    #[error("{service} does not answer for its consumer {consumer}")]
    Silent {
        /// The service.
        service: String,
        /// The consumer.
        consumer: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl Classified for RedeliverError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Name(_) => ErrorClass::Broken,
            Self::Silent { .. } => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "redeliver_name",
            Self::Silent { .. } => "redeliver_silent",
        }
    }
}

fn subject(service: &str, consumer: &str) -> Option<String> {
    let operation = Token::try_new(format!("redeliver-{consumer}")).ok()?;
    Some(Subject::Ask(Token::try_new(service).ok()?, operation).to_string())
}

/// Asks the owner of `consumer` to handle the message with that sequence of its stream once more.
pub(crate) async fn ask(
    bus: &Bus,
    service: &str,
    consumer: &str,
    sequence: u64,
) -> Result<Redelivered, RedeliverError> {
    let subject = subject(service, consumer).ok_or_else(|| RedeliverError::Name(consumer.to_owned()))?;
    let silent = |fault: Fault| RedeliverError::Silent {
        service: service.to_owned(),
        consumer: consumer.to_owned(),
        source: Box::new(fault),
    };
    let request = json!(Request { sequence }).to_string();
    let answer = bus.ask(&subject, None, request.into()).await.map_err(silent)?;
    serde_json::from_slice(&answer).map_err(|error| silent(Fault::Garbled(error.to_string())))
}

/// Answers such requests until shutdown; one of several instances takes each.
pub(super) async fn answer<H, F, E>(work: Arc<Work<H>>, shutdown: CancellationToken)
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    let Durable { name, owner, .. } = *work.consumer();
    let client = work.bus().client().clone();
    let Some(subject) = subject(owner.name(), name) else {
        return;
    };
    let places = Arc::new(Semaphore::new(AT_ONCE));
    // Ends with this task, and what is under way is begun anew by whoever replays it again.
    let mut under_way = JoinSet::new();
    let mut subscribed = None;
    loop {
        let Some(requests) = &mut subscribed else {
            match client.queue_subscribe(subject.clone(), name.to_owned()).await {
                Ok(requests) => subscribed = Some(requests),
                Err(error) => {
                    tracing::warn!(consumer = name, %error, "parked messages can not be replayed now");
                    tokio::time::sleep(SUBSCRIBE_AGAIN).await;
                }
            }
            if shutdown.is_cancelled() {
                return;
            }
            continue;
        };
        let request = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            request = requests.next() => request,
        };
        let Some(request) = request else {
            subscribed = None;
            tokio::time::sleep(SUBSCRIBE_AGAIN).await;
            continue;
        };
        let Some(reply) = request.reply else { continue };
        while under_way.try_join_next().is_some() {}
        let (work, place) = (Arc::clone(&work), Arc::clone(&places).try_acquire_owned());
        under_way.spawn(async move {
            let Ok(_place) = place else {
                return tell(&work, reply, &Redelivered::Later).await;
            };
            let mut handled = pin!(redeliver(&work, &request.payload));
            if let Ok(redelivered) = tokio::time::timeout(ANSWER_WITHIN, &mut handled).await {
                return tell(&work, reply, &redelivered).await;
            }
            tell(&work, reply, &Redelivered::UnderWay).await;
            let redelivered = handled.await;
            tracing::info!(consumer = work.consumer().name, ?redelivered, "a replay is over");
        });
    }
}

async fn tell<H>(work: &Work<H>, reply: async_nats::Subject, redelivered: &Redelivered) {
    if let Err(error) = work.bus().client().publish(reply, json!(redelivered).to_string().into()).await {
        tracing::warn!(%error, "the answer to a replay was not sent");
    }
}

async fn redeliver<H, F, E>(work: &Work<H>, request: &[u8]) -> Redelivered
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    let request: Request = match serde_json::from_slice(request) {
        Ok(request) => request,
        Err(error) => return broken("malformed", &error.to_string()),
    };
    let wanted = json!({ "seq": request.sequence });
    let found = match work.bus().leader_get(work.consumer().stream, &wanted).await {
        Ok(Some(found)) => found,
        Ok(None) => return broken("gone", "its stream no longer holds it"),
        Err(fault) => {
            tracing::warn!(error = chain(&fault), "a message to be replayed can not be read now");
            return Redelivered::Later;
        }
    };
    let stored = match message::raw(&found) {
        Ok(stored) => stored,
        Err(error) => return broken(error.code(), &chain(&error)),
    };
    let delivery = Delivery { stored, attempt: 1, pending: 0 };
    match work.judge(delivery).await {
        Verdict::Ack => Redelivered::Done,
        Verdict::Later(_) | Verdict::Abandon => Redelivered::Later,
        Verdict::Park { code, reason } => Redelivered::Broken { code, reason },
    }
}

fn broken(code: &str, reason: &str) -> Redelivered {
    Redelivered::Broken { code: code.to_owned(), reason: reason.to_owned() }
}

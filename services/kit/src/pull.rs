//! Pulling from a consumer exactly as much as there is room for, with as little delay as a subscription.
//!
//! The client library's own stream pulls ahead into a buffer, where a wake with an ack wait of 3 s would age while
//! all hands are busy. Here the server is told how many messages may come, and no more come. A request is always
//! waiting at the server, so a message is on its way the moment it is stored.

use std::time::Duration;

use async_nats::{Message, Subscriber, jetstream};
use futures::{FutureExt as _, StreamExt as _};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::bus::{Bus, Connection};
use crate::consumer::Durable;

/// How long a request waits at the server before it is asked again. Shorter than the shortest ack wait, 3 s: what a
/// process that was stopped had in hand must not be delivered to its own waiting requests once more.
const EXPIRES: Duration = Duration::from_secs(2);

/// How often the server says that a request still waits.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// Heartbeats that may be missing before a request is taken for lost. One may be late on a busy machine.
const MISSED: u32 = 3;

/// Pause before a request is repeated that the server turned down.
const PAUSE: Duration = Duration::from_millis(50);

/// The most that one request asks for.
const MOST: usize = 4096;

/// What came of pulling.
#[derive(Debug)]
pub(crate) enum Pulled {
    /// A message.
    Message(Box<jetstream::Message>),
    /// Nothing, and the server said that there is nothing.
    Idle,
    /// The connection changed, or a request was lost: what was on its way here may be lost too.
    Cut,
    /// The consumer is not there.
    Gone,
}

/// Pulls from one consumer.
#[derive(Debug)]
pub(crate) struct Puller {
    bus: Bus,
    subject: String,
    inbox: String,
    heartbeat: Duration,
    answers: Option<Subscriber>,
    connection: watch::Receiver<Connection>,
    outstanding: usize,
    heard: Instant,
    not_before: Instant,
}

impl Puller {
    /// Of a durable consumer.
    pub(crate) async fn of_durable(bus: &Bus, consumer: &Durable) -> Self {
        Self::new(bus, consumer.stream, consumer.name, HEARTBEAT).await
    }

    /// Of any consumer; the server says `heartbeat`ly that it still listens.
    pub(crate) async fn new(bus: &Bus, stream: &str, name: &str, heartbeat: Duration) -> Self {
        let inbox = bus.client().new_inbox();
        let mut connection = bus.connection();
        connection.mark_unchanged();
        Self {
            bus: bus.clone(),
            subject: format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"),
            answers: bus.client().subscribe(inbox.clone()).await.ok(),
            inbox,
            heartbeat,
            connection,
            outstanding: 0,
            heard: Instant::now(),
            not_before: Instant::now(),
        }
    }

    /// Forgets what was asked for: it is not coming.
    pub(crate) fn reset(&mut self) {
        self.outstanding = 0;
    }

    /// The next message, when there is room for `free`. May be dropped and called again without losing any.
    pub(crate) async fn next(&mut self, free: usize) -> Pulled {
        loop {
            self.ask(free).await;
            let silent_at = self.heard + self.heartbeat * MISSED;
            let Some(answers) = &mut self.answers else {
                // The client is closed for good, which only the end of the process does.
                return std::future::pending().await;
            };
            tokio::select! {
                biased;
                answer = answers.next() => {
                    let Some(answer) = answer else {
                        self.answers = None;
                        continue;
                    };
                    self.heard = Instant::now();
                    if let Some(pulled) = self.take(answer) {
                        return pulled;
                    }
                }
                changed = self.connection.changed() => {
                    // A server forgets the requests of a connection with it.
                    self.outstanding = 0;
                    self.heard = Instant::now();
                    if changed.is_err() {
                        self.answers = None;
                    }
                    return Pulled::Cut;
                }
                () = tokio::time::sleep_until(silent_at), if self.outstanding > 0 => {
                    tracing::debug!(subject = self.subject, "a pull request was lost");
                    self.outstanding = 0;
                    self.heard = Instant::now();
                    return Pulled::Cut;
                }
                () = tokio::time::sleep_until(self.not_before), if self.outstanding == 0 => {}
            }
        }
    }

    /// Asks for more once half of the room or more is not asked for yet.
    async fn ask(&mut self, free: usize) {
        let free = free.min(MOST);
        let now = Instant::now();
        if self.outstanding * 2 > free || now < self.not_before {
            return;
        }
        let Some(batch) = free.checked_sub(self.outstanding).filter(|batch| *batch > 0) else {
            return;
        };
        self.not_before = now + PAUSE;
        if !self.bus.is_connected() {
            return;
        }
        let request = json!({
            "batch": batch,
            "expires": nanos(EXPIRES),
            "idle_heartbeat": nanos(self.heartbeat),
        });
        let sent =
            self.bus.client().publish_with_reply(self.subject.clone(), self.inbox.clone(), request.to_string().into());
        if sent.await.is_ok() {
            self.outstanding += batch;
            self.heard = now;
            self.not_before = now;
        }
    }

    /// Reads one answer: a message, or a word about the requests.
    fn take(&mut self, answer: Message) -> Option<Pulled> {
        let Some(status) = answer.status else {
            self.outstanding = self.outstanding.saturating_sub(1);
            return Some(Pulled::Message(Box::new(jetstream::Message {
                message: answer,
                context: self.bus.jetstream().clone(),
            })));
        };
        let left = answer
            .headers
            .as_ref()
            .and_then(|headers| headers.get("Nats-Pending-Messages"))
            .and_then(|left| left.as_str().parse::<usize>().ok());
        let description = answer.description.as_deref().unwrap_or_default();
        match status.as_u16() {
            100 => Some(Pulled::Idle),
            // A request has expired, or ended for another reason, with so many messages not sent.
            404 | 408 => {
                self.outstanding = self.outstanding.saturating_sub(left.unwrap_or(usize::MAX));
                None
            }
            503 => {
                self.turned_down(left);
                Some(Pulled::Gone)
            }
            409 if description.contains("Deleted") => {
                self.turned_down(left);
                Some(Pulled::Gone)
            }
            _ => {
                tracing::debug!(subject = self.subject, %status, description, "a pull request ended");
                self.turned_down(left);
                None
            }
        }
    }

    fn turned_down(&mut self, left: Option<usize>) {
        self.outstanding = self.outstanding.saturating_sub(left.unwrap_or(usize::MAX));
        self.not_before = Instant::now() + PAUSE;
    }

    /// Stops pulling, and returns what had arrived already.
    pub(crate) async fn leave(&mut self) -> Vec<Box<jetstream::Message>> {
        let Some(mut answers) = self.answers.take() else {
            return Vec::new();
        };
        let mut arrived = Vec::new();
        // What the server sent before it heard of the end is here when the unsubscription is through.
        let _ = answers.unsubscribe().await;
        if self.bus.is_connected() {
            let _ = tokio::time::timeout(HEARTBEAT, self.bus.client().flush()).await;
        }
        while let Some(Some(answer)) = answers.next().now_or_never() {
            if let Some(Pulled::Message(message)) = self.take(answer) {
                arrived.push(message);
            }
        }
        arrived
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

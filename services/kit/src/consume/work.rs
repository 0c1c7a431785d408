//! One delivery from its arrival to its ack.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, AckKind};
use futures::FutureExt as _;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;

use super::fate::{self, Fate, Verdict};
use super::{Durable, Options};
use crate::bus::Bus;
use crate::class::{Classified, chain};
use crate::dead;
use crate::message::{self, Stored};
use crate::service::{Check, Health};

/// How long an ack may wait for the connection to take it. It is lost with the connection, and that is no harm.
const ACK_WITHIN: Duration = Duration::from_millis(500);

/// Delay of a message that can not be parked now: its handler would only fail again.
const PARK_AGAIN: Duration = Duration::from_secs(5);

/// Name of the health check.
const PARKING: &str = "parking";

/// A message for a handler.
#[derive(Debug)]
pub struct Delivery {
    /// The message.
    pub stored: Stored,
    /// How often it was delivered, this time included.
    pub attempt: u64,
    /// How many messages the consumer has behind it.
    pub pending: u64,
}

/// What all deliveries of a consumer share.
pub(super) struct Work<H> {
    bus: Bus,
    consumer: Durable,
    options: Options,
    handler: H,
    health: Option<Health>,
    hurry: CancellationToken,
}

impl<H> Work<H> {
    pub(super) fn new(bus: Bus, consumer: Durable, options: Options, handler: H, health: Option<Health>) -> Arc<Self> {
        Arc::new(Self { bus, consumer, options, handler, health, hurry: CancellationToken::new() })
    }

    pub(super) fn bus(&self) -> &Bus {
        &self.bus
    }

    pub(super) fn consumer(&self) -> &Durable {
        &self.consumer
    }

    fn say(&self, parking: Check) {
        if let Some(health) = &self.health {
            health.set(PARKING, parking);
        }
    }

    /// Ends every handler at its next await, and gives its message back.
    pub(super) fn give_up(&self) {
        self.hurry.cancel();
    }
}

impl<H, F, E> Work<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    /// Handles a message and does with it what its handler's outcome asks for.
    pub(super) async fn handle(&self, message: &jetstream::Message) {
        let mut lease = Lease::new(message, &self.consumer, self.bus.clone());
        let verdict = match message::from_delivery(message) {
            Ok(stored) => {
                let info = message.info().ok();
                let delivery = Delivery {
                    stored,
                    attempt: info.as_ref().map_or(1, |info| u64::try_from(info.delivered).unwrap_or(1)),
                    pending: info.map_or(0, |info| info.pending),
                };
                self.attend(delivery, &mut lease).await
            }
            Err(error) => {
                let reason = chain(&error);
                tracing::error!(consumer = self.consumer.name, reason, "a message is not readable and is parked");
                Verdict::Park { code: error.code().to_owned(), reason }
            }
        };
        self.execute(verdict, message, &lease).await;
    }

    /// Runs the handler, showing signs of life.
    async fn attend(&self, delivery: Delivery, lease: &mut Lease<'_>) -> Verdict {
        let every = self.options.progress_every;
        let period = every.unwrap_or(Duration::from_secs(1));
        let mut ticks = interval_at(Instant::now() + period, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut verdict = pin!(self.judge(delivery));
        loop {
            tokio::select! {
                biased;
                verdict = &mut verdict => return verdict,
                () = self.hurry.cancelled() => return Verdict::Later(Duration::ZERO),
                _ = ticks.tick(), if every.is_some() => lease.extend().await,
            }
        }
    }

    /// What the handler makes of a message. One that panics would do so again: its message is parked.
    pub(super) async fn judge(&self, delivery: Delivery) -> Verdict {
        let attempt = delivery.attempt;
        let handled = AssertUnwindSafe(async { (self.handler)(delivery).await }).catch_unwind();
        match handled.await {
            Ok(outcome) => fate::judge(outcome, attempt),
            Err(panic) => {
                let reason = panic
                    .downcast_ref::<String>()
                    .map(String::as_str)
                    .or_else(|| panic.downcast_ref::<&str>().copied())
                    .unwrap_or("no reason was given");
                tracing::error!(consumer = self.consumer.name, reason, "a handler panicked");
                Verdict::Park { code: "panic".to_owned(), reason: format!("the handler panicked: {reason}") }
            }
        }
    }

    async fn execute(&self, verdict: Verdict, message: &jetstream::Message, lease: &Lease<'_>) {
        match verdict {
            Verdict::Ack => ack(message, AckKind::Ack).await,
            Verdict::Later(delay) => {
                // A lapsed delivery comes again by itself, and may be in other hands already.
                if !lease.has_lapsed() {
                    nak(message, delay).await;
                }
            }
            Verdict::Abandon => {}
            Verdict::Park { code, reason } => {
                let parked = dead::park(&self.bus, self.consumer.name, message, &code, &reason);
                match parked.await {
                    Ok(()) => {
                        self.say(Check::Green);
                        ack(message, AckKind::Ack).await;
                    }
                    Err(error) => {
                        let reason = chain(&error);
                        self.say(Check::Red(format!("messages can not be parked: {reason}")));
                        tracing::error!(reason, "a message can not be parked now and waits");
                        if !lease.has_lapsed() {
                            nak(message, PARK_AGAIN).await;
                        }
                    }
                }
            }
        }
    }
}

/// For how long a delivery is ours.
struct Lease<'a> {
    message: &'a jetstream::Message,
    bus: Bus,
    wait: Duration,
    until: Instant,
}

impl<'a> Lease<'a> {
    fn new(message: &'a jetstream::Message, consumer: &Durable, bus: Bus) -> Self {
        Self { message, bus, wait: consumer.ack_wait, until: Instant::now() + consumer.ack_wait }
    }

    fn has_lapsed(&self) -> bool {
        Instant::now() > self.until
    }

    /// Shows a sign of life, unless the delivery has lapsed: then it may be somebody else's.
    async fn extend(&mut self) {
        if self.has_lapsed() || !self.bus.is_connected() {
            return;
        }
        let sent_at = Instant::now();
        ack(self.message, AckKind::Progress).await;
        self.until = sent_at + self.wait;
    }
}

pub(super) async fn nak(message: &jetstream::Message, delay: Duration) {
    ack(message, AckKind::Nak(Some(delay).filter(|delay| !delay.is_zero()))).await;
}

async fn ack(message: &jetstream::Message, kind: AckKind) {
    match tokio::time::timeout(ACK_WITHIN, message.ack_with(kind)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(error, "an ack was not sent"),
        Err(_) => tracing::debug!("an ack was not sent in time"),
    }
}

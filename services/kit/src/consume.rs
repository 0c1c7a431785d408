//! The loop that reads a durable consumer: pulls what can be handled, hands it on, and turns the outcome into an ack.
//!
//! Guarantees. No more is pulled than there is room to handle, so nothing ages in a buffer. Every delivery has one
//! fate: acked, naked with a delay, parked on `swarm.dead.<service>` and then acked, or abandoned. Nothing is acked
//! before its handler returned, and nothing is dropped. A delivery that this process let lapse, because it was stopped
//! or cut off for longer than the consumer waits, gets no further sign of life: by then it is somebody else's.
//!
//! The loop outlives the bus, its server and the consumer itself, which its owner makes again when it was deleted.

mod fate;
mod redeliver;
mod work;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

use crate::bus::Bus;
use crate::pull::{Pulled, Puller};
use crate::service::{Context, Health};
use crate::streams::{self, EnsureError};

pub use crate::class::{Classified, ErrorClass};
pub use crate::consumer::{self, Durable};
pub use fate::{Fate, MAX_BACKOFF, backoff};
pub(crate) use redeliver::ask as redeliver_ask;
pub use redeliver::{RedeliverError, Redelivered};
pub use work::Delivery;
use work::Work;

/// How long what is in hand may take after shutdown was asked for. It ends before the process' own grace does, so that
/// what is left is given back and not lost.
const FINISH_WITHIN: Duration = Duration::from_secs(8);

/// Between two tries to make a consumer that is gone.
const RESTORE_EVERY: Duration = Duration::from_secs(1);

/// How a consumer is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many messages are handled at once. 1 keeps the order of the stream, redeliveries excepted.
    pub max_in_flight: usize,
    /// How often a delivery in hand is extended; without it a handler has the consumer's ack wait.
    pub progress_every: Option<Duration>,
}

/// A consumer can not be read.
#[derive(Debug, thiserror::Error)]
#[error("the consumer {consumer} can not be read")]
pub struct ConsumeError {
    /// Which.
    pub consumer: &'static str,
    /// Why.
    #[source]
    pub source: EnsureError,
}

/// Reads `consumer` until `shutdown`, handling each message with `handler`; returns when all in hand is done or given
/// back. Handlers run as tasks of `tracker`.
pub async fn run<H, F, E>(
    bus: Bus,
    consumer: Durable,
    options: Options,
    handler: H,
    shutdown: CancellationToken,
    tracker: TaskTracker,
) -> Result<(), ConsumeError>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    read(bus, consumer, options, handler, shutdown, tracker, None).await
}

/// Starts [`run`] as a vital task of a service, whose health is red while a message can not be parked.
pub fn spawn<H, F, E>(context: &Context, bus: &Bus, consumer: Durable, options: Options, handler: H)
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    let reading = read(
        bus.clone(),
        consumer,
        options,
        handler,
        context.shutdown.clone(),
        context.tasks.clone(),
        Some(context.health.clone()),
    );
    context.spawn_vital(consumer.name, reading);
}

async fn read<H, F, E>(
    bus: Bus,
    consumer: Durable,
    options: Options,
    handler: H,
    shutdown: CancellationToken,
    tracker: TaskTracker,
    health: Option<Health>,
) -> Result<(), ConsumeError>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    let reader = Reader {
        work: Work::new(bus.clone(), consumer, options, handler, health),
        places: Arc::new(Semaphore::new(options.max_in_flight)),
        options,
        tracker,
    };
    restore(&bus, consumer, &shutdown).await?;
    let asked = redeliver::answer(reader.work.clone(), shutdown.clone());
    reader.tracker.spawn(asked.in_current_span());
    let mut puller = Puller::of_durable(&bus, &consumer).await;
    while let Some(message) = reader.next(&mut puller, &shutdown).await {
        match message {
            Next::Message(message, place) => reader.start(message, place),
            Next::Gone => {
                restore(&bus, consumer, &shutdown).await?;
                puller.reset();
            }
        }
    }
    give_back(puller).await;
    reader.finish().await;
    Ok(())
}

struct Reader<H> {
    work: Arc<Work<H>>,
    places: Arc<Semaphore>,
    options: Options,
    tracker: TaskTracker,
}

enum Next {
    Message(Box<jetstream::Message>, OwnedSemaphorePermit),
    Gone,
}

impl<H, F, E> Reader<H>
where
    H: Fn(Delivery) -> F + Send + Sync + 'static,
    F: Future<Output = Result<Fate, E>> + Send + 'static,
    E: Classified + Send + Sync + 'static,
{
    /// The next message, with a place to handle it; none after shutdown.
    async fn next(&self, puller: &mut Puller, shutdown: &CancellationToken) -> Option<Next> {
        loop {
            // A place is held while nothing is in hand for it, so that a message never waits for one.
            let place = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                place = Arc::clone(&self.places).acquire_owned() => place.ok()?,
            };
            let free = self.places.available_permits() + 1;
            let came = tokio::select! {
                biased;
                () = shutdown.cancelled() => return None,
                came = puller.next(free) => came,
                // More room than when it was asked for: let the puller ask for more.
                () = self.more_room(free) => continue,
            };
            match came {
                Pulled::Message(message) => return Some(Next::Message(message, place)),
                Pulled::Idle | Pulled::Cut => {}
                Pulled::Gone => return Some(Next::Gone),
            }
        }
    }

    /// Returns once notably more places are free than `free`.
    async fn more_room(&self, free: usize) {
        let wanted = (2 * free).min(self.options.max_in_flight);
        if wanted <= free {
            return std::future::pending().await;
        }
        // One place is held by the caller.
        let wanted = u32::try_from(wanted - 1).unwrap_or(u32::MAX);
        match self.places.acquire_many(wanted).await {
            Ok(places) => drop(places),
            Err(_) => std::future::pending().await,
        }
    }

    fn start(&self, message: Box<jetstream::Message>, place: OwnedSemaphorePermit) {
        let work = Arc::clone(&self.work);
        let handle = async move {
            work.handle(&message).await;
            drop(place);
        };
        // What it logs is the service's.
        self.tracker.spawn(handle.in_current_span());
    }

    /// Waits for what is in hand, and gives back what takes too long.
    async fn finish(self) {
        let all = u32::try_from(self.options.max_in_flight).unwrap_or(u32::MAX);
        let done = self.places.acquire_many(all);
        if tokio::time::timeout(FINISH_WITHIN, done).await.is_ok() {
            return;
        }
        tracing::warn!(consumer = self.work.consumer().name, "messages in hand took too long and are given back");
        self.work.give_up();
        // Handlers are dropped at their next await, so this is short.
        let _ = tokio::time::timeout(FINISH_WITHIN, self.places.acquire_many(all)).await;
    }
}

/// Makes the consumer when it is not there, for as long as the bus may be away.
async fn restore(bus: &Bus, consumer: Durable, shutdown: &CancellationToken) -> Result<(), ConsumeError> {
    loop {
        let restored = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            restored = streams::restore_consumer(bus, &consumer) => restored,
        };
        match restored {
            Ok(()) => return Ok(()),
            Err(source) if source.class() == ErrorClass::Transient => {
                tracing::warn!(
                    consumer = consumer.name,
                    error = crate::class::chain(&source),
                    "a consumer can not be looked at now"
                );
            }
            Err(source) => {
                return Err(ConsumeError { consumer: consumer.name, source });
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(RESTORE_EVERY) => {}
        }
    }
}

/// What arrived after the last place was given, for somebody else to take at once.
async fn give_back(mut puller: Puller) {
    for message in puller.leave().await {
        work::nak(&message, Duration::ZERO).await;
    }
}

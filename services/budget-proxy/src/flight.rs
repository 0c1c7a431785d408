//! Calls on their way: each runs to its end whoever listens, and everyone who asks for it hears all of it.
//!
//! Consumes a prepared request. Emits the upstream's bytes to every listener, the kept reply, and `swarm.call.<run>`.
//! Idempotency: under one key there is one flight at a time; whoever asks meanwhile joins it, and whoever asks after it
//! has landed gets the kept reply. A call that failed is forgotten before its failure is told, so that it can be tried
//! again. Ordering: a call is kept and on record before its end is told, a failure too, so that what was journaled of it
//! can rely on both; when the bus does not answer the end is told nevertheless, and both follow once it is back. On
//! failure: a flight that is lost within this process is told to its listeners as a broken answer.
//!
//! A flight outlives the epoch that asked for it, for the next one will ask again. The end of its run ends it too.

use std::{pin::pin, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use bytes::Bytes;
use kit::{
    bus::Bus,
    class::chain,
    clock,
    crew::Crew,
    epochs::{EpochError, LiveEpochs},
    service::Context,
    streams,
};
use schemas::RunId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    answer::{self, Fetched},
    bill::{self, Ask, Seen},
    board::{Board, Entry, Place},
    config::Patience,
    failure::Failure,
    meter::Verdict,
    probe::{Point, Probe},
    records::Records,
    refusal::{Kind, Refusal},
    replies::{self, CallKey, Replies, Reply},
    tape::{Head, Listener, Tape, Writer},
    upstream::Ready,
};

/// Calls under way at once, those included whose records wait for the bus: as many as there may be connections.
const MAX_FLIGHTS: usize = kit::http::MAX_CONNECTIONS;

/// Calls of one run at once, so that none takes the place of all others. Agents make a few.
const MAX_FLIGHTS_OF_A_RUN: usize = 64;

/// From this size on a reply is packed on a thread that may block: below, it takes less than a millisecond.
const PACK_APART_FROM_BYTES: usize = 256 * 1024;

/// Between two looks at a run that nobody holds: it may be taken up again, or end.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A call that is asked for.
#[derive(Debug)]
pub struct Boarding {
    /// What its record says.
    pub ask: Ask,
    /// Its name, when its caller gave it one: what has none can not be asked for again, so it is not kept.
    pub key: CallKey,
    /// Whether the caller named it.
    pub named: bool,
    /// The request.
    pub ready: Ready,
    /// Room that the request takes until it is sent.
    pub room: OwnedSemaphorePermit,
}

/// Every call under way in this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    crew: Arc<Crew>,
    epochs: LiveEpochs,
    replies: Replies,
    records: Records,
    patience: Patience,
    probe: Probe,
    context: Context,
    board: Arc<Board>,
    places: Arc<Semaphore>,
}

impl Flights {
    /// No flights yet.
    pub fn new(
        bus: &Bus,
        crew: Arc<Crew>,
        epochs: LiveEpochs,
        replies: Replies,
        patience: Patience,
        probe: Probe,
        context: Context,
    ) -> Self {
        let last = patience.landing + patience.records;
        let shared = Shared {
            crew,
            epochs,
            replies,
            records: Records::new(bus.clone(), context.shutdown.clone(), last),
            patience,
            probe,
            context,
            board: Arc::default(),
            places: Arc::new(Semaphore::new(MAX_FLIGHTS)),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Listens to the call: to the flight that is under way under its key, or to a new one.
    pub fn board(&self, boarding: Boarding) -> Result<Listener, Refusal> {
        let shared = &self.shared;
        if shared.context.shutdown.is_cancelled() {
            return Err(Failure::Ending.refusal());
        }
        if let Some(tape) = shared.board.find(&boarding.key) {
            return Ok(tape.listen());
        }
        let permit = Arc::clone(&shared.places).try_acquire_owned();
        let permit =
            permit.map_err(|_| Refusal::unavailable(format!("there are {MAX_FLIGHTS} calls under way already")))?;
        let (tape, writer) = Tape::new();
        let listener = tape.listen();
        let entry = match shared.board.enter(boarding.key, &tape, MAX_FLIGHTS_OF_A_RUN) {
            Place::Entered(entry) => entry,
            Place::Taken(tape) => return Ok(tape.listen()),
            Place::Full => {
                let message = format!("the run has {MAX_FLIGHTS_OF_A_RUN} calls under way already");
                return Err(Refusal::new(Kind::TooMany, message));
            }
        };
        let own = Arc::clone(shared);
        shared.context.spawn_minor("flight", async move {
            own.fly(boarding, entry, writer).await;
            drop(permit);
        });
        Ok(listener)
    }
}

impl Shared {
    /// The whole of a flight. Dropping `entry` forgets it, and dropping `writer` tells its listeners of a loss.
    async fn fly(&self, boarding: Boarding, entry: Entry, writer: Writer) {
        // Also for a call that can not be repeated: that the bus answers is what allows to forward it.
        match Box::pin(self.replies.get(&boarding.key)).await {
            Ok(Some(reply)) => {
                replay(&reply, &writer);
                return land(entry, writer, Ok(()));
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the call is refused");
                return land(entry, writer, Err(Failure::Unsure));
            }
        }
        let Boarding { ask, key, named, ready, room } = boarding;
        let started_at = clock::now();
        let fetched = self.fetch(&ask, ready, room, &writer).await;
        if !fetched.reached {
            return land(entry, writer, fetched.end);
        }
        self.probe.at(ask.run_id, Point::AfterAnswer);
        let record = bill::record(&ask, &seen(started_at, &fetched, &writer), &self.crew);
        let answered = is_answer(&fetched);
        let reply = if answered && named { Some(packed(&fetched, &writer).await) } else { None };
        let keeping = async {
            if let Some(reply) = reply {
                self.probe.at(ask.run_id, Point::BeforeKeep);
                self.keep(&key, reply).await;
            }
        };
        // In boxes, because a thousand flights are long and their ends short.
        let mut settled = Box::pin(async { tokio::join!(self.records.publish(&record, ask.root_run_id), keeping) });
        if tokio::time::timeout(self.patience.bus, &mut settled).await.is_ok() {
            return land(entry, writer, fetched.end);
        }
        tracing::warn!("the bus does not take what a call came to: its end is told before");
        if answered {
            writer.end(fetched.end);
            // Until it is kept, whoever asks again joins this flight.
            settled.await;
            drop(entry);
        } else {
            land(entry, writer, fetched.end);
            settled.await;
        }
    }

    async fn fetch(&self, ask: &Ask, ready: Ready, room: OwnedSemaphorePermit, writer: &Writer) -> Fetched {
        let cut = pin!(self.must_end(ask));
        let fetched = answer::fetch(ask.api, ask.streamed, ready, &self.patience, writer, cut).await;
        drop(room);
        fetched
    }

    /// Returns when a call must not go on: nobody will ask for what an ended run asked for.
    async fn must_end(&self, ask: &Ask) -> Failure {
        let ending = async {
            self.context.shutdown.cancelled().await;
            tokio::time::sleep(self.patience.landing).await;
        };
        tokio::select! {
            () = self.run_ends(ask.run_id, ask.epoch) => Failure::RunEnded,
            () = ending => Failure::Ending,
        }
    }

    /// Returns once the run has ended, whoever holds it until then.
    async fn run_ends(&self, run: RunId, mut epoch: u64) {
        loop {
            self.epochs.over(run, epoch).await;
            match self.epochs.check(run, epoch, Duration::ZERO).await {
                Err(EpochError::Ended) => return,
                Err(EpochError::Old { current }) => epoch = current,
                _ => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    async fn keep(&self, key: &CallKey, reply: Bytes) {
        tokio::select! {
            biased;
            () = self.replies.keep(key, reply) => {}
            () = self.records.given_up() => {}
            () = tokio::time::sleep(streams::REPLIES_TTL) => {}
        }
    }
}

/// Forgets a flight, then tells its end: whoever hears it and asks again must not meet the same flight.
fn land(entry: Entry, writer: Writer, end: Result<(), Failure>) {
    drop(entry);
    writer.end(end);
}

fn is_answer(fetched: &Fetched) -> bool {
    fetched.end.is_ok()
        && fetched.metered.verdict == Verdict::Complete
        && fetched.status.is_some_and(|status| status.is_success())
}

fn replay(reply: &Reply, writer: &Writer) {
    let mut headers = HeaderMap::new();
    if let Ok(content_type) = HeaderValue::from_str(&reply.content_type) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    writer.head(Head { status: StatusCode::OK, headers, replayed: true });
    writer.push(&reply.body);
}

/// What is kept of an answer.
async fn packed(fetched: &Fetched, writer: &Writer) -> Bytes {
    let content_type = fetched.content_type.clone();
    if writer.len() < PACK_APART_FROM_BYTES {
        return replies::encode(&content_type, &writer.copy());
    }
    let body = writer.copy();
    let packing = tokio::task::spawn_blocking(move || replies::encode(&content_type, &body));
    // It can only panic, and then there is nothing to keep.
    packing.await.unwrap_or_default()
}

fn seen(started_at: jiff::Timestamp, fetched: &Fetched, writer: &Writer) -> Seen {
    Seen {
        started_at,
        status: fetched.status.map(|status| status.as_u16()),
        end: fetched.end,
        metered: fetched.metered.clone(),
        streamed_bytes: fetched.streamed_bytes,
        first_byte_ms: fetched.first_byte.map(millis),
        total_ms: millis(fetched.total),
        heard: writer.listeners() > 0,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

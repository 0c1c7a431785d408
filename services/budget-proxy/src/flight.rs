//! A call on its way: it runs to its end whoever listens, and everyone who asks for it hears all of it.
//!
//! Consumes a prepared request. Emits the upstream's bytes to every listener, the kept reply, then `swarm.call.<run>`.
//! Idempotency: one flight a key at a time; a repeat joins it. On failure: a broken upstream is told to every listener
//! as a cut connection, and nothing is kept. The record is published before the flight is forgotten; while the bus is
//! away it waits, bounded by the process's end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use jiff::Timestamp;
use kit::{
    bus::Bus,
    class::chain,
    clock,
    crew::Crew,
    message::Outgoing,
    service::Context,
    token::Claims,
};
use schemas::{
    Envelope, EventId, Subject,
    call::{CallOutcome, ModelCall},
};
use tokio::sync::watch;

use crate::{
    meter::{Meter, Metered, worst_case},
    replies::{CallKey, Replies, Reply},
    upstream::{Api, Ready},
};

/// An answer above this is cut: no model's answer comes near, and a flight keeps all of it for those who join.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Pause between tries to publish a record while the bus is away.
const RECORD_RETRY: Duration = Duration::from_millis(200);

/// A call as it was asked for.
#[derive(Debug)]
pub struct Ask {
    /// Who asks.
    pub claims: Claims,
    /// Their name for the call.
    pub idempotency_key: String,
    /// The API.
    pub api: Api,
    /// The route asked for.
    pub route: String,
    /// Whether the answer is to be streamed.
    pub streamed: bool,
    /// SHA-256 of the body.
    pub digest: String,
    /// Size of the body in bytes.
    pub input_bytes: usize,
}

/// What listeners of a flight see.
#[derive(Debug, Clone, Default)]
struct Progress {
    head: Option<Head>,
    chunks: Arc<Mutex<Vec<Bytes>>>,
    count: usize,
    end: Option<Landing>,
}

/// Status and content type of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: u16,
    /// Content type.
    pub content_type: String,
    /// `retry-after`, when the upstream sent it.
    pub retry_after: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Landing {
    Whole,
    Broken,
}

/// The upstream broke off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the upstream broke off")]
pub struct Broken;

/// A listener of a flight.
#[derive(Debug, Clone)]
pub struct Listener {
    progress: watch::Receiver<Progress>,
}

impl Listener {
    /// Waits for the answer's head.
    pub async fn head(&mut self) -> Result<Head, Broken> {
        let progress = self.progress.wait_for(|p| p.head.is_some() || p.end.is_some()).await.map_err(|_| Broken)?;
        progress.head.clone().ok_or(Broken)
    }

    /// The answer's bytes from the first on.
    pub fn bytes(self) -> impl Stream<Item = Result<Bytes, Broken>> + Send + 'static {
        stream::try_unfold((self.progress, 0_usize), |(mut progress, next)| async move {
            let seen = progress.wait_for(|p| p.count > next || p.end.is_some()).await.map_err(|_| Broken)?.clone();
            let chunk = seen.chunks.lock().unwrap_or_else(PoisonError::into_inner).get(next).cloned();
            match (chunk, seen.end) {
                (Some(chunk), _) => Ok(Some((chunk, (progress, next + 1)))),
                (None, Some(Landing::Whole)) => Ok(None),
                (None, _) => Err(Broken),
            }
        })
    }
}

/// Every flight of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Flights {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bus: Bus,
    crew: Arc<Crew>,
    replies: Replies,
    context: Context,
    open: Mutex<HashMap<CallKey, watch::Receiver<Progress>>>,
}

/// What became of a call that was asked for.
#[derive(Debug)]
pub enum Boarded {
    /// It is in flight, now or already.
    Flight(Listener),
    /// It landed before.
    Kept(Reply),
}

impl Flights {
    /// No flights yet.
    pub fn new(bus: Bus, crew: Arc<Crew>, replies: Replies, context: Context) -> Self {
        Self { shared: Arc::new(Shared { bus, crew, replies, context, open: Mutex::default() }) }
    }

    /// The flight or kept reply under the call's key, or a new flight of `ready`.
    pub async fn board(&self, ask: Ask, ready: Ready) -> Boarded {
        let key = CallKey::new(ask.claims.run_id, &ask.idempotency_key);
        if let Some(progress) = self.joined(&key) {
            return Boarded::Flight(Listener { progress });
        }
        match self.shared.replies.get(&key).await {
            Ok(Some(reply)) => return Boarded::Kept(reply),
            Ok(None) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "kept replies can not be read: the call is made"),
        }
        Boarded::Flight(Listener { progress: self.start(key, ask, ready) })
    }

    fn joined(&self, key: &CallKey) -> Option<watch::Receiver<Progress>> {
        self.shared.open.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Starts the flight unless somebody else has just started it.
    fn start(&self, key: CallKey, ask: Ask, ready: Ready) -> watch::Receiver<Progress> {
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(progress) = open.get(&key) {
            return progress.clone();
        }
        let (sender, receiver) = watch::channel(Progress::default());
        open.insert(key.clone(), receiver.clone());
        drop(open);
        let shared = Arc::clone(&self.shared);
        self.shared.context.spawn_minor("flight", async move {
            shared.fly(&key, ask, ready, sender).await;
            shared.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
        });
        receiver
    }
}

impl Shared {
    async fn fly(&self, key: &CallKey, ask: Ask, ready: Ready, sender: watch::Sender<Progress>) {
        let started_at = clock::now();
        let (model, rehearsal) = (ready.model.clone(), ready.rehearsal);
        let flown = fly(&ask, ready, &sender).await;
        let answer = joined_bytes(&sender);
        if let Some(head) = flown.head.as_ref().filter(|head| flown.metered.complete && head.status == 200) {
            let reply = Reply { content_type: head.content_type.clone(), body: answer.clone() };
            if let Err(error) = self.replies.put(key, &reply).await {
                tracing::warn!(error = %chain(&error), "the reply can not be kept: a repeat would be paid again");
            }
        }
        // Listeners hear the end only now: whoever has the whole answer can rely on its being kept.
        let landing = if flown.whole { Landing::Whole } else { Landing::Broken };
        sender.send_modify(|progress| progress.end = Some(landing));
        let heard = sender.receiver_count() > 1;
        if flown.head.is_some() {
            let record = self.record(&ask, &flown, &Billing { model, rehearsal, started_at, heard, answer: answer.len() });
            self.publish(&record).await;
        }
    }

    fn record(&self, ask: &Ask, flown: &Flown, billing: &Billing) -> ModelCall {
        let answered = flown.head.as_ref().is_some_and(|head| head.status == 200);
        let (usage, usage_estimated) = match (answered, flown.metered.reported) {
            (true, false) => (worst_case(ask.input_bytes, billing.answer), true),
            (_, _) => (flown.metered.usage, false),
        };
        let day = billing.started_at.to_zoned(self.crew.time_zone.clone()).date();
        let price = self.crew.models.price_of(&billing.model, day);
        let now = clock::now();
        ModelCall {
            run_id: ask.claims.run_id,
            agent: ask.claims.agent.clone(),
            epoch: ask.claims.epoch,
            idempotency_key: ask.idempotency_key.clone(),
            api: ask.api.as_str().to_owned(),
            route: ask.route.clone(),
            model: flown.metered.model.clone().unwrap_or_else(|| billing.model.clone()),
            request_digest: ask.digest.clone(),
            outcome: match () {
                () if !answered => CallOutcome::UpstreamError,
                () if !flown.metered.complete => CallOutcome::UpstreamCut,
                () if !billing.heard => CallOutcome::CallerGone,
                () => CallOutcome::Completed,
            },
            status: flown.head.as_ref().map(|head| head.status),
            usage,
            usage_estimated,
            cost: price.map(|price| price.cost(&usage)),
            price_date: price.map(|price| price.from.to_string()),
            started_at: billing.started_at,
            first_byte_ms: flown.first_byte.map(|at| millis(billing.started_at, at)),
            total_ms: millis(billing.started_at, now),
            rehearsal: billing.rehearsal,
        }
    }

    async fn publish(&self, record: &ModelCall) {
        let id = EventId::new(clock::uuid7().to_string());
        let mut envelope = Envelope::new(id, "model_call", "budget-proxy", clock::now());
        envelope.agent = Some(record.agent.clone());
        let message = match Outgoing::json(Subject::Call(record.run_id), envelope, record) {
            Ok(message) => message,
            Err(error) => return tracing::error!(error = %chain(&error), "a call record can not be written"),
        };
        loop {
            match self.bus.publish(&message).await {
                Ok(_) => return,
                Err(error) => tracing::warn!(error = %chain(&error), "a call record can not be published now"),
            }
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = tokio::time::sleep(RECORD_RETRY) => {}
            }
        }
    }
}

/// What the record needs beside the flight itself.
struct Billing {
    model: String,
    rehearsal: bool,
    started_at: Timestamp,
    heard: bool,
    answer: usize,
}

/// A flight that has ended.
struct Flown {
    head: Option<Head>,
    whole: bool,
    metered: Metered,
    first_byte: Option<Timestamp>,
}

async fn fly(ask: &Ask, ready: Ready, sender: &watch::Sender<Progress>) -> Flown {
    let response = match ready.request.send().await {
        Ok(response) => response,
        Err(error) => {
            tracing::warn!(error = %chain(&error.without_url()), "the upstream can not be reached");
            return Flown { head: None, whole: false, metered: Metered::default(), first_byte: None };
        }
    };
    let head = head(&response);
    sender.send_modify(|progress| progress.head = Some(head.clone()));
    let mut meter = Meter::new(ask.api, ask.streamed && head.content_type.starts_with("text/event-stream"));
    let (mut first_byte, mut bytes, mut whole) = (None, 0, true);
    let mut body = response.bytes_stream();
    while let Some(chunk) = body.next().await {
        let Ok(chunk) = chunk else {
            whole = false;
            break;
        };
        first_byte.get_or_insert_with(clock::now);
        bytes += chunk.len();
        if bytes > MAX_ANSWER_BYTES {
            whole = false;
            break;
        }
        meter.feed(&chunk);
        sender.send_modify(|progress| {
            progress.chunks.lock().unwrap_or_else(PoisonError::into_inner).push(chunk);
            progress.count += 1;
        });
    }
    Flown { head: Some(head), whole, metered: meter.finish(), first_byte }
}

fn head(response: &reqwest::Response) -> Head {
    let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    Head {
        status: response.status().as_u16(),
        content_type: text("content-type").unwrap_or_else(|| "application/json".to_owned()),
        retry_after: text("retry-after"),
    }
}

fn joined_bytes(sender: &watch::Sender<Progress>) -> Bytes {
    let chunks = Arc::clone(&sender.borrow().chunks);
    let chunks = chunks.lock().unwrap_or_else(PoisonError::into_inner);
    chunks.concat().into()
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

//! The same work with a bare client, without what Nightcrew does for it: floors and peers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::{
    HeaderMap,
    jetstream::{
        self, Context,
        consumer::{
            DeliverPolicy,
            pull::{Ordered, OrderedConfig},
        },
    },
};
use futures::{StreamExt as _, future};
use jiff::Timestamp;
use kit::{
    clock,
    for_test::{PROJECT, TestBus},
    identity::{Service, reader_name},
    journal::STREAM,
    message::Outgoing,
};
use schemas::{
    Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Subject, envelope::DECISION_TYPE, event::Started,
    subject::filter,
};
use serde_json::json;

use super::{load, log};
use crate::rig::Rig;

/// Publishes a run's body after `last` and waits for the ack: the least that keeps the run's single writer. `headers` are
/// those that it has besides.
pub(super) async fn publish(
    bare: &Context,
    message: &Outgoing,
    headers: HeaderMap,
    run: RunId,
    last: u64,
) -> anyhow::Result<u64> {
    let headers = expecting(headers, run, last);
    let ack = bare.publish_with_headers(message.subject.to_string(), headers, message.body.clone()).await?;
    Ok(ack.await?.sequence)
}

fn expecting(mut headers: HeaderMap, run: RunId, last: u64) -> HeaderMap {
    headers.insert("Nats-Expected-Last-Subject-Sequence", last.to_string());
    headers.insert("Nats-Expected-Last-Subject-Sequence-Subject", filter::run(run));
    headers
}

/// The headers without which the crew could not read a message.
fn envelope(message: &Outgoing) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in message.envelope.headers() {
        headers.insert(name, value);
    }
    headers
}

/// A small decision of a run.
pub(super) fn decision(run: RunId) -> anyhow::Result<Outgoing> {
    let envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), DECISION_TYPE, "bench", clock::now());
    let started = Started { runner: "bench".to_owned(), harness: "native".to_owned() };
    let decision = Decision { events: vec![RunEvent::Started(started)] };
    Ok(Outgoing::decision(Subject::Journal(run), envelope, &decision)?)
}

/// Messages as large as triggers, which wake nobody.
fn quiet(runs: usize) -> anyhow::Result<Vec<(RunId, Outgoing)>> {
    let project = ProjectId::try_new(PROJECT)?;
    let quiet = |_| {
        let (run, trigger) = load::request(&project)?;
        Ok((run, Outgoing { subject: Subject::Journal(run), ..trigger }))
    };
    (0..runs).map(quiet).collect()
}

/// Publishes `runs` messages as large as triggers in one atomic batch; gives how long it took to be in the log.
pub(super) async fn in_one_batch(bus: &TestBus, runs: usize) -> anyhow::Result<Duration> {
    let client = bus.connect(Service::AgentRunner).await;
    let messages = quiet(runs)?;
    let batch = clock::uuid7().to_string();
    let began = Instant::now();
    for (index, (run, message)) in messages.iter().enumerate() {
        let mut headers = expecting(envelope(message), *run, 0);
        headers.insert("Nats-Batch-Id", batch.as_str());
        headers.insert("Nats-Batch-Sequence", (index + 1).to_string());
        let (subject, body) = (message.subject.to_string(), message.body.clone());
        if index + 1 < runs {
            client.publish_with_headers(subject, headers, body).await?;
        } else {
            headers.insert("Nats-Batch-Commit", "1");
            let answer = client.request_with_headers(subject, headers, body).await?;
            let stored: serde_json::Value = serde_json::from_slice(&answer.payload)?;
            ensure!(stored["seq"].is_u64(), "the batch was not stored: {stored}");
        }
    }
    Ok(began.elapsed())
}

/// Publishes `runs` messages as large as triggers at the same moment; gives how long each took to be in the log.
pub(super) async fn at_once(bus: &TestBus, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let bare = jetstream::new(bus.connect(Service::AgentRunner).await);
    let messages = quiet(runs)?;
    let began = Instant::now();
    let sent = messages.iter().map(|(run, message)| async {
        publish(&bare, message, envelope(message), *run, 0).await?;
        anyhow::Ok(began.elapsed())
    });
    future::try_join_all(sent).await
}

/// Wakes by a trigger, journals one message and asks the model.
pub(super) struct Reader {
    bare: Context,
    triggers: Ordered,
    trigger: Place,
    journal: Place,
    http: reqwest::Client,
    model: String,
}

/// A run and its last sequence.
struct Place {
    run: RunId,
    last: u64,
}

impl Reader {
    /// Reads what comes to a run of its own, which nobody else takes.
    pub(super) async fn start(rig: &Rig) -> anyhow::Result<Self> {
        let bare = jetstream::new(rig.bus.connect(Service::AgentRunner).await);
        let (trigger, journal) = (Place::new(), Place::new());
        let config = OrderedConfig {
            name: Some(reader_name(Service::AgentRunner.name())),
            filter_subject: filter::run(trigger.run),
            deliver_policy: DeliverPolicy::New,
            ..OrderedConfig::default()
        };
        let stream = bare.get_stream_no_info(STREAM).await?;
        let triggers = stream.create_consumer(config).await?.messages().await?;
        let model = format!("{}/v1/messages", rig.rehearsal.url());
        Ok(Self { bare, triggers, trigger, journal, http: reqwest::Client::new(), model })
    }

    /// One trigger and the request that it leads to; gives when the server took the trigger in.
    pub(super) async fn wake(&mut self) -> anyhow::Result<Timestamp> {
        let Self { bare, triggers, trigger, journal, http, model } = self;
        let triggered = async { trigger.publish(bare).await };
        let acted = async {
            let message = triggers.next().await.context("the log ended")??;
            journal.publish(bare).await?;
            let body =
                json!({ "model": "any", "max_tokens": 100, "messages": [{ "role": "user", "content": "Say hello." }] });
            http.post(&*model)
                .header("anthropic-version", "2023-06-01")
                .json(&body)
                .send()
                .await?
                .error_for_status()?
                .bytes()
                .await?;
            log::stored_at(&message)
        };
        let ((), at) = future::try_join(triggered, acted).await?;
        Ok(at)
    }
}

impl Place {
    fn new() -> Self {
        Self { run: RunId::from_uuid(clock::uuid7()), last: 0 }
    }

    async fn publish(&mut self, bare: &Context) -> anyhow::Result<()> {
        let message = decision(self.run)?;
        self.last = publish(bare, &message, envelope(&message), self.run, self.last).await?;
        Ok(())
    }
}

//! The log as a bench follows it: by headers alone, so that looking costs the crew little.

use std::{collections::HashMap, time::Duration};

use anyhow::{Context as _, bail};
use async_nats::jetstream::consumer::{
    DeliverPolicy,
    pull::{Ordered, OrderedConfig},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use kit::{bus::Bus, identity::reader_name, journal::STREAM};
use schemas::{RunId, Subject, envelope::KINDS_HEADER, event::END_KINDS, subject::filter};

/// Follows all runs, and remembers when each first came to which kind of event.
pub(super) struct Follower {
    messages: Ordered,
    first: HashMap<&'static str, HashMap<RunId, Timestamp>>,
}

/// The kinds that benches look for.
const KINDS: [&str; 7] = ["started", "resumed", "model_called", "finished", "failed", "killed", "cancelled"];

impl Follower {
    /// Follows what comes from now on.
    pub(super) async fn start(bus: &Bus) -> anyhow::Result<Self> {
        Self::from(bus, DeliverPolicy::New).await
    }

    /// Follows what came after a sequence.
    pub(super) async fn after(bus: &Bus, sequence: u64) -> anyhow::Result<Self> {
        Self::from(bus, DeliverPolicy::ByStartSequence { start_sequence: sequence + 1 }).await
    }

    async fn from(bus: &Bus, deliver_policy: DeliverPolicy) -> anyhow::Result<Self> {
        let stream = bus.jetstream().get_stream_no_info(STREAM).await?;
        let config = OrderedConfig {
            name: Some(reader_name(bus.service())),
            filter_subject: filter::RUNS.to_owned(),
            headers_only: true,
            deliver_policy,
            ..OrderedConfig::default()
        };
        let messages = stream.create_consumer(config).await?.messages().await?;
        Ok(Self { messages, first: HashMap::new() })
    }

    /// Waits until so many runs came to an event of this kind, and gives when each did. An end of another kind is an
    /// error: what a bench drives ends well.
    pub(super) async fn wait(&mut self, kind: &str, runs: usize) -> anyhow::Result<Vec<Timestamp>> {
        let came = tokio::time::timeout(super::PATIENCE, self.read_until(kind, runs)).await;
        if let Ok(came) = came {
            came?;
        } else {
            bail!("{} of {runs} runs came to `{kind}` in time", self.count(kind));
        }
        Ok(self.first.get(kind).map(|first| first.values().copied().collect()).unwrap_or_default())
    }

    /// How many runs came to an event of this kind.
    pub(super) fn count(&self, kind: &str) -> usize {
        self.first.get(kind).map_or(0, HashMap::len)
    }

    /// Forgets what was seen.
    pub(super) fn forget(&mut self) {
        self.first.clear();
    }

    async fn read_until(&mut self, kind: &str, runs: usize) -> anyhow::Result<()> {
        while self.count(kind) < runs {
            let message = self.messages.next().await.context("the log ended")??;
            let Some(run) = message.subject.parse::<Subject>()?.run_id() else { continue };
            let kinds = message.headers.as_ref().and_then(|headers| headers.get(KINDS_HEADER)).map(ToString::to_string);
            let at = stored_at(&message)?;
            for seen in kinds.unwrap_or_default().split(',') {
                if let Some(known) = KINDS.into_iter().find(|known| *known == seen) {
                    self.first.entry(known).or_default().entry(run).or_insert(at);
                }
                if END_KINDS.contains(&seen) && seen != "finished" {
                    bail!("run {run} should have finished, and has {seen}");
                }
            }
        }
        Ok(())
    }
}

/// When the server took a message in.
pub(super) fn stored_at(message: &async_nats::jetstream::Message) -> anyhow::Result<Timestamp> {
    let info = message.info().map_err(|error| anyhow::anyhow!("a message of the log without its place: {error}"))?;
    Ok(Timestamp::from_nanosecond(info.published.unix_timestamp_nanos())?)
}

/// How long after `from` it was; zero when it was before.
pub(super) fn since(from: Timestamp, at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(from)).unwrap_or_default()
}

//! The log as the demo follows it: every event of every run, as they come.

use anyhow::Context as _;
use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use futures::StreamExt as _;
use kit::{bus::Bus, identity::reader_name};
use schemas::{Decision, RunEvent, RunId, Signal, Subject, call::ModelCall};

use super::{PATIENCE, crew::Crew};

/// An event of a run.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) run_id: RunId,
    pub(crate) agent: Option<String>,
    pub(crate) event: RunEvent,
}

impl Seen {
    /// Whether it is of a run of this agent.
    pub(crate) fn is_of(&self, agent: &str) -> bool {
        self.agent.as_deref() == Some(agent)
    }
}

/// Follows the log and remembers what it saw.
pub(crate) struct Follower {
    messages: Ordered,
    events: Vec<Seen>,
    looked: usize,
    pub(crate) calls: Vec<ModelCall>,
    pub(crate) signals: Vec<(RunId, Signal)>,
}

impl Follower {
    /// Follows from the log's first message.
    pub(crate) async fn start(crew: &Crew) -> anyhow::Result<Self> {
        let bus = Bus::connect(&crew.bus_config()?).await?;
        let stream = bus.jetstream().get_stream_no_info(kit::journal::STREAM).await?;
        let consumer = stream
            .create_consumer(OrderedConfig { name: Some(reader_name(bus.service())), ..OrderedConfig::default() })
            .await?;
        let messages = consumer.messages().await?;
        Ok(Self { messages, events: Vec::new(), looked: 0, calls: Vec::new(), signals: Vec::new() })
    }

    /// Waits for an event that comes after those that were waited for before.
    pub(crate) async fn wait(&mut self, what: &str, wanted: impl Fn(&Seen) -> bool) -> anyhow::Result<Seen> {
        let found = async {
            loop {
                while self.looked < self.events.len() {
                    self.looked += 1;
                    if wanted(&self.events[self.looked - 1]) {
                        return anyhow::Ok(self.events[self.looked - 1].clone());
                    }
                }
                self.read().await?;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.with_context(|| format!("it did not happen in time: {what}"))?
    }

    /// Waits until the channel has what the run said.
    pub(crate) async fn wait_delivered(&mut self, run: RunId) -> anyhow::Result<()> {
        let delivered = async {
            while !self.signals.iter().any(|(of, signal)| *of == run && matches!(signal, Signal::Delivered(_))) {
                self.read().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(PATIENCE, delivered).await.context("the delivery was not journaled in time")?
    }

    /// Everything that was seen so far.
    pub(crate) fn events(&self) -> &[Seen] {
        &self.events
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        let message = self.messages.next().await.context("the log ended")??;
        match message.subject.parse::<Subject>()? {
            Subject::Signal(run, _) => self.signals.push((run, serde_json::from_slice(&message.payload)?)),
            Subject::Call(_) => self.calls.push(serde_json::from_slice(&message.payload)?),
            subject => {
                let Some(run_id) = subject.run_id() else { return Ok(()) };
                let agent = message.headers.as_ref().and_then(|headers| headers.get("ce-agent"));
                let agent = agent.map(|agent| agent.as_str().to_owned());
                let decision: Decision = serde_json::from_slice(&message.payload)?;
                for event in decision.events {
                    self.events.push(Seen { run_id, agent: agent.clone(), event });
                }
            }
        }
        Ok(())
    }
}

//! Stories written into the log of a real nats-server, by those who write there in life.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::SignedDuration;
use kit::bus::Bus;
use kit::for_test::TestBus;
use kit::identity::Service;
use kit::journal::Journal;
use kit::logs::{Limits, LogStore};
use kit::message::Outgoing;
use kit::service::Context;
use kit::streams::{self, StreamOptions};
use run_correlator::{Config, Deps};
use schemas::ids::Token;
use schemas::summary::RunSummary;
use schemas::{Class, Decision, Envelope, EventId, RunEvent, RunId, Signal, Subject};
use serde::{Serialize, de::DeserializeOwned};

use crate::story::{self, Story};

/// What anything may take on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A log, and who writes to it.
pub(crate) struct Log {
    bus: TestBus,
    pub(crate) runner: Bus,
    pub(crate) correlator: Bus,
    pub(crate) cli: Bus,
    proxy: Bus,
    chat: Bus,
    pub(crate) logs: Arc<LogStore>,
}

/// Where the messages of a story are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Written {
    pub(crate) run: RunId,
    pub(crate) first: u64,
    pub(crate) last: u64,
}

impl Log {
    pub(crate) async fn start() -> Self {
        Self::with(StreamOptions::single_node()).await
    }

    pub(crate) async fn with(options: StreamOptions) -> Self {
        let bus = TestBus::start().await;
        let setup = bus.bus(Service::Setup).await;
        streams::ensure(&setup, &options).await.unwrap();
        let logs = LogStore::open(bus.folder().join("logs"), Limits::SHIPPED).unwrap();
        Self {
            runner: bus.bus(Service::AgentRunner).await,
            correlator: bus.bus(Service::RunCorrelator).await,
            cli: bus.bus(Service::Nightcrew).await,
            proxy: bus.bus(Service::BudgetProxy).await,
            chat: bus.bus(Service::ChatBridge).await,
            logs: Arc::new(logs),
            bus,
        }
    }

    /// Writes `story` as the story of `run`, as if it had begun now: whoever reads it looks at the real clock.
    pub(crate) async fn write(&self, run: RunId, story: &Story) -> Written {
        let evidence = &story.evidence;
        let mut written = Written { run, first: 0, last: 0 };
        let mut lines = evidence.lines.clone();
        for line in &mut lines {
            line.run_id = Some(run);
            line.time += since_stories_begin();
        }
        self.logs.writer().append(&lines, kit::clock::now()).unwrap();
        let mut order: Vec<_> = (evidence.journal.iter().map(|m| m.sequence))
            .chain(evidence.signals.iter().map(|m| m.sequence))
            .chain(evidence.calls.iter().map(|m| m.sequence))
            .collect();
        order.sort_unstable();
        for sequence in order {
            if let Some(message) = evidence.journal.iter().find(|m| m.sequence == sequence) {
                let id = own_id(run, &message.id);
                let decision = of_run(run, &message.decision);
                written.last = self.decide(run, written.last, id, &decision).await;
                if written.first == 0 {
                    written.first = written.last;
                }
            } else if let Some(told) = evidence.signals.iter().find(|m| m.sequence == sequence) {
                let mut signal = of_run(run, &told.body);
                match &mut signal {
                    Signal::Delivered(delivered) => delivered.decision_id = own_id(run, &delivered.decision_id),
                    Signal::Undelivered(refused) => refused.decision_id = own_id(run, &refused.decision_id),
                    _ => {}
                }
                self.signal(run, own_id(run, &told.id), &signal).await;
            } else if let Some(told) = evidence.calls.iter().find(|m| m.sequence == sequence) {
                let call = of_run(run, &told.body);
                let id = own_id(run, &told.id);
                let envelope = Envelope::new(id, "model_call", "budget-proxy", kit::clock::now());
                let message = Outgoing::json(Subject::Call(run), envelope, &call).unwrap();
                self.proxy.publish(&message).await.unwrap();
            }
        }
        written
    }

    /// Appends one decision.
    pub(crate) async fn decide(&self, run: RunId, after: u64, id: EventId, decision: &Decision) -> u64 {
        let message = decision_message(run, id, decision);
        Journal::new(&self.runner).append(run, after, message).await.unwrap()
    }

    pub(crate) async fn signal(&self, run: RunId, id: EventId, signal: &Signal) {
        let bus = match signal {
            Signal::Delivered(_) | Signal::Undelivered(_) | Signal::Message(_) => &self.chat,
            _ => &self.runner,
        };
        let name = Token::try_new(signal.kind()).unwrap();
        let envelope = Envelope::new(id, signal.kind(), bus.service(), kit::clock::now());
        let message = Outgoing::json(Subject::Signal(run, name), envelope, signal).unwrap();
        bus.publish(&message).await.unwrap();
    }

    /// Kills the server and starts it again.
    pub(crate) async fn restart_bus(&mut self) {
        self.bus.server().kill().await.unwrap();
        self.bus.server().restart().await.unwrap();
    }

    /// Starts the service; it ends with the context.
    pub(crate) fn serve(&self, config: Config) -> Context {
        let deps = Deps { bus: self.correlator.clone(), logs: Arc::clone(&self.logs) };
        let context = Context::new("run-correlator");
        let serving = run_correlator::run(config, deps, context.clone());
        context.spawn_vital("run-correlator", serving);
        context
    }

    /// The kept value of a run.
    pub(crate) async fn kept(&self, run: RunId) -> Option<Vec<u8>> {
        let store = self.cli.jetstream().get_key_value("runs").await.unwrap();
        let value = store.get(run.to_string()).await.unwrap();
        value.map(|value| value.to_vec())
    }

    /// The kept summary of a run, once it has seen `last`.
    pub(crate) async fn summary(&self, written: Written) -> RunSummary {
        eventually("a summary that is up to date", async || {
            let kept = self.kept(written.run).await?;
            let summary: RunSummary = serde_json::from_slice(&kept).unwrap();
            (summary.last_sequence >= written.last).then_some(summary)
        })
        .await
    }

    /// What is in the log on subjects under `filter`.
    pub(crate) async fn count(&self, filter: &str) -> usize {
        let found = self.cli.scan_all("SWARM", filter, 1).await.unwrap();
        found.len()
    }
}

/// Ends the service, and waits for it.
pub(crate) async fn stop(context: Context) {
    context.begin_shutdown();
    assert!(context.drain(PATIENCE).await, "the service must end");
    assert_eq!(context.ended(), None);
}

/// What `look` finds, as soon as it finds it.
pub(crate) async fn eventually<T>(what: &str, look: impl AsyncFn() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "no {what} within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The message of a decision, on the subject where it belongs.
pub(crate) fn decision_message(run: RunId, id: EventId, decision: &Decision) -> Outgoing {
    let envelope = Envelope::new(id, "decision", "agent-runner", kit::clock::now());
    let mut decision = decision.clone();
    if let Some(RunEvent::Requested(requested)) = decision.events.first_mut() {
        requested.deadline += since_stories_begin();
    }
    let said = |event: &RunEvent| matches!(event, RunEvent::MessageSent(_));
    let subject = if let Some(RunEvent::Requested(requested)) = decision.events.first() {
        Subject::Requested(run, Class::Resident, requested.agent.clone())
    } else if decision.events.iter().any(said) {
        Subject::Say(run, Token::try_new("matrix").unwrap())
    } else {
        Subject::Journal(run)
    };
    Outgoing::decision(subject, envelope, &decision).unwrap()
}

/// What makes a time in a story one in the log: the log is looked at by the real clock.
fn since_stories_begin() -> SignedDuration {
    kit::clock::now().duration_since(story::begin())
}

/// The nth of the runs of a test.
pub(crate) fn run_of(n: u128) -> RunId {
    RunId::from_uuid(uuid::Uuid::from_u128((n << 96) + 0x7000_8000_0000_0000_0000 + n))
}

/// Message ids are unique in the log.
pub(crate) fn own_id(run: RunId, id: &EventId) -> EventId {
    EventId::new(format!("{run}-{id}"))
}

/// The same, said of another run.
fn of_run<T: Serialize + DeserializeOwned>(run: RunId, what: &T) -> T {
    let text = serde_json::to_string(what).unwrap();
    let text = text.replace(&story::run().to_string(), &run.to_string());
    serde_json::from_str(&text).unwrap()
}

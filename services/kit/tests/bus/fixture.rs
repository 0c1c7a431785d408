//! A bus with all its streams, messages to put on it, and conditions to wait for.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use kit::bus::{Bus, BusConfig};
use kit::clock;
use kit::for_test::{PROJECT, TestBus};
use kit::identity::Service;
use kit::message::Outgoing;
use kit::streams::{self, StreamOptions};
use schemas::event::{Killed, Requested, Started, Totals};
use schemas::ids::Token;
use schemas::signal::ByWhom;
use schemas::trigger::Trigger;
use schemas::{AgentName, Class, Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Signal, Subject};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Nothing that is awaited in a test takes this long.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A server whose streams are there.
pub(crate) struct Fixture {
    pub(crate) server: TestBus,
}

impl Fixture {
    pub(crate) async fn start() -> Self {
        Self::with(StreamOptions::single_node()).await
    }

    pub(crate) async fn with(options: StreamOptions) -> Self {
        let fixture = Self { server: TestBus::start().await };
        let setup = fixture.connect(Service::Setup).await;
        streams::ensure(&setup, &options).await.expect("streams");
        fixture
    }

    pub(crate) fn config(&self, service: Service) -> BusConfig {
        config(&self.server.url(), service, self.server.creds(service))
    }

    pub(crate) async fn connect(&self, service: Service) -> Bus {
        let config = self.config(service);
        Bus::connect(&config).await.expect("a connection")
    }

    pub(crate) async fn runner(&self) -> Bus {
        self.connect(Service::AgentRunner).await
    }
}

pub(crate) fn config(url: &str, service: Service, creds: PathBuf) -> BusConfig {
    BusConfig {
        urls: vec![url.to_owned()],
        creds: Some(creds),
        service: service.name().to_owned(),
        project: ProjectId::try_new(PROJECT).expect("a project"),
    }
}

pub(crate) async fn connect(url: &str, service: Service, creds: PathBuf) -> Bus {
    Bus::connect(&config(url, service, creds)).await.expect("a connection")
}

pub(crate) fn new_run() -> RunId {
    RunId::from_uuid(Uuid::now_v7())
}

pub(crate) fn agent() -> AgentName {
    AgentName::try_new("lead").expect("a name")
}

pub(crate) fn token(text: &str) -> Token {
    Token::try_new(text).expect("a token")
}

pub(crate) fn envelope(id: &str) -> Envelope {
    Envelope::new(EventId::new(id), "test", "test", clock::now())
}

fn decided(subject: Subject, id: &str, event: RunEvent) -> Outgoing {
    let decision = Decision { events: vec![event] };
    Outgoing::decision(subject, envelope(id), &decision).expect("a decision")
}

/// The first message of a run; its id derives from the run, as every trigger's does.
pub(crate) fn requested(run: RunId) -> Outgoing {
    let event = RunEvent::Requested(Box::new(Requested {
        project: ProjectId::try_new(PROJECT).expect("a project"),
        agent: agent(),
        class: Class::Resident,
        trigger: Trigger::Command { by: "test".to_owned(), key: run.to_string() },
        rule: "test".to_owned(),
        prompt: "do it".into(),
        context: None,
        reply_to: None,
        parent_run_id: None,
        root_run_id: run,
        depth: 0,
        deadline: clock::now(),
        work: None,
        state: None,
    }));
    let subject = Subject::Requested(run, Class::Resident, agent());
    decided(subject, &format!("{run}/requested"), event)
}

/// Opens an epoch.
pub(crate) fn started(run: RunId, id: &str) -> Outgoing {
    let event = RunEvent::Started(Started { runner: "runner-1".to_owned(), harness: "native".to_owned() });
    decided(Subject::Journal(run), id, event)
}

/// Ends a run.
pub(crate) fn killed(run: RunId, id: &str) -> Outgoing {
    let event =
        RunEvent::Killed(Killed { by: "test".to_owned(), reason: "test".to_owned(), totals: Totals::default() });
    decided(Subject::Journal(run), id, event)
}

/// A signal for a run.
pub(crate) fn cancel(run: RunId, id: &str) -> Outgoing {
    let signal = Signal::Cancel(ByWhom { by: "test".to_owned(), reason: String::new() });
    let subject = Subject::Signal(run, token("cancel"));
    let mut envelope = envelope(id);
    signal.kind().clone_into(&mut envelope.kind);
    Outgoing::json(subject, envelope, &signal).expect("a signal")
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T, F, Fut>(what: &str, mut condition: F) -> T
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// The result of `future`, which must come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(SOON, future).await.unwrap_or_else(|_| panic!("not in time: {what}"))
}

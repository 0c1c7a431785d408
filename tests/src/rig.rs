//! A whole crew in this process, on a real bus and with the real rehearsal model: for tests and benches.
//!
//! Services run as they do in `nightcrew up`. A runner can be dropped and started again, and several can run at once;
//! tests that need a process to kill start `nightcrew service`.

mod told;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context as _, bail};
use jiff::SignedDuration;
use kit::{
    bus::{Bus, BusConfig},
    clock,
    crew::Crew,
    for_test::{TestBus, TestCluster},
    http,
    identity::{Identity, Service},
    journal::Journal,
    message::{Outgoing, Stored},
    service::{Context, Health},
};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, RunEvent, RunId, Subject, Trigger, envelope::DECISION_TYPE,
    event::Requested, trigger::ReplyTo,
};
use tempfile::TempDir;

use crate::process::Spec;

/// How long anything that is waited for may take: a lost runner's run goes on after four seconds, and a busy machine may
/// take many times that for the dozen runners of the crash tests.
pub const PATIENCE: Duration = Duration::from_mins(2);

/// Between two looks at a condition in the log.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The bus of a crew: one server or several.
pub trait Nats {
    /// What a service needs to connect by itself.
    fn bus_config(&self, service: Service) -> BusConfig;

    /// The identity it runs under.
    fn identity(&self) -> &Identity;
}

impl Nats for TestBus {
    fn bus_config(&self, service: Service) -> BusConfig {
        Self::bus_config(self, service)
    }

    fn identity(&self) -> &Identity {
        Self::identity(self)
    }
}

impl Nats for TestCluster {
    fn bus_config(&self, service: Service) -> BusConfig {
        Self::bus_config(self, service)
    }

    fn identity(&self) -> &Identity {
        Self::identity(self)
    }
}

/// A crew without a runner yet.
pub struct Rig<B = TestBus> {
    /// The bus, with streams.
    pub bus: B,
    /// The crew's files.
    pub crew: Arc<Crew>,
    /// The rehearsal model.
    pub rehearsal: rehearsal::Server,
    /// Where budget-proxy listens.
    pub proxy_url: String,
    /// Issuer and proxy.
    pub services: Context,
    /// As the command line.
    pub client: Bus,
    /// The journals, read as the command line.
    pub journal: Journal,
    folder: TempDir,
}

/// A runner in this process.
pub struct Runner {
    context: Context,
}

impl Rig {
    /// A crew that plays `scenario`, with the agents `lead`, `scout` and `coder` and an empty repository.
    pub async fn start(scenario: &str) -> anyhow::Result<Self> {
        Self::start_on(TestBus::with_streams().await, scenario, TEAM).await
    }
}

impl<B: Nats> Rig<B> {
    /// As [`Rig::start`], on a bus and with a `team.yaml` of its own.
    pub async fn start_on(bus: B, scenario: &str, team: &str) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nightcrew-rig-")?;
        let crew = Arc::new(project(folder.path(), team)?);
        let scenario =
            rehearsal::Scenario::parse("scenario.yaml", scenario).map_err(|problems| anyhow::anyhow!("{problems}"))?;
        let rehearsal = rehearsal::Server::start(vec![scenario], SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let services = Context::new("rig");
        let issuer = issuer::Config {
            project: crew.project.clone(),
            key_file: bus.identity().bearer_key_file(),
            max_lifetime: issuer::DEFAULT_MAX_LIFETIME,
        };
        let deps = issuer::Deps { client: connect(&bus, Service::Issuer).await?.client().clone(), now: clock::now };
        let context = services.child("issuer");
        services.spawn_vital("issuer", issuer::run(issuer, deps, context));
        let (listener, address) = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
        let deps = budget_proxy::Deps {
            bus: connect(&bus, Service::BudgetProxy).await?,
            crew: Arc::clone(&crew),
            listener: Arc::new(Mutex::new(Some(listener))),
        };
        let config = budget_proxy::Config { rehearsal_url: Some(rehearsal.url()) };
        let context = services.child("budget-proxy");
        services.spawn_vital("budget-proxy", budget_proxy::run(config, deps, context));
        services.ready();
        tokio::time::timeout(PATIENCE, services.health.until_ready())
            .await
            .context("issuer and proxy are not ready")?;
        let client = connect(&bus, Service::Nightcrew).await?;
        let journal = Journal::new(&client);
        Ok(Self { bus, crew, rehearsal, proxy_url: format!("http://{address}"), services, client, journal, folder })
    }

    /// A folder that lives as long as the rig.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The repository that agents work on.
    pub fn repository(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Starts a runner with its worktrees in `disk`, a folder of the rig.
    pub async fn runner(&self, disk: &str) -> anyhow::Result<Runner> {
        let context = Context::new("agent-runner");
        let bus = connect(&self.bus, Service::AgentRunner).await?;
        let deps = agent_runner::Deps { bus, crew: Arc::clone(&self.crew), logs: None };
        let config = agent_runner::Config {
            runner: clock::uuid7().to_string(),
            proxy_url: self.proxy_url.clone(),
            state_dir: self.folder.path().join(disk),
        };
        context.spawn_vital("run", agent_runner::run(config, deps, context.clone()));
        tokio::time::timeout(PATIENCE, context.health.until_ready()).await.context("the runner is not ready")?;
        Ok(Runner { context })
    }

    /// Starts chat-bridge with the terminal for its only channel: what runs say there is brought to whoever listens.
    pub async fn start_bridge(&self) -> anyhow::Result<()> {
        let mut crew = Crew::clone(&self.crew);
        crew.channels.matrix = None;
        let deps = chat_bridge::Deps { bus: connect(&self.bus, Service::ChatBridge).await?, crew: Arc::new(crew) };
        let config = chat_bridge::Config { folder: self.folder.path().join("chat"), env: kit::config::Env::default() };
        let context = self.services.child("chat-bridge");
        self.services.spawn_vital("chat-bridge", chat_bridge::run(config, deps, context));
        tokio::time::timeout(PATIENCE, self.services.health.until_ready()).await.context("chat-bridge is not ready")
    }

    /// What a runner in a process of its own is told, with its worktrees in `disk`.
    pub fn spec(&self, disk: &str) -> anyhow::Result<Spec> {
        let runner = clock::uuid7().to_string();
        let bus = self.bus.bus_config(Service::AgentRunner);
        Ok(Spec {
            urls: bus.urls,
            creds: bus.creds.context("a test's bus wants credentials")?,
            project: bus.project,
            crew: self.folder.path().to_owned(),
            proxy_url: self.proxy_url.clone(),
            state_dir: self.folder.path().join(disk),
            log: self.folder.path().join(format!("runner-{runner}.log")),
            points: None,
            crash_at: None,
            freeze_at: None,
            runner,
        })
    }

    /// Asks `agent` for something, as a person's bare command; gives the run.
    pub async fn ask(&self, agent: &str, prompt: &str) -> anyhow::Result<RunId> {
        let (run, message) = self.request(agent, prompt, &clock::uuid7().to_string())?;
        self.journal.append(run, 0, message).await?;
        Ok(run)
    }

    /// The first message of a run that a command with `key` asks of `agent`.
    pub fn request(&self, agent: &str, prompt: &str, key: &str) -> anyhow::Result<(RunId, Outgoing)> {
        self.request_with(agent, prompt, key, |_| {})
    }

    fn request_with(
        &self,
        agent: &str,
        prompt: &str,
        key: &str,
        change: impl FnOnce(&mut Requested),
    ) -> anyhow::Result<(RunId, Outgoing)> {
        let agent = AgentName::try_new(agent)?;
        let trigger = Trigger::Command { by: "ada".to_owned(), key: key.to_owned() };
        let run = RunId::derive(&self.crew.project, &trigger, "test", &agent);
        let mut request = Requested {
            project: self.crew.project.clone(),
            agent: agent.clone(),
            class: Class::Resident,
            trigger,
            rule: "test".to_owned(),
            prompt: prompt.into(),
            context: None,
            reply_to: Some(ReplyTo { channel: "terminal".to_owned(), room: "test".to_owned(), thread: None }),
            parent_run_id: None,
            root_run_id: run,
            depth: 0,
            deadline: clock::now().checked_add(SignedDuration::from_mins(30))?,
            work: None,
            state: None,
        };
        change(&mut request);
        let mut envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), DECISION_TYPE, "test", clock::now());
        envelope.run_id = Some(run);
        envelope.root_run_id = Some(run);
        envelope.agent = Some(agent.clone());
        let subject = Subject::Requested(run, Class::Resident, agent);
        let decision = Decision { events: vec![RunEvent::Requested(Box::new(request))] };
        Ok((run, Outgoing::decision(subject, envelope, &decision)?))
    }

    /// The journal of a run, from its first message on.
    pub async fn messages(&self, run: RunId) -> anyhow::Result<Vec<Stored>> {
        let first = self.journal.first(run).await?.context("the run is in the log")?;
        Ok(self.journal.read(run, first.sequence).await?)
    }

    /// The events of a run.
    pub async fn events(&self, run: RunId) -> anyhow::Result<Vec<RunEvent>> {
        let messages = self.messages(run).await?;
        let decisions = messages.iter().map(Stored::decode::<Decision>).collect::<Result<Vec<_>, _>>()?;
        Ok(decisions.into_iter().flat_map(|decision| decision.events).collect())
    }

    /// Waits until the journal of a run holds an event.
    pub async fn wait(&self, run: RunId, wanted: impl Fn(&RunEvent) -> bool) -> anyhow::Result<RunEvent> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            let events = self.events(run).await.unwrap_or_default();
            if let Some(event) = events.iter().find(|event| wanted(event)) {
                return Ok(event.clone());
            }
            if std::time::Instant::now() > deadline {
                let kinds: Vec<&str> = events.iter().map(RunEvent::kind).collect();
                bail!("run {run} did not come so far; it holds {kinds:?}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until `look` gives something.
    pub async fn until<T, F: Future<Output = Option<T>>>(&self, what: &str, look: impl Fn() -> F) -> anyhow::Result<T> {
        let deadline = std::time::Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look().await {
                return Ok(found);
            }
            if std::time::Instant::now() > deadline {
                bail!("not in time: {what}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits for the end of a run.
    pub async fn end(&self, run: RunId) -> anyhow::Result<RunEvent> {
        self.wait(run, RunEvent::is_end).await
    }
}

impl<B> Drop for Rig<B> {
    /// A test that fails leaves what it worked on.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            tracing::error!(folder = %self.folder.path().display(), "the test failed: its folder is kept");
        }
    }
}

impl Runner {
    /// How it is.
    pub const fn health(&self) -> &Health {
        &self.context.health
    }

    /// Ends it in order.
    pub async fn stop(self) {
        self.context.begin_shutdown();
        self.context.drain(kit::service::GRACE).await;
    }
}

async fn connect(bus: &impl Nats, service: Service) -> anyhow::Result<Bus> {
    Ok(Bus::connect(&bus.bus_config(service)).await?)
}

/// A project with the agents of this repository and a repository of one commit.
fn project(dir: &Path, team: &str) -> anyhow::Result<Crew> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    crate::demo::copy_tree(&source.join("agents"), &dir.join("agents"))?;
    if !team.contains("  matrix:") {
        crate::bench::in_the_rooms(&dir.join("agents"), "terminal")?;
    }
    std::fs::copy(source.join("models.yaml"), dir.join("models.yaml"))?;
    std::fs::write(dir.join("team.yaml"), team)?;
    let repository = dir.join("repository");
    std::fs::create_dir_all(&repository)?;
    std::fs::write(repository.join("hello.txt"), "hello\n")?;
    let git = |args: &[&str]| crate::demo::git(&repository, args);
    git(&["init", "--quiet", "--initial-branch", "main"])?;
    git(&["add", "--all"])?;
    git(&["-c", "user.name=ada", "-c", "user.email=ada@test.invalid", "commit", "--quiet", "--message", "Begin"])?;
    Crew::load(dir)
        .map_err(|problems| anyhow::anyhow!(problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")))
}

/// The team of tests: the project's name is that of [`TestBus`].
pub const TEAM: &str = r##"project: test
time_zone: UTC
agents:
  - { name: lead, description: "takes requests, hands work on and answers" }
  - { name: scout, description: "reads and finds" }
  - { name: coder, description: "edits, tests and commits" }
repositories:
  nightcrew: { source: repository, base: main }
channels:
  terminal: { allow: local, agents: [lead, scout, coder], default: lead }
  matrix:
    homeserver: http://127.0.0.1:1
    user: "@nightcrew:nightcrew.test"
    password_file: matrix-password
    allow: ["@ada:nightcrew.test"]
    rooms:
      - { name: crew, alias: "#crew:nightcrew.test", mode: mention, agents: [lead, scout, coder], default: lead }
limits:
  max_steps: 60
  max_handoff_depth: 2
  max_handoffs: 8
  max_repeats: 3
  deadline: 30m
  max_tokens: 2000000
  max_messages_without_human: 20
"##;

//! A bus, a homeserver, a crew's files, a bridge and a runner that answers everything at once.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use chat_bridge::{Config, Deps};
use kit::{
    bus::Bus,
    config::Env,
    consume::{self, Delivery, Fate, Options},
    consumer,
    crew::Crew,
    for_test::TestBus,
    identity::Service,
    journal::{AppendError, Journal, STREAM},
    message::{Outgoing, Stored},
    service::Context,
    streams::{self, StreamOptions},
};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Signal, Subject, Trigger,
    envelope::DECISION_TYPE,
    event::{Finished, Footer, MessageSent, Requested, Totals},
    ids::Token,
    signal::Message,
    subject::filter,
    trigger::ReplyTo,
};

pub(crate) use crate::restarts::Room;
use crate::{
    person::Person,
    process::BridgeProcess,
    synapse::{RateLimits, Synapse},
};

/// Generous: the machine may build something else at the same time.
pub(crate) const WITHIN: Duration = Duration::from_mins(1);

/// Everything but people and rooms.
pub(crate) struct World {
    pub(crate) bus: TestBus,
    pub(crate) synapse: Synapse,
    runner: Option<Context>,
    bridge: Option<Context>,
    password: String,
    /// Where the crew finds the homeserver.
    pub(crate) homeserver: String,
}

impl World {
    pub(crate) async fn new(limits: RateLimits) -> Self {
        Self::with_log(limits, StreamOptions::single_node()).await
    }

    /// A world whose log is of another size.
    pub(crate) async fn with_log(limits: RateLimits, options: StreamOptions) -> Self {
        show_log();
        let (bus, synapse) = tokio::join!(TestBus::start(), Synapse::start_with(limits));
        streams::ensure(&bus.bus(Service::Setup).await, &options).await.unwrap();
        let synapse = synapse.unwrap();
        let password = synapse.register("crew").await.unwrap();
        let homeserver = synapse.url();
        Self { bus, synapse, runner: None, bridge: None, password, homeserver }
    }

    pub(crate) async fn person(&self, name: &str) -> Person {
        let password = self.synapse.register(name).await.unwrap();
        Person::log_in(&self.synapse.url(), name, &password).await.unwrap()
    }

    pub(crate) fn crew_id(&self) -> String {
        self.synapse.user_id("crew")
    }

    /// Writes the project's files: agents `lead`, `scout` and `coder`, of which the last may speak nowhere.
    pub(crate) fn write_project(&self, allow: &[&str], rooms: &[Room]) {
        let folder = self.project();
        std::fs::create_dir_all(&folder).unwrap();
        let mut list = String::new();
        for room in rooms {
            let agents =
                if room.mode == "listen" { "" } else { "\n        agents: [lead, scout]\n        default: lead" };
            write!(
                list,
                "\n      - name: {}\n        id: \"{}\"\n        mode: {}{agents}",
                room.name, room.id, room.mode
            )
            .unwrap();
        }
        let allow: Vec<String> = allow.iter().map(|user| format!("\"{user}\"")).collect();
        let audit = if rooms.iter().any(|room| room.name == "audit") { "\n    audit_room: audit" } else { "" };
        let team = format!(
            "project: {}\ntime_zone: UTC\nagents:\n  - name: lead\n  - name: scout\n  - name: coder\nchannels:\n  \
             terminal:\n    allow: local\n    agents: [lead, scout]\n    default: lead\n  matrix:\n    homeserver: {}\n    \
             user: \"{}\"\n    password_file: password\n    allow: [{}]{audit}\n    rooms:{list}\nlimits:\n  \
             max_steps: 9\n  max_handoff_depth: 2\n  max_handoffs: 6\n  max_repeats: 3\n  deadline: 90m\n  \
             max_tokens: 1000\n  max_messages_without_human: 10\nconsole:\n  run_url: https://console.test/runs/{{run_id}}\n",
            kit::for_test::PROJECT,
            self.homeserver,
            self.crew_id(),
            allow.join(", "),
        );
        let models = "routes:\n  play:\n    provider: rehearsal\n    model: any\n    context_window: 100000\n    max_output_tokens: 4000\n";
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("team.yaml", &team);
        write("models.yaml", models);
        write("password", &self.password);
        let names: Vec<&str> = rooms.iter().filter(|room| room.mode != "listen").map(|room| room.name).collect();
        for agent in ["lead", "scout", "coder"] {
            let rooms =
                if agent == "coder" { "terminal".to_owned() } else { format!("terminal, {}", names.join(", ")) };
            let scope = format!(
                "harness: native\nlifecycle: resident\nmodels: [play]\ntools: [read]\nrooms: [{rooms}]\nrepositories: []\n"
            );
            write(&format!("agents/{agent}/capabilities.yaml"), &scope);
            write(&format!("agents/{agent}/persona.md"), "You help.\n");
        }
    }

    fn project(&self) -> PathBuf {
        self.bus.folder().join("project")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.bus.folder().join("state")
    }

    /// Starts the bridge in this process.
    pub(crate) async fn start_bridge(&mut self) -> Context {
        let bus = self.bus.bus(Service::ChatBridge).await;
        let crew = Arc::new(Crew::load(self.project()).unwrap_or_else(|problems| panic!("{problems:#?}")));
        let config = Config { folder: self.state(), env: Env::default() };
        let context = Context::new("chat-bridge");
        let service = chat_bridge::run(config, Deps { bus, crew }, context.clone());
        context.spawn_vital("service", service);
        self.bridge = Some(context.clone());
        context
    }

    /// Ends the bridge in this process, in order.
    pub(crate) async fn stop_bridge(&mut self) {
        let bridge = self.bridge.take().unwrap();
        bridge.begin_shutdown();
        assert!(bridge.drain(WITHIN).await, "the bridge did not end");
    }

    /// Starts the bridge as a process of its own.
    pub(crate) fn start_bridge_process(&self) -> BridgeProcess {
        BridgeProcess::start(&self.bus.url(), &self.bus.creds(Service::ChatBridge), &self.project(), &self.state())
    }

    /// Starts a runner that answers every request with "answer: " and its prompt. A prompt that begins with `hold` is
    /// never answered.
    pub(crate) async fn start_runner(&mut self) {
        let bus = self.bus.bus(Service::AgentRunner).await;
        let context = Context::new("agent-runner");
        let options = Options { max_in_flight: 16, progress_every: None };
        let journal = Journal::new(&bus);
        consume::spawn(&context, &bus, consumer::RUNNER_WAKE, options, move |delivery: Delivery| {
            let journal = journal.clone();
            async move { answer(&journal, &delivery.stored).await }
        });
        self.runner = Some(context);
    }

    /// Asks `lead` for a run that answers in a room.
    pub(crate) async fn request(&self, channel: &str, room: &str) -> RunId {
        let run = RunId::from_uuid(kit::clock::uuid7());
        let requested = Requested {
            project: ProjectId::try_new(kit::for_test::PROJECT).unwrap(),
            agent: AgentName::try_new("lead").unwrap(),
            class: Class::Resident,
            trigger: Trigger::Command { by: "ada".to_owned(), key: run.to_string() },
            rule: "test".to_owned(),
            prompt: "well?".into(),
            context: None,
            reply_to: Some(ReplyTo { channel: channel.to_owned(), room: room.to_owned(), thread: None }),
            parent_run_id: None,
            root_run_id: run,
            depth: 0,
            deadline: kit::clock::now() + jiff::SignedDuration::from_hours(1),
            work: None,
            state: None,
        };
        let subject = Subject::Requested(run, Class::Resident, requested.agent.clone());
        let event = RunEvent::Requested(Box::new(requested));
        self.append(Service::AgentRunner, subject, run, 0, event).await;
        run
    }

    /// Appends an event to a run and gives its sequence.
    pub(crate) async fn append(&self, who: Service, subject: Subject, run: RunId, after: u64, event: RunEvent) -> u64 {
        let id = EventId::new(kit::clock::uuid7().to_string());
        let envelope = Envelope::new(id, DECISION_TYPE, "test", kit::clock::now());
        let outgoing = Outgoing::decision(subject, envelope, &Decision { events: vec![event] }).unwrap();
        Journal::new(&self.bus.bus(who).await).append(run, after, outgoing).await.unwrap()
    }

    /// Answers a run that is held.
    pub(crate) async fn finish(&self, run: RunId, log: &Log) {
        let request = log.all(STREAM, &filter::run(run)).await.remove(0);
        let decision: Decision = request.decode().unwrap();
        let RunEvent::Requested(requested) = &decision.events[0] else { panic!("no request: {decision:?}") };
        let journal = Journal::new(&self.bus.bus(Service::AgentRunner).await);
        finish(&journal, &request, requested).await.unwrap();
    }

    /// How the bridge in this process is.
    pub(crate) fn bridge_health(&self) -> kit::service::Health {
        self.bridge.as_ref().unwrap().health.clone()
    }

    /// Fills the log to some percent with what concerns nobody, and waits until the bridge knows.
    pub(crate) async fn fill_log(&self, percent: u64) {
        let bus = self.bus.bus(Service::AgentRunner).await;
        let health = self.bridge_health();
        let message = Message { from: "test".to_owned(), text: "x".repeat(32 * 1024).into() };
        let run = RunId::from_uuid(kit::clock::uuid7());
        let mut stream = bus.jetstream().get_stream(STREAM).await.unwrap();
        loop {
            let info = stream.info().await.unwrap();
            if info.state.bytes * 100 > u64::try_from(info.config.max_bytes).unwrap() * percent {
                break;
            }
            let id = EventId::new(kit::clock::uuid7().to_string());
            let envelope = Envelope::new(id, "message", "test", kit::clock::now());
            let subject = Subject::Signal(run, Token::try_new("message").unwrap());
            bus.publish(&Outgoing::json(subject, envelope, &Signal::Message(message.clone())).unwrap()).await.unwrap();
        }
        until("the bridge knows", || async { (!health.is_ready()).then_some(()) }).await;
    }

    /// Takes all signals out of the log, which is what [`World::fill_log`] put there, and waits until the bridge knows.
    pub(crate) async fn empty_log(&self) {
        let bus = self.bus.bus(Service::RunCorrelator).await;
        let stream = bus.jetstream().get_stream_no_info(STREAM).await.unwrap();
        stream.purge().filter(filter::SIGNALS).await.unwrap();
        let health = self.bridge_health();
        until("the bridge knows that there is room", || async { health.is_ready().then_some(()) }).await;
    }

    /// A reader of the log.
    pub(crate) async fn log(&self) -> Log {
        Log { bus: self.bus.bus(Service::RunCorrelator).await }
    }

    /// Waits until the bridge has nothing more to bring into Matrix rooms: what runs said is delivered, and nothing of it
    /// waits or is in hand, so whatever would be sent twice has been.
    pub(crate) async fn wait_until_nothing_is_left_to_send(&self, log: &Log) {
        let bus = self.bus.bus(Service::ChatBridge).await;
        let stream = bus.jetstream().get_stream_no_info(STREAM).await.unwrap();
        let nothing_left = || async {
            let said: BTreeSet<EventId> = log.said().await.into_iter().map(|said| said.envelope.id).collect();
            let delivered = log.signals("delivered").await.into_iter().map(|signal| signal.decode().unwrap());
            let delivered: BTreeSet<EventId> = delivered
                .map(|signal| match signal {
                    Signal::Delivered(delivered) => delivered.decision_id,
                    other => panic!("{other:?} is called delivered"),
                })
                .collect();
            let consumer = stream.consumer_info(consumer::CHAT_MATRIX.name).await.ok()?;
            let idle = consumer.num_pending == 0 && consumer.num_ack_pending == 0;
            (idle && said.is_subset(&delivered)).then_some(())
        };
        until("all that was said is delivered", nothing_left).await;
    }

    /// Ends what runs in this process, in order.
    pub(crate) async fn end(mut self) {
        for context in [self.bridge.take(), self.runner.take()].into_iter().flatten() {
            context.begin_shutdown();
            assert!(context.drain(WITHIN).await, "{} did not end", context.name());
        }
    }
}

/// Shows the log when the test fails, or with `--nocapture`.
pub(crate) fn show_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let filter = filter.unwrap_or_else(|_| "warn,chat_bridge=debug,matrix_sdk::http_client=off".into());
    // Only the first test of a process installs it.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}

async fn answer(journal: &Journal, request: &Stored) -> Result<Fate, AppendError> {
    let decision: Decision = request.decode().unwrap();
    let RunEvent::Requested(requested) = &decision.events[0] else { panic!("no request: {decision:?}") };
    if requested.prompt.preview().starts_with("hold") {
        return Ok(Fate::Ack);
    }
    finish(journal, request, requested).await
}

/// Answers a request with what was asked.
async fn finish(journal: &Journal, request: &Stored, requested: &Requested) -> Result<Fate, AppendError> {
    let run = request.run_id().unwrap();
    let totals = Totals { model_calls: 1, millis: 1500, ..Totals::default() };
    let said = format!("answer: {}", requested.prompt.preview());
    let events = vec![
        RunEvent::MessageSent(MessageSent {
            to: requested.reply_to.clone().unwrap(),
            text: said.clone().into(),
            footer: Footer { agent: requested.agent.clone(), run_id: run, totals, rehearsal: true },
        }),
        RunEvent::Finished(Finished { answer: said.into(), totals }),
    ];
    let id = request.envelope.id.derive("answer");
    let envelope = Envelope::new(id, DECISION_TYPE, "test", kit::clock::now());
    let channel = Token::try_new(requested.reply_to.as_ref().unwrap().channel.clone()).unwrap();
    let outgoing = Outgoing::decision(Subject::Say(run, channel), envelope, &Decision { events }).unwrap();
    match journal.append(run, request.sequence, outgoing).await {
        Ok(_) | Err(AppendError::Conflict { .. }) => Ok(Fate::Ack),
        Err(error) => Err(error),
    }
}

/// Reads the log as `run-correlator` may.
pub(crate) struct Log {
    bus: Bus,
}

impl Log {
    /// The bus that it is read over.
    pub(crate) const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// What is stored under a filter, in order.
    pub(crate) async fn all(&self, stream: &str, filter: &str) -> Vec<Stored> {
        let page = self.bus.scan_all(stream, filter, 1).await.unwrap();
        page.iter().map(|message| message.stored().unwrap()).collect()
    }

    /// Every run that was requested.
    pub(crate) async fn runs(&self) -> BTreeMap<RunId, Requested> {
        let mut runs = BTreeMap::new();
        for stored in self.all(STREAM, filter::RUNS).await {
            if !stored.has("requested") {
                continue;
            }
            let decision: Decision = stored.decode().unwrap();
            for event in decision.events {
                if let RunEvent::Requested(requested) = event {
                    let earlier = runs.insert(stored.run_id().unwrap(), *requested);
                    assert!(earlier.is_none(), "a run was requested twice");
                }
            }
        }
        runs
    }

    /// What runs said in Matrix rooms.
    pub(crate) async fn said(&self) -> Vec<Stored> {
        self.all(STREAM, &filter::say(&Token::try_new("matrix").unwrap())).await
    }

    /// Every signal of a kind.
    pub(crate) async fn signals(&self, kind: &str) -> Vec<Stored> {
        let all = self.all(STREAM, filter::SIGNALS).await;
        all.into_iter().filter(|stored| stored.envelope.kind == kind).collect()
    }
}

/// Waits until `look` gives something.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = tokio::time::Instant::now() + WITHIN;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

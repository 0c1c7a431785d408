//! A project folder, a real bus, and the built program in it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kit::{
    bus::Bus,
    for_test::TestBus,
    identity::Service,
    journal::Journal,
    logs::{Limits, LogStore},
    message::Outgoing,
    streams::{self, StreamOptions},
};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Signal, Subject, Trigger,
    event::{Finished, MessageSent, Requested, Started, Totals},
    ids::Token,
    trigger::ReplyTo,
};
use tempfile::TempDir;
use uuid::Uuid;

const TEAM: &str = "\
project: test
time_zone: UTC
agents:
  - name: lead
    description: takes requests and answers
  - name: scout
    description: finds causes
channels:
  terminal:
    allow: local
    agents: [lead, scout]
    default: lead
limits:
  max_steps: 10
  max_handoff_depth: 2
  max_handoffs: 4
  max_repeats: 3
  deadline: 1h
  max_tokens: 100000
  max_messages_without_human: 20
";

const MODELS: &str = "\
routes:
  play:
    provider: rehearsal
    model: rehearsal
    context_window: 100000
    max_output_tokens: 4000
    unpriced: true
";

const CAPABILITIES: &str = "\
lifecycle: resident
harness: native
models: [play]
rooms: [terminal]
repositories: []
tools: []
";

/// What the program did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Done {
    /// Standard output as JSON of a type.
    pub(crate) fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that it went well, and gives standard output.
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, 0, "{self:?}");
        self.out
    }
}

/// A project folder, and the program in it.
pub(crate) struct Folder {
    pub(crate) dir: TempDir,
    env: Vec<(&'static str, PathBuf)>,
}

impl Folder {
    /// One whose files are in order.
    pub(crate) fn new() -> Self {
        let dir = TempDir::with_prefix("nightcrew-cli-").unwrap();
        let write = |path: &str, text: &str| {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("team.yaml", TEAM);
        write("models.yaml", MODELS);
        for agent in ["lead", "scout"] {
            write(&format!("agents/{agent}/persona.md"), "You are careful.");
            write(&format!("agents/{agent}/capabilities.yaml"), CAPABILITIES);
        }
        Self { dir, env: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    fn state(&self) -> PathBuf {
        self.path().join("state")
    }

    /// Where log lines are kept.
    pub(crate) fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }

    /// The program with its environment, about to be run.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nightcrew"));
        let keep = ["PATH", "NIGHTCREW_NATS_SERVER", "LD_LIBRARY_PATH"];
        let kept = keep.into_iter().filter_map(|name| Some((name, std::env::var_os(name)?)));
        command
            .args(args)
            .env_clear()
            .envs(kept)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("HOME", self.path())
            .env("USER", "ada")
            .env("NIGHTCREW_STATE_DIR", self.state())
            .current_dir(self.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, args: &[&str]) -> Done {
        let output = self.command(args).output().unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A project folder whose crew's bus is up.
pub(crate) struct Crew {
    pub(crate) folder: Folder,
    pub(crate) bus: TestBus,
    pub(crate) runner: Bus,
    pub(crate) chat: Bus,
}

impl Crew {
    pub(crate) async fn start() -> Self {
        Self::with(StreamOptions::single_node()).await
    }

    /// One whose log is of another size.
    pub(crate) async fn with(options: StreamOptions) -> Self {
        let bus = TestBus::start().await;
        streams::ensure(&bus.bus(Service::Setup).await, &options).await.unwrap();
        let mut folder = Folder::new();
        // As the services on this machine would keep their log lines.
        LogStore::open(folder.logs(), Limits::SHIPPED).unwrap();
        folder.env.push(("NIGHTCREW_NATS_URL", bus.url().into()));
        folder.env.push(("NIGHTCREW_NATS_CREDS", bus.creds(Service::Nightcrew)));
        let runner = bus.bus(Service::AgentRunner).await;
        let chat = bus.bus(Service::ChatBridge).await;
        Self { folder, bus, runner, chat }
    }

    /// Runs the program to its end, while this test goes on serving the bus.
    pub(crate) async fn run(&self, args: &[&str]) -> Done {
        let mut command = self.folder.command(args);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Makes the summaries of all runs.
    pub(crate) async fn summarise(&self) {
        run_correlator::rebuild(&self.bus.bus(Service::Nightcrew).await).await.unwrap();
    }

    /// Appends what `story` says to a run; gives the sequence of its last message.
    pub(crate) async fn write(&self, story: &Story) -> u64 {
        let mut last = 0;
        for (n, (subject, events)) in story.messages.iter().enumerate() {
            let id = EventId::new(story.run.to_string()).derive(&n.to_string());
            let envelope = Envelope::new(id, "decision", "agent-runner", kit::clock::now());
            let decision = Decision { events: events.clone() };
            let outgoing = Outgoing::decision(subject.clone(), envelope, &decision).unwrap();
            last = Journal::new(&self.runner).append(story.run, last, outgoing).await.unwrap();
        }
        last
    }

    /// Publishes a signal for a run.
    pub(crate) async fn signal(&self, run: RunId, signal: &Signal) {
        let subject = Subject::Signal(run, Token::try_new(signal.kind()).unwrap());
        let id = EventId::new(kit::clock::uuid7().to_string());
        let envelope = Envelope::new(id, signal.kind(), "chat-bridge", kit::clock::now());
        self.chat.publish(&Outgoing::json(subject, envelope, signal).unwrap()).await.unwrap();
    }
}

/// What a run's journal holds, message by message.
pub(crate) struct Story {
    pub(crate) run: RunId,
    messages: Vec<(Subject, Vec<RunEvent>)>,
}

impl Story {
    /// A run that somebody at a terminal asked for.
    pub(crate) fn asked(number: u128, agent: &str, prompt: &str) -> Self {
        let run = run(number);
        let agent = AgentName::try_new(agent).unwrap();
        let requested = Requested {
            project: ProjectId::try_new("test").unwrap(),
            agent: agent.clone(),
            class: Class::Resident,
            trigger: Trigger::Chat {
                channel: "terminal".to_owned(),
                room: "terminal-1".to_owned(),
                event_id: number.to_string(),
                sender: "ada".to_owned(),
            },
            rule: "mention".to_owned(),
            prompt: prompt.into(),
            context: None,
            reply_to: Some(reply_to()),
            parent_run_id: None,
            root_run_id: run,
            depth: 0,
            deadline: kit::clock::now() + jiff::SignedDuration::from_hours(1),
            work: None,
            state: None,
        };
        let subject = Subject::Requested(run, Class::Resident, agent);
        Self { run, messages: vec![(subject, vec![RunEvent::Requested(Box::new(requested))])] }
    }

    /// A runner takes it.
    pub(crate) fn started(mut self) -> Self {
        let started = Started { runner: "r1".to_owned(), harness: "native".to_owned() };
        self.messages.push((Subject::Journal(self.run), vec![RunEvent::Started(started)]));
        self
    }

    /// It ends without a word to anybody.
    pub(crate) fn finished(mut self, answer: &str) -> Self {
        let finished = Finished { answer: answer.into(), totals: totals() };
        self.messages.push((Subject::Journal(self.run), vec![RunEvent::Finished(finished)]));
        self
    }

    /// It ends with an answer to the terminal.
    pub(crate) fn answered(mut self, answer: &str) -> Self {
        let sent = MessageSent {
            to: reply_to(),
            text: answer.into(),
            footer: schemas::event::Footer {
                agent: AgentName::try_new("lead").unwrap(),
                run_id: self.run,
                totals: totals(),
                rehearsal: true,
            },
        };
        let finished = Finished { answer: answer.into(), totals: totals() };
        let subject = Subject::Say(self.run, Token::try_new("terminal").unwrap());
        self.messages.push((subject, vec![RunEvent::MessageSent(sent), RunEvent::Finished(finished)]));
        self
    }

    /// Something else happens.
    pub(crate) fn then(mut self, event: RunEvent) -> Self {
        self.messages.push((Subject::Journal(self.run), vec![event]));
        self
    }

    /// The `ce-id` of its last message.
    pub(crate) fn last_id(&self) -> EventId {
        EventId::new(self.run.to_string()).derive(&(self.messages.len() - 1).to_string())
    }
}

fn reply_to() -> ReplyTo {
    ReplyTo { channel: "terminal".to_owned(), room: "terminal-1".to_owned(), thread: None }
}

fn totals() -> Totals {
    Totals { model_calls: 2, tool_calls: 1, millis: 1234, ..Totals::default() }
}

/// The run with a number.
pub(crate) const fn run(number: u128) -> RunId {
    RunId::from_uuid(Uuid::from_u128(0x1000_0000_0000_4000_8000_0000_0000_0000_u128 + (number << 96) + number))
}

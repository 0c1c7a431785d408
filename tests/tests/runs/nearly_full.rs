//! The log nearly full, with every service that has a part in it: from 60 % ended runs go into archives; from 80 % new
//! runs are refused, with a reason in the room and red health, and runs in hand end; nothing is lost, and the trigger of
//! an archived run starts nothing.

use std::{sync::Arc, time::Duration};

use chat_bridge::adapters::terminal::Session;
use futures::future;
use jiff::SignedDuration;
use kit::{
    clock,
    config::Env,
    fill::REFUSE_AT_PERCENT,
    for_test::TestBus,
    identity::Service,
    journal::STREAM,
    logs::{Limits, LogStore},
    service::{self, Context},
    streams::{self, StreamOptions},
};
use nightcrew_tests::rig::{PATIENCE, Rig, Runner, TEAM};
use run_correlator::ArchivePolicy;
use schemas::{
    RunEvent, RunId,
    subject::filter,
    timeline::{Entry, Source},
};
use uuid::Uuid;

use crate::full;

/// Room of the log.
const LOG_BYTES: u64 = 4 << 20;

/// Bytes of an answer. It stands in the journal three times: as the model gave it, as it was said, as the run's end.
const ANSWER_BYTES: usize = 24 * 1024;

/// Runs that are done one after the other, some at once: together they write more than the log holds.
const BATCHES: usize = 12;
const AT_ONCE: usize = 5;

/// Archives as it is shipped, without the time for which an ended run stays, and looking often.
const POLICY: ArchivePolicy =
    ArchivePolicy { settled: SignedDuration::ZERO, every: Duration::from_millis(200), ..ArchivePolicy::SHIPPED };

fn scenario() -> String {
    let long = "x".repeat(ANSWER_BYTES);
    format!(
        "
name: full
rules:
  - name: is-held
    when: {{last_user: 'case held', step: 1}}
    gate: hand
    reply:
      text: I look.
      tools: [{{name: read, arguments: {{path: hello.txt}}}}]
  - name: ends
    when: {{last_user: 'case held', step: 2}}
    reply: {{text: It was in hand.}}
  - name: answers
    reply: {{text: '{long}'}}
"
    )
}

/// A crew that can be talked to, on a small log.
struct Crew {
    rig: Rig,
    chat: Context,
    correlator: Context,
    logs: Arc<LogStore>,
    _runner: Runner,
}

impl Crew {
    async fn start() -> Self {
        let bus = TestBus::start().await;
        let options = StreamOptions { swarm_max_bytes: LOG_BYTES, ..StreamOptions::single_node() };
        streams::ensure(&bus.bus(Service::Setup).await, &options).await.expect("streams");
        let (before, rest) = TEAM.split_once("  matrix:\n").expect("a team has rooms");
        let (_, limits) = rest.split_once("limits:").expect("a team has limits");
        let team = format!("{before}limits:{limits}");
        let rig = Rig::start_on(bus, &scenario(), &team).await.expect("a crew");
        let runner = rig.runner("disk").await.expect("a runner");

        let chat = Context::new("chat-bridge");
        let deps = chat_bridge::Deps { bus: rig.bus.bus(Service::ChatBridge).await, crew: Arc::clone(&rig.crew) };
        let config = chat_bridge::Config { folder: rig.folder().join("chat"), env: Env::default() };
        chat.spawn_vital("chat-bridge", chat_bridge::run(config, deps, chat.clone()));

        let logs = Arc::new(LogStore::open(rig.folder().join("logs"), Limits::SHIPPED).expect("a store"));
        let correlator = Context::new("run-correlator");
        let deps = run_correlator::Deps { bus: rig.bus.bus(Service::RunCorrelator).await, logs: Arc::clone(&logs) };
        let config = run_correlator::Config { archive: POLICY };
        correlator.spawn_vital("run-correlator", run_correlator::run(config, deps, correlator.clone()));
        for context in [&chat, &correlator] {
            tokio::time::timeout(PATIENCE, context.health.until_ready()).await.expect("a service is ready in time");
        }
        Self { rig, chat, correlator, logs, _runner: runner }
    }

    /// Says something in a session of its own; gives the runs that it belongs to.
    async fn say(&self, session: Uuid, message: Uuid, text: &str) -> (Session, Vec<RunId>) {
        let mut open = Session::open(&self.rig.client, session).await.expect("a session");
        let said = open.say(message, "ada", text, clock::now()).await.expect("an answer of the bridge");
        (open, said.into_iter().map(|started| started.run_id).collect())
    }

    /// Says something and waits for the answer to it.
    async fn ask(&self, text: &str) -> Asked {
        let (session, message) = (clock::uuid7(), clock::uuid7());
        let (mut open, runs) = self.say(session, message, text).await;
        assert_eq!(runs.len(), 1, "one run, not {runs:?}");
        let run = runs[0];
        let said = tokio::time::timeout(PATIENCE, open.next()).await.expect("an answer in time").expect("an answer");
        assert_eq!(said.run_id, Some(run), "{}", said.text);
        Asked { run, session, message }
    }

    /// Waits until less than `percent` of the room is taken.
    async fn until_below(&self, percent: u64) {
        let below = || async { (full::percent(&self.rig.client).await.ok()? < percent).then_some(()) };
        self.rig.until("room in the log", below).await.expect("ended runs are archived");
    }

    /// Fills the log with what no archive takes until runs are archived, and until none is left that could be: then the
    /// log stays as full as it is filled.
    async fn fill(&self, ended: &[Asked]) {
        let bus = self.rig.bus.bus(Service::AgentRunner).await;
        for Asked { run, .. } in ended {
            let archived = || async {
                full::fill(&bus, POLICY.from_percent + 1).await.expect("a log that is filled");
                self.is_archived(*run).await.then_some(())
            };
            self.rig.until("an archive", archived).await.expect("every ended run is archived");
        }
        full::fill(&bus, REFUSE_AT_PERCENT + 1).await.expect("a log that is filled");
    }

    /// Waits until the bridge's health is as `red` says for the log.
    async fn log_is(&self, red: bool) {
        let health = || async { (self.log_problem().is_some() == red).then_some(()) };
        self.rig.until("the bridge's health", health).await.expect("it is seen");
    }

    fn log_problem(&self) -> Option<String> {
        self.chat.health.report().problems().into_iter().find(|problem| problem.contains("the log is"))
    }

    async fn is_archived(&self, run: RunId) -> bool {
        self.rig.journal.first(run).await.expect("the log").is_some_and(|first| first.has("archived"))
    }

    /// Everything that a run came to is told, whether it is in the log or in an archive.
    async fn is_told(&self, run: RunId) {
        let answered = || async {
            let timeline = run_correlator::timeline(&self.rig.client, &self.logs, run, true).await.expect("a timeline");
            // Whoever hears an answer does so before the log has that it was heard.
            let delivered = |entry: &Entry| (entry.source, entry.kind.as_str()) == (Source::Signal, "delivered");
            timeline.entries.iter().any(delivered).then_some(timeline)
        };
        let timeline = self.rig.until("a delivered answer", answered).await.expect("it is delivered");
        assert!(timeline.is_complete(), "run {run}: {:?}", timeline.gaps);
        let kinds: Vec<(Source, &str)> =
            timeline.entries.iter().map(|entry| (entry.source, entry.kind.as_str())).collect();
        for kind in ["requested", "started", "model_called", "model_replied", "message_sent", "finished"] {
            let times = kinds.iter().filter(|entry| **entry == (Source::Journal, kind)).count();
            let model = usize::from(timeline.summary.totals.model_calls == 2 && kind.starts_with("model_"));
            assert_eq!(times, 1 + model, "run {run}: {kind} in {kinds:?}");
        }
        assert!(kinds.iter().any(|(source, _)| *source == Source::Call), "run {run}: {kinds:?}");
    }

    async fn end(self) {
        for context in [self.chat, self.correlator] {
            context.begin_shutdown();
            assert!(context.drain(service::GRACE).await, "{} did not end", context.name());
        }
    }
}

/// A run, and the message that started it.
struct Asked {
    run: RunId,
    session: Uuid,
    message: Uuid,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_fills_up_makes_room_and_then_refuses_new_runs_only() {
    let crew = Crew::start().await;
    let mut asked = Vec::new();
    for batch in 0..BATCHES {
        let some = (0..AT_ONCE).map(|n| crew.ask(if n == 0 { "Answer." } else { "Answer, please." }));
        asked.extend(future::join_all(some).await);
        crew.until_below(POLICY.from_percent).await;
        assert_eq!(crew.log_problem(), None, "batch {batch}");
    }
    let first = &asked[0];
    assert!(crew.is_archived(first.run).await, "the oldest run is archived");
    for Asked { run, .. } in &asked {
        crew.is_told(*run).await;
    }
    starts_nothing(&crew, first).await;

    let in_hand = clock::uuid7();
    let (mut session, held) = crew.say(clock::uuid7(), in_hand, "The case held.").await;
    crew.rig.wait(held[0], |event| matches!(event, RunEvent::ModelCalled(_))).await.expect("a run in hand");
    crew.fill(&asked).await;
    crew.log_is(true).await;
    refuses(&crew).await;

    crew.rig.rehearsal.open_gate("hand").expect("a gate");
    let said = tokio::time::timeout(PATIENCE, session.next()).await.expect("an answer in time").expect("an answer");
    assert!(said.run_id == Some(held[0]) && said.text.starts_with("It was in hand."), "{said:?}");
    starts_nothing(&crew, first).await;

    let purger = crew.rig.bus.bus(Service::RunCorrelator).await;
    let stream = purger.jetstream().get_stream(STREAM).await.expect("the stream");
    stream.purge().filter(filter::EVENTS).await.expect("old facts leave the log");
    crew.log_is(false).await;
    asked.push(crew.ask("Answer.").await);
    for run in asked.iter().map(|asked| asked.run).chain(held) {
        crew.is_told(run).await;
    }
    crew.end().await;
}

/// A new run is refused in the room, with the reason.
async fn refuses(crew: &Crew) {
    let before = last_sequence(crew).await;
    let (mut session, runs) = crew.say(clock::uuid7(), clock::uuid7(), "Answer.").await;
    assert_eq!(runs, [], "nothing is started");
    let said = tokio::time::timeout(PATIENCE, session.next()).await.expect("an answer in time").expect("an answer");
    assert!(said.run_id.is_none() && said.text.contains("new runs are refused from 80 % on"), "{said:?}");
    assert_eq!(requested_after(crew, before).await, 0);
}

/// The trigger of an archived run is said again: it is the same run, and nothing happens.
async fn starts_nothing(crew: &Crew, archived: &Asked) {
    let before = last_sequence(crew).await;
    let (_session, runs) = crew.say(archived.session, archived.message, "Answer.").await;
    assert!(runs.is_empty() || runs == [archived.run], "{runs:?}");
    assert_eq!(requested_after(crew, before).await, 0);
    let known = crew.rig.journal.read(archived.run, 1).await.expect("the log");
    assert_eq!(known.len(), 1, "the archive alone");
}

/// How many runs were requested since.
async fn requested_after(crew: &Crew, sequence: u64) -> usize {
    crew.rig.client.scan_all(STREAM, filter::ALL_REQUESTED, sequence + 1).await.expect("the log").len()
}

async fn last_sequence(crew: &Crew) -> u64 {
    let stream = crew.rig.client.jetstream().get_stream(STREAM).await.expect("the stream");
    stream.cached_info().state.last_sequence
}

//! What a holder decides may be too much for a message of the journal. What can be told in several goes on; what can not
//! ends its run, and everybody is told who must be.

use agent_runner::{
    hold::Held,
    probe::Probe,
    run::{Command, End, next::Asked},
    wake,
};
use jiff::Timestamp;
use kit::{
    clock,
    for_test::{self, TestBus},
    identity::Service,
    journal::{Appender, Journal},
    message::{Outgoing, Stored},
    service::Context,
};
use schemas::{
    AgentName, Block, Decision, Envelope, EventId, RunEvent, RunId, Subject, Usage,
    envelope::DECISION_TYPE,
    event::{ContextLoaded, FailReason, Failed, HandedOff, ModelCalled, ModelReplied, Requested, StopReason},
    signal::ByWhom,
    trigger::ReplyTo,
};

/// More than a message may have.
const TOO_LARGE: usize = 1_200_000;

/// More than half of that: an answer and the call that it asks for do not fit into one message.
const LARGE: usize = 600_000;

/// A run at its model call.
struct Stage {
    held: Held,
    journal: Journal,
    run: RunId,
    context: Context,
    _bus: TestBus,
}

impl Stage {
    async fn start() -> Self {
        let server = TestBus::with_streams().await;
        let bus = server.bus(Service::AgentRunner).await;
        let journal = Journal::new(&bus);
        let (run, request) = for_test::request("coder");
        let reply_to = Some(ReplyTo { channel: "terminal".into(), room: "test".into(), thread: None });
        let envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), DECISION_TYPE, "test", clock::now());
        let subject = Subject::Requested(run, request.class, request.agent.clone());
        let first = for_test::first(Requested { reply_to, ..request });
        journal.append(run, 0, Outgoing::decision(subject, envelope, &first).unwrap()).await.unwrap();
        let state = wake::fold(run, &journal.read(run, 1).await.unwrap()).unwrap();
        let context = Context::new("test");
        let appender = Appender::start(journal.clone(), &context);
        let mut held = Held::new(state, appender, Probe::default(), context.shutdown.clone());
        held.decide(Command::Take { runner: "r".into(), harness: "native".into() }).unwrap();
        let loaded = ContextLoaded { model: "m".into(), context_window: 9, system: "s".into(), tools: vec![] };
        held.decide(Command::LoadContext(loaded)).unwrap();
        let called = ModelCalled { step: 1, attempt: 1, model: "m".into(), input_estimate: 1, dropped_messages: 0 };
        held.decide(Command::CallModel(called)).unwrap();
        held.flush().await.unwrap();
        Self { held, journal, run, context, _bus: server }
    }

    /// The model answers.
    fn reply(&mut self, content: Vec<Block>) {
        let usage = Usage { input_tokens: 10, output_tokens: 20, ..Usage::default() };
        let (model, stop) = ("m".into(), StopReason::EndTurn);
        let reply = ModelReplied { step: 1, model, content, stop, usage, cost: None, estimated: false, millis: 1 };
        self.held.decide(Command::Reply(reply)).unwrap();
    }

    fn call(&mut self, call_id: &str, tool: &str, bytes: usize) {
        let asked = Asked { call_id: call_id.into(), tool: tool.into(), arguments: arguments(bytes) };
        self.held.decide(Command::CallTool { asked, idempotent: true }).unwrap();
    }

    /// The decisions after those of the start.
    async fn since(&self) -> Vec<Stored> {
        self.journal.read(self.run, 1).await.unwrap().split_off(2)
    }

    async fn end(self) {
        self.context.begin_shutdown();
        assert!(self.context.drain(kit::service::GRACE).await);
    }
}

fn arguments(bytes: usize) -> serde_json::Value {
    serde_json::json!({ "content": "x".repeat(bytes) })
}

fn tool_use(id: &str, name: &str, bytes: usize) -> Block {
    Block::ToolUse { id: id.into(), name: name.into(), input: arguments(bytes) }
}

fn kinds(messages: &[Stored]) -> Vec<String> {
    messages.iter().map(|message| message.kinds.join(",")).collect()
}

fn events(messages: &[Stored]) -> Vec<RunEvent> {
    messages.iter().flat_map(|message| message.decode::<Decision>().unwrap().events).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_does_not_fit_ends_its_run_with_what_was_paid_for_it() {
    let mut stage = Stage::start().await;
    stage.reply(vec![Block::Text { text: "x".repeat(TOO_LARGE) }]);
    stage.held.decide(Command::End(End::Finish("see above".into()), Timestamp::UNIX_EPOCH)).unwrap();
    stage.held.flush().await.unwrap();
    let since = stage.since().await;
    assert_eq!(kinds(&since), ["model_failed,message_sent,failed"]);
    assert!(matches!(since[0].subject, Subject::Say(..)), "the room is told: {}", since[0].subject);
    let events = events(&since);
    let Some(RunEvent::Failed(Failed { reason, totals, .. })) = events.last() else { panic!("{events:?}") };
    assert_eq!((*reason, totals.usage.total()), (FailReason::JournalFull, 30));
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_that_was_decided_stays_that_end() {
    let mut stage = Stage::start().await;
    stage.reply(vec![Block::Text { text: "x".repeat(TOO_LARGE) }]);
    let by = ByWhom { by: "ada".into(), reason: "Enough.".into() };
    stage.held.decide(Command::End(End::Kill(by), Timestamp::UNIX_EPOCH)).unwrap();
    stage.held.flush().await.unwrap();
    assert_eq!(kinds(&stage.since().await), ["model_failed,message_sent,killed"]);
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn children_that_were_never_requested_are_not_called_off() {
    let mut stage = Stage::start().await;
    stage.reply(vec![tool_use("a", "handoff", 1), tool_use("b", "write", TOO_LARGE)]);
    stage.call("a", "handoff", 1);
    let child_run_id = RunId::from_uuid(uuid::Uuid::from_u128(7));
    let agent = AgentName::try_new("scout").unwrap();
    let (_, request) = for_test::request("scout");
    let requested = Requested { parent_run_id: Some(stage.run), ..request };
    let handed = HandedOff { call_id: "a".into(), child_run_id, agent, task: "look".into() };
    stage.held.hand_off(handed, requested).unwrap();
    stage.call("b", "write", TOO_LARGE);
    stage.held.flush().await.unwrap();
    assert_eq!(kinds(&stage.since().await), ["model_failed,message_sent,failed"]);
    assert_eq!(stage.journal.signals(child_run_id, 1).await.unwrap(), []);
    assert!(!stage.journal.exists(child_run_id).await.unwrap());
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_that_fit_one_by_one_are_told_one_by_one() {
    let mut stage = Stage::start().await;
    stage.reply(vec![tool_use("a", "write", LARGE)]);
    stage.call("a", "write", LARGE);
    stage.held.flush().await.unwrap();
    assert_eq!(kinds(&stage.since().await), ["model_replied", "tool_called"]);
    let live = stage.held.state();
    let messages = stage.journal.read(stage.run, 1).await.unwrap();
    assert_eq!(*live, wake::fold(stage.run, &messages).unwrap(), "what was told is what the holder goes on from");
    assert!(live.open_calls().contains_key("a"));
    stage.end().await;
}

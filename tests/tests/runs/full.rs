//! A log that is nearly full: runs in hand go on to their end, and start no new ones.

use anyhow::Context as _;
use kit::{
    bus::Bus,
    clock,
    fill::{END_AT_PERCENT, REFUSE_AT_PERCENT},
    for_test::TestBus,
    identity::Service,
    journal::STREAM,
    message::Outgoing,
    service::Check,
    streams::{self, StreamOptions},
};
use nightcrew_tests::rig::{PATIENCE, Rig, Runner, TEAM};
use schemas::{
    Envelope, EventId, RunEvent, Subject,
    event::{FailReason, ToolOutcome},
    ids::Token,
    public::{Incident, PublicEvent},
};

/// Small enough to be filled with a hundred messages, with room for the run in its last fifth.
const LOG_BYTES: u64 = 8 << 20;

/// Bytes of a public fact: a log of megabytes is filled to the percent with such.
const FACT_BYTES: usize = 32 * 1024;

const HANDOFF: &str = "
name: handoff
rules:
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools:
        - {name: handoff, arguments: {agent: scout, task: find it}}
        - {name: read, arguments: {path: hello.txt}}
  - name: goes-on
    when: {agent: lead, step: 2}
    reply: {text: I looked myself.}
";

/// Percent of the log's room that is taken.
pub(crate) async fn percent(bus: &Bus) -> anyhow::Result<u64> {
    let info = bus.jetstream().get_stream_no_info(STREAM).await?.get_info().await?;
    Ok(info.state.bytes * 100 / u64::try_from(info.config.max_bytes)?)
}

/// Fills so many percent of the log with public facts, which no archive takes.
pub(crate) async fn fill(bus: &Bus, wanted: u64) -> anyhow::Result<()> {
    while percent(bus).await? < wanted {
        let (title, source) = ("t".to_owned(), "s".to_owned());
        let event = PublicEvent::Incident(Incident { title, source, description: "x".repeat(FACT_BYTES) });
        let subject = Subject::Event(Token::try_new(event.kind())?);
        let envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), event.kind(), "test", clock::now());
        bus.publish(&Outgoing::json(subject, envelope, &event)?).await.context("room for what fills the log")?;
    }
    Ok(())
}

/// A crew whose log is `percent` full, and whose runner has seen that.
async fn filled(percent: u64) -> (Rig, Runner) {
    let bus = TestBus::start().await;
    let options = StreamOptions { swarm_max_bytes: LOG_BYTES, ..StreamOptions::single_node() };
    streams::ensure(&bus.bus(Service::Setup).await, &options).await.expect("streams");
    let rig = Rig::start_on(bus, HANDOFF, TEAM).await.expect("a crew");
    let runner = rig.runner("disk").await.expect("a runner");
    fill(&rig.bus.bus(Service::AgentRunner).await, percent).await.expect("a full log");
    let mut checks = runner.health().subscribe();
    let full = format!("the log is {percent} %");
    let seen = checks.wait_for(|checks| matches!(checks.get("log"), Some(Check::Red(why)) if why.contains(&full)));
    tokio::time::timeout(PATIENCE, seen).await.expect("the runner sees it").expect("checks");
    (rig, runner)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_a_log_is_for_ends() {
    let (rig, _runner) = filled(END_AT_PERCENT).await;
    let run = rig.ask("lead", "Find it.").await.expect("a run");
    let RunEvent::Failed(failed) = rig.end(run).await.expect("an end") else { panic!("it should fail") };
    assert_eq!(failed.reason, FailReason::JournalFull);
    assert!(rig.rehearsal.requests(0).requests.is_empty(), "no model was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_without_room_is_refused_and_the_run_goes_on() {
    let (rig, _runner) = filled(REFUSE_AT_PERCENT).await;
    let run = rig.ask("lead", "Find it.").await.expect("a run");
    let RunEvent::Finished(finished) = rig.end(run).await.expect("an end") else { panic!("it should finish") };
    assert_eq!(finished.answer.preview(), "I looked myself.");
    let events = rig.events(run).await.expect("events");
    let returned: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ToolReturned(returned) => Some((returned.outcome, returned.output.preview())),
            _ => None,
        })
        .collect();
    let [(refused, why), (read, _)] = returned[..] else { panic!("two calls returned: {returned:?}") };
    assert_eq!((refused, read), (ToolOutcome::Refused, ToolOutcome::Ok));
    assert!(why.starts_with("scout was not asked: the log is 8") && why.contains("new runs are refused"), "{why}");
    assert!(!events.iter().any(|event| matches!(event, RunEvent::HandedOff(_))), "no child was requested");
}

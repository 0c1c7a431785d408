//! A run waits for a child that nobody takes, and its tick is lost: a runner that starts asserts it again, and the run ends
//! at its deadline.

use std::sync::Arc;

use agent_runner::{
    hold::Held,
    probe::Probe,
    run::{Command, next::Asked},
    wake::fold,
};
use jiff::ToSpan as _;
use kit::{
    clock,
    identity::Service,
    journal::{Appender, Journal},
    logs::{Limits, LogStore},
    service::Context,
};
use nightcrew_tests::rig::{PATIENCE, Rig};
use run_correlator::Filter;
use schemas::{
    AgentName, Block, Class, RunEvent, RunId, Usage,
    event::{ContextLoaded, FailReason, HandedOff, ModelCalled, ModelReplied, Requested, StopReason, WaitReason},
    summary::RunState,
};

/// Far enough ahead that the wait is in the log before.
const DEADLINE_S: i64 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_tick_was_lost_ends_at_its_deadline() {
    let rig = Rig::start("{name: ticks, rules: [{name: answers, reply: {text: done}}]}").await.expect("a crew");
    let deadline = clock::now() + DEADLINE_S.seconds();
    let run = rig.ask_with("lead", "Find it.", |request| request.deadline = deadline).await.expect("a run");
    wait_for_nobody(&rig, run).await;

    let logs = Arc::new(LogStore::open(rig.folder().join("logs"), Limits::SHIPPED).expect("a store"));
    let correlator = Context::new("run-correlator");
    let deps = run_correlator::Deps { bus: rig.bus.bus(Service::RunCorrelator).await, logs };
    correlator
        .spawn_vital("run-correlator", run_correlator::run(run_correlator::Config::SHIPPED, deps, correlator.clone()));
    tokio::time::timeout(PATIENCE, correlator.health.until_ready()).await.expect("the correlator is ready");
    let waits = || async {
        let runs = run_correlator::list(&rig.client, &Filter::newest(10)).await.ok()?;
        let waits = |state| state == RunState::Waiting(WaitReason::Child);
        runs.iter().any(|summary| summary.run_id == run && waits(summary.state)).then_some(())
    };
    rig.until("its summary", waits).await.expect("it waits");

    let runner = rig.runner("disk").await.expect("a runner");
    let RunEvent::Failed(failed) = rig.end(run).await.expect("an end") else { panic!("it should fail") };
    assert_eq!(failed.reason, FailReason::Deadline, "{}", failed.message);
    runner.stop().await;
    correlator.begin_shutdown();
    assert!(correlator.drain(kit::service::GRACE).await);
}

/// Does what a runner does until a run waits for a child, whose class nobody serves; but schedules no tick.
async fn wait_for_nobody(rig: &Rig, run: RunId) {
    let journal = Journal::new(&rig.bus.bus(Service::AgentRunner).await);
    let state = fold(run, &rig.messages(run).await.expect("a journal")).expect("a run");
    let request = state.request().clone();
    let context = Context::new("other-runner");
    let appender = Appender::start(journal, &context);
    let mut held = Held::new(state, appender, Probe::default(), context.shutdown.clone());
    let (call_id, tool) = ("call".to_owned(), "handoff".to_owned());
    let arguments = serde_json::json!({ "agent": "scout", "task": "look" });
    let content = vec![Block::ToolUse { id: call_id.clone(), name: tool.clone(), input: arguments.clone() }];
    let child_run_id = RunId::from_uuid(clock::uuid7());
    let agent = AgentName::try_new("scout").expect("a name");
    for command in [
        Command::Take { runner: "other".into(), harness: "native".into() },
        Command::LoadContext(ContextLoaded {
            model: "strong".into(),
            context_window: 100_000,
            system: "s".into(),
            tools: vec![],
        }),
        Command::CallModel(ModelCalled {
            step: 1,
            attempt: 1,
            model: "strong".into(),
            input_estimate: 1,
            dropped_messages: 0,
        }),
        Command::Reply(ModelReplied {
            step: 1,
            model: "m".into(),
            content,
            stop: StopReason::ToolUse,
            usage: Usage::default(),
            cost: None,
            estimated: false,
            millis: 1,
        }),
        Command::CallTool { asked: Asked { call_id: call_id.clone(), tool, arguments }, idempotent: false },
    ] {
        held.decide(command).expect("a legal step");
    }
    let handed = HandedOff { call_id, child_run_id, agent: agent.clone(), task: "look".into() };
    let parent_run_id = Some(run);
    let child = Requested { agent, class: Class::Ephemeral, parent_run_id, reply_to: None, ..request.clone() };
    held.hand_off(handed, child).expect("a child");
    held.decide(Command::Wait(WaitReason::Child, Some(request.deadline))).expect("a wait");
    held.flush().await.expect("it is in the log");
    context.begin_shutdown();
    assert!(context.drain(kit::service::GRACE).await);
}

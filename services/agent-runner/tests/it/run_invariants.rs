//! The invariants of the run's state machine, over random sequences of commands, legal and not.

use std::{collections::BTreeMap, time::Duration};

use agent_runner::run::{Action, Command, End, Limits, RunState, decide, decide::Returned, next, next::Asked};
use jiff::Timestamp;
use kit::for_test;
use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};
use schemas::{
    AgentName, Block, Decision, EventId, MicroUsd, RunEvent, RunId, Usage,
    event::{
        Billed, ChildEnded, ContextLoaded, FailReason, HandedOff, ModelCalled, ModelErrorClass, ModelFailed,
        ModelReplied, Outcome, Requested, StopReason, ToolOutcome, ToolReturned, Totals, WaitReason,
    },
    signal::{ByWhom, Message},
};

use crate::{
    run_progress::{Happens, Play, happens},
    run_rules::{ENDS, Rules},
};

pub(crate) fn requested() -> (RunId, Decision) {
    let (run, request) = for_test::request("coder");
    let deadline = "2100-01-01T00:00:00Z".parse().unwrap();
    (run, for_test::first(Requested { deadline, ..request }))
}

fn begin() -> RunState {
    let (run, decision) = requested();
    RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &decision).unwrap()
}

/// Also those of [`Play`], which counts them.
fn child() -> impl Strategy<Value = RunId> {
    (1..8_u128).prop_map(|n| RunId::from_uuid(uuid::Uuid::from_u128(n)))
}

/// Any command, with few enough different values that legal sequences happen often.
fn command() -> impl Strategy<Value = Command> {
    // Also those of [`Play`], so that commands meet what its holder has begun.
    let call = "[ab]|s[123]-[012]";
    prop_oneof![
        Just(Command::Take { runner: "r".into(), harness: "native".into() }),
        Just(Command::LoadContext(ContextLoaded {
            model: "m".into(),
            context_window: 1000,
            system: "s".into(),
            tools: vec![]
        })),
        (1..4_u32, 1..3_u32).prop_map(|(step, attempt)| Command::CallModel(ModelCalled {
            step,
            attempt,
            model: "m".into(),
            input_estimate: 1,
            dropped_messages: 0
        })),
        (1..4_u32, proptest::collection::vec(call, 0..3)).prop_map(|(step, calls)| Command::Reply(reply(step, &calls))),
        (1..4_u32, 1..3_u32, billed()).prop_map(|(step, attempt, billed)| Command::ModelFail(ModelFailed {
            step,
            attempt,
            class: ModelErrorClass::Unavailable,
            status: None,
            message: "no".into(),
            billed,
            retry_after_ms: None,
            retry_at: None,
        })),
        (call, any::<bool>()).prop_map(|(call_id, idempotent)| Command::CallTool {
            asked: Asked { call_id, tool: "t".into(), arguments: serde_json::json!({}) },
            idempotent
        }),
        call.prop_map(|call_id| Command::ReturnTool(Box::new(returned(&call_id, ToolOutcome::Ok)))),
        (call, child()).prop_map(|(call_id, child_run_id)| Command::HandOff(HandedOff {
            call_id,
            child_run_id,
            agent: AgentName::try_new("scout").unwrap(),
            task: "look".into()
        })),
        (call, child(), "[xyz]")
            .prop_map(|(call_id, child, signal)| Command::EndChild(EventId::new(signal), ended(&call_id, child))),
        "[xyz]"
            .prop_map(|signal| Command::Hear(EventId::new(signal), Message { from: "ada".into(), text: "hi".into() })),
        "[xyz]".prop_map(|signal| Command::Note(EventId::new(signal), "deadline".into())),
        prop_oneof![Just(WaitReason::Child), Just(WaitReason::Pause)].prop_map(|reason| Command::Wait(reason, None)),
        prop_oneof![
            3 => Just(End::Finish("done".into())),
            1 => Just(End::Fail(FailReason::Internal, "no".into())),
            1 => Just(End::Kill(ByWhom { by: "ada".into(), reason: String::new() })),
            1 => Just(End::Cancel(ByWhom { by: "ada".into(), reason: String::new() })),
        ]
        .prop_map(|end| Command::End(end, Timestamp::UNIX_EPOCH)),
    ]
}

/// What a call without an answer was billed, if anything.
pub(crate) fn billed() -> impl Strategy<Value = Option<Billed>> {
    let billed = (0..5_u64, proptest::option::of(0..5_u64), any::<bool>(), 1..100_u64);
    proptest::option::of(billed.prop_map(|(output_tokens, cost, estimated, through)| Billed {
        usage: Usage { output_tokens, ..Usage::default() },
        cost: cost.map(MicroUsd),
        estimated,
        through,
    }))
}

fn reply(step: u32, calls: &[String]) -> ModelReplied {
    let content = calls
        .iter()
        .map(|id| Block::ToolUse { id: id.clone(), name: "t".into(), input: serde_json::json!({}) })
        .collect();
    let stop = if calls.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
    let usage = Usage { input_tokens: 1, output_tokens: 1, ..Usage::default() };
    let (model, cost) = ("m".into(), Some(MicroUsd(1)));
    ModelReplied { step, model, content, stop, usage, cost, estimated: false, millis: 1 }
}

fn returned(call_id: &str, outcome: ToolOutcome) -> Returned {
    let result = ToolReturned { call_id: call_id.to_owned(), outcome, output: "out".into(), millis: 1 };
    Returned { result, changes: vec![], saved: None, committed: None }
}

fn ended(call_id: &str, child_run_id: RunId) -> ChildEnded {
    ChildEnded {
        call_id: call_id.to_owned(),
        child_run_id,
        outcome: Outcome::Finished,
        answer: "found".into(),
        totals: Totals::default(),
        work: None,
    }
}

/// What is done to a run: what its holder should do or may meet, or anything at all.
#[derive(Debug, Clone)]
enum Move {
    Happens(Happens),
    Command(Box<Command>),
    /// One of the calls that are open is begun again.
    Again(usize, bool),
}

/// Commands alone seldom get further than a first answer.
fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![3 => happens().prop_map(Move::Happens), 1 => command().prop_map(|command| Move::Command(Box::new(command))),
        1 => (0..3_usize, any::<bool>()).prop_map(|(n, idempotent)| Move::Again(n, idempotent)),
    ]
}

impl Play {
    fn make(&mut self, what: &Move) {
        match what {
            Move::Happens(what) => self.happen(what),
            Move::Command(command) => self.attempt((**command).clone()),
            Move::Again(n, idempotent) => {
                if let Some(id) = self.live.open_calls().keys().nth(*n).cloned() {
                    self.attempt(tool(&id, *idempotent));
                }
            }
        }
    }
}

/// Runs the commands, keeping those that are legal. Gives the live state and the journal.
fn play(commands: Vec<Command>) -> (RunState, Vec<Decision>) {
    let (_, first) = requested();
    let (mut live, mut journal) = (begin(), vec![first]);
    for command in commands {
        let before = live.clone();
        match decide(&live, command) {
            Ok((after, events)) => {
                live = after;
                journal.push(Decision { events });
                live.appended(journal.len() as u64, 10);
            }
            Err(_) => assert_eq!(live, before, "a refused command changes nothing"),
        }
    }
    (live, journal)
}

fn replay(journal: &[Decision]) -> RunState {
    let mut state = begin();
    for (n, decision) in journal.iter().enumerate() {
        state.apply_message(n as u64 + 1, 10, decision).unwrap();
    }
    state
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn replay_equals_live(commands in proptest::collection::vec(command(), 0..60)) {
        let (live, journal) = play(commands);
        prop_assert_eq!(replay(&journal), live);
    }

    #[test]
    fn a_duplicate_changes_nothing(commands in proptest::collection::vec(command(), 0..40), again in any::<prop::sample::Index>()) {
        let (live, journal) = play(commands);
        let n = again.index(journal.len());
        let mut state = live.clone();
        state.apply_message(n as u64 + 1, 10, &journal[n]).unwrap();
        prop_assert_eq!(state, live);
    }

    #[test]
    fn no_sequence_of_commands_reaches_an_illegal_state(
        moves in proptest::collection::vec(moves(), 0..80),
        late in proptest::collection::vec(command(), 0..20),
    ) {
        let mut play = Play::new("s");
        for what in &moves {
            play.make(what);
        }
        Rules::of(&play.journal);
        let mut totals = Totals::default();
        for event in play.journal.iter().flat_map(|decision| &decision.events) {
            match event {
                RunEvent::ModelReplied(reply) => totals.add_reply(reply),
                RunEvent::ModelFailed(failed) => totals.add_failure(failed),
                RunEvent::ToolReturned(_) => totals.tool_calls += 1,
                _ => {}
            }
        }
        prop_assert_eq!(*play.live.totals(), totals, "totals are the journal's");
        // Whatever the state is, there is something to do, and doing it is never refused.
        play.go_on_alone();
        prop_assert_eq!(Rules::of(&play.journal).seen.intersection(&ENDS.into()).count(), 1, "a run ends");
        let again = moves.into_iter().filter_map(|what| if let Move::Command(command) = what { Some(*command) } else { None });
        for command in again.chain(late) {
            let told = format!("{command:?}");
            prop_assert!(decide(&play.live, command).is_err(), "an ended run accepts {}", told);
        }
    }
}

/// The property above says something only about states that it reaches.
#[test]
fn the_sequences_that_are_tried_reach_every_kind_of_state() {
    let mut runner = TestRunner::deterministic();
    let mut seen = BTreeMap::<&str, u32>::new();
    for _ in 0..500 {
        let mut play = Play::new("s");
        for what in &proptest::collection::vec(moves(), 0..80).new_tree(&mut runner).unwrap().current() {
            play.make(what);
        }
        for kind in Rules::of(&play.journal).seen {
            *seen.entry(kind).or_default() += 1;
        }
    }
    let often = |kind: &&str| seen.get(kind).is_some_and(|runs| *runs >= 10);
    let wanted = ["tool_returned", "child_ended", "begun again", "waiting for child", "waiting for pause"];
    let rare: Vec<&str> = wanted.into_iter().chain(ENDS).filter(|kind| !often(kind)).collect();
    assert!(rare.is_empty(), "{rare:?} of {seen:?}");
}

fn held() -> RunState {
    let take = Command::Take { runner: "r".into(), harness: "native".into() };
    let load = Command::LoadContext(ContextLoaded {
        model: "m".into(),
        context_window: 1000,
        system: "s".into(),
        tools: vec![],
    });
    after(&after(&begin(), take), load)
}

fn after(state: &RunState, command: Command) -> RunState {
    decide(state, command).unwrap().0
}

fn call(step: u32, attempt: u32) -> Command {
    Command::CallModel(ModelCalled { step, attempt, model: "m".into(), input_estimate: 1, dropped_messages: 0 })
}

fn tool(id: &str, idempotent: bool) -> Command {
    let asked = Asked { call_id: id.to_owned(), tool: "t".into(), arguments: serde_json::json!({}) };
    Command::CallTool { asked, idempotent }
}

fn take() -> Command {
    Command::Take { runner: "other".into(), harness: "native".into() }
}

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

#[test]
fn a_model_call_in_flight_is_made_again_under_the_same_step() {
    let lost = after(&after(&held(), call(1, 1)), take());
    assert_eq!(next(&lost, &Limits::default(), now()), Action::CallModel { step: 1, attempt: 2, wait_ms: 0 });
}

#[test]
fn a_lost_tool_call_is_recovered_and_never_run_twice_unless_idempotent() {
    let asked = after(&after(&held(), call(1, 1)), Command::Reply(reply(1, &["a".into(), "b".into()])));
    let lost = after(&after(&after(&asked, tool("a", true)), tool("b", false)), take());
    let Action::Recover(calls) = next(&lost, &Limits::default(), now()) else { panic!("recovers first") };
    assert_eq!(calls.len(), 2);
    assert!(decide(&lost, tool("a", true)).is_ok(), "an idempotent call may run again");
    assert!(decide(&lost, tool("b", false)).is_err(), "the other may not");
}

#[test]
fn a_failed_model_call_waits_as_long_as_the_provider_asks() {
    let failed = |attempt, class, retry_at: Option<Timestamp>| {
        Command::ModelFail(ModelFailed {
            step: 1,
            attempt,
            class,
            status: Some(429),
            message: "slow".into(),
            billed: None,
            retry_after_ms: None,
            retry_at,
        })
    };
    let called = after(&held(), call(1, 1));
    let deadline = called.request().deadline;
    let hour = Duration::from_hours(1);
    let limited = after(&called, failed(1, ModelErrorClass::RateLimited, Some(now() + hour)));
    let again = |wait_ms| Action::CallModel { step: 1, attempt: 2, wait_ms };
    assert_eq!(next(&limited, &Limits::default(), now()), again(3_600_000));
    let taken_over = now() + Duration::from_mins(45);
    assert_eq!(next(&limited, &Limits::default(), taken_over), again(900_000), "the rest of it");
    let late = after(&called, failed(1, ModelErrorClass::RateLimited, Some(deadline)));
    assert!(matches!(next(&late, &Limits::default(), now()), Action::Fail(FailReason::Model, _)), "not in time");
    let refused = after(&called, failed(1, ModelErrorClass::Refused, None));
    assert!(matches!(next(&refused, &Limits::default(), now()), Action::Fail(FailReason::Model, _)));
}

#[test]
fn a_run_past_its_deadline_or_in_a_loop_is_ended_with_a_reason() {
    let late = "2100-01-01T00:00:01Z".parse().unwrap();
    assert!(matches!(next(&held(), &Limits::default(), late), Action::Fail(FailReason::Deadline, _)));
    let mut state = held();
    for step in 1..=Limits::default().max_same_step {
        state = after(&after(&state, call(step, 1)), Command::Reply(reply(step, &["a".into()])));
        state = after(&after(&state, tool("a", true)), Command::ReturnTool(Box::new(returned("a", ToolOutcome::Ok))));
    }
    assert!(matches!(next(&state, &Limits::default(), now()), Action::Fail(FailReason::NoProgress, _)));
}

#[test]
fn a_message_that_comes_while_the_model_thinks_is_answered_after_it() {
    let heard = Command::Hear(EventId::new("x"), Message { from: "ada".into(), text: "wait".into() });
    let state = after(&after(&held(), call(1, 1)), heard.clone());
    assert!(decide(&state, heard).is_err(), "a signal is taken once");
    let answered = after(&state, Command::Reply(reply(1, &[])));
    assert_eq!(next(&answered, &Limits::default(), now()), Action::CallModel { step: 2, attempt: 1, wait_ms: 0 });
}

//! Loop breakers, through the real service: each ends a run that would go on for ever with its typed reason, and says so
//! once in the room.

use std::time::Duration;

use jiff::SignedDuration;
use kit::clock;
use nightcrew_tests::rig::{Rig, TEAM};
use schemas::{
    RunEvent, RunId, Subject,
    event::{FailReason, Requested, ToolOutcome},
};

/// The limits of these tests: low, and far enough apart that each run meets one of them.
const LIMITS: &str = "limits:
  max_steps: 6
  max_handoff_depth: 2
  max_handoffs: 3
  max_repeats: 2
  deadline: 30m
  max_tokens: 100000
  max_messages_without_human: 20
";

/// How far ahead a deadline lies: what it cuts has begun by then.
const SOON: Duration = Duration::from_secs(4);

const SCENARIO: &str = "
name: breakers
rules:
  - name: goes-on
    when: {last_user: 'case steps'}
    reply:
      tools: [{name: read, arguments: {path: 'missing-{{call_id}}.txt'}}]
  - name: repeats
    when: {last_user: 'case repeats'}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: hands-off-the-same
    when: {last_user: 'case same handoffs'}
    reply:
      tools:
        - {name: read, arguments: {path: 'missing-{{call_id}}.txt'}}
        - {name: handoff, arguments: {agent: scout, task: Answer.}}
  - name: hands-off-more
    when: {last_user: 'case handoffs'}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: 'Answer {{call_id}}.'}}]
  - name: hands-off-deeper
    when: {last_user: 'case depth'}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: Answer.}}]
  - name: speaks-much
    when: {last_user: 'case tokens'}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
      usage: {output: 200000}
  - name: never-answers
    when: {last_user: 'case slow model'}
    gate: never
    reply: {text: done}
  - name: never-returns
    when: {last_user: 'case slow tool'}
    reply:
      tools: [{name: shell, arguments: {command: 'sleep 600', timeout_s: 600}}]
  - name: waits
    when: {agent: lead, last_user: 'case slow child'}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: 'The case slow model.'}}]
  - name: answers
    when: {agent: scout}
    reply: {text: 'answer {{call_id}}'}
";

/// A run that goes on for ever, and what ends it.
struct Case {
    agent: &'static str,
    name: &'static str,
    change: fn(&mut Requested),
    reason: FailReason,
    /// Handoffs that are made before.
    children: usize,
}

const fn case(agent: &'static str, name: &'static str, reason: FailReason, children: usize) -> Case {
    Case { agent, name, change: |_| {}, reason, children }
}

fn due_soon(request: &mut Requested) {
    request.deadline = clock::now() + SignedDuration::try_from(SOON).expect("a short time");
}

const CASES: [Case; 9] = [
    case("scout", "steps", FailReason::Steps, 0),
    case("scout", "repeats", FailReason::NoProgress, 0),
    case("lead", "same handoffs", FailReason::RepeatedHandoff, 2),
    case("lead", "handoffs", FailReason::Handoffs, 3),
    Case { change: |request| request.depth = 2, ..case("lead", "depth", FailReason::Handoffs, 0) },
    case("scout", "tokens", FailReason::Tokens, 0),
    Case { change: due_soon, ..case("scout", "slow model", FailReason::Deadline, 0) },
    Case { change: due_soon, ..case("coder", "slow tool", FailReason::Deadline, 0) },
    Case { change: due_soon, ..case("lead", "slow child", FailReason::Deadline, 1) },
];

#[tokio::test(flavor = "multi_thread")]
async fn each_loop_breaker_ends_a_run_with_its_reason_and_says_so_once() {
    let (before, _) = TEAM.split_once("limits:").expect("a team has limits");
    let bus = kit::for_test::TestBus::with_streams().await;
    let rig = Rig::start_on(bus, SCENARIO, &format!("{before}{LIMITS}")).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let mut asked = Vec::new();
    for case in CASES {
        let run = rig.ask_with(case.agent, &format!("The case {}.", case.name), case.change).await.expect("a run");
        asked.push((case, run));
    }
    for (case, run) in asked {
        let end = rig.end(run).await.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let RunEvent::Failed(failed) = end else { panic!("{}: it ended otherwise: {end:?}", case.name) };
        assert_eq!(failed.reason, case.reason, "{}: {}", case.name, failed.message);
        assert_said_once(&rig, run, &failed.message).await;
        let children = children(&rig, run).await;
        assert_eq!(children.len(), case.children, "{}", case.name);
        for child in children {
            rig.end(child).await.unwrap_or_else(|error| panic!("a child of {}: {error}", case.name));
        }
    }
    assert_nothing_more_was_done(&rig);
}

/// The room is told why, in the message that ends the run.
async fn assert_said_once(rig: &Rig, run: RunId, why: &str) {
    let messages = rig.messages(run).await.expect("a journal");
    let said: Vec<_> = messages.iter().filter(|message| message.has("message_sent")).collect();
    let [said] = said.as_slice() else { panic!("the room is told {} times", said.len()) };
    assert!(said.is_end() && matches!(said.subject, Subject::Say(..)), "{said:?}");
    let events = rig.events(run).await.expect("events");
    let texts: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::MessageSent(sent) => Some(sent.text.preview().to_owned()),
            _ => None,
        })
        .collect();
    assert_eq!(texts, [format!("I could not go on: {why}")]);
    assert!(
        !events.iter().any(|event| matches!(event, RunEvent::ToolReturned(r) if r.outcome == ToolOutcome::Uncertain))
    );
}

async fn children(rig: &Rig, run: RunId) -> Vec<RunId> {
    let events = rig.events(run).await.expect("events");
    let child =
        |event: &RunEvent| if let RunEvent::HandedOff(handed) = event { Some(handed.child_run_id) } else { None };
    events.iter().filter_map(child).collect()
}

/// No run asked its model more often than its limit allows.
fn assert_nothing_more_was_done(rig: &Rig) {
    let most = rig.rehearsal.requests(0).requests.iter().map(|request| request.step).max();
    assert_eq!(most, Some(6), "the run with the most steps made as many as it may");
}

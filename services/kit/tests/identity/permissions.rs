//! Who may say and hear what: the table as the server enforces it.

use std::time::Duration;

use async_nats::{Request, RequestErrorKind, jetstream};
use futures::StreamExt as _;
use kit::for_test::TestBus;
use kit::identity::{Service, durables, permissions};
use schemas::Subject;

use crate::probe::Probe;

const RUN: &str = "0197f3a0-0000-7000-8000-000000000001";

use Service::{AgentRunner, BudgetProxy, ChatBridge, Issuer, Nightcrew, RunCorrelator, Setup};

/// What is published, and by whom it may be: all others are refused.
const WRITERS: &[(&str, &[Service])] = &[
    ("swarm.run.RUN.requested.resident.lead", &[AgentRunner, ChatBridge, Nightcrew]),
    ("swarm.run.RUN.event", &[AgentRunner, RunCorrelator]),
    ("swarm.run.RUN.say.matrix", &[AgentRunner]),
    ("swarm.run.RUN.effect.forge", &[AgentRunner]),
    ("swarm.signal.RUN.delivered", &[AgentRunner, ChatBridge]),
    ("swarm.signal.RUN.child_ended", &[AgentRunner]),
    ("swarm.call.RUN", &[BudgetProxy]),
    ("swarm.events.task_done", &[AgentRunner]),
    ("swarm.control.all", &[Nightcrew]),
    ("swarm.ledger.project", &[BudgetProxy]),
    ("swarm.usage.project", &[BudgetProxy]),
    ("swarm.schedule.at.RUN", &[AgentRunner]),
    // Only the server fires ticks.
    ("swarm.schedule.due.RUN", &[]),
    ("swarm.memory.fact.1", &[]),
    ("swarm.audit.budget-proxy", &[BudgetProxy]),
    ("swarm.ask.issuer.mint", &[AgentRunner]),
    ("swarm.ask.issuer.keys", &[BudgetProxy, Nightcrew]),
    ("swarm.ask.issuer.health", &[Nightcrew]),
    ("swarm.hold.RUN", &[AgentRunner]),
    ("$KV.runs.RUN", &[Nightcrew, RunCorrelator]),
    ("$KV.agents.lead", &[AgentRunner]),
    ("$KV.replies.x", &[BudgetProxy]),
    ("$KV.budgets.x", &[BudgetProxy]),
    ("$KV.memory.x", &[]),
    ("$JS.API.STREAM.CREATE.SWARM", &[Setup]),
    ("$JS.API.STREAM.CREATE.KV_replies", &[BudgetProxy, Setup]),
    ("$JS.API.STREAM.UPDATE.SWARM", &[Setup]),
    ("$JS.API.STREAM.DELETE.SWARM", &[]),
    ("$JS.API.STREAM.PURGE.SWARM", &[RunCorrelator]),
    ("$JS.API.STREAM.PURGE.LEDGER", &[]),
    ("$JS.API.STREAM.PURGE.AUDIT", &[]),
    ("$JS.API.STREAM.MSG.DELETE.SWARM", &[]),
    ("$JS.API.STREAM.MSG.DELETE.DEAD", &[Nightcrew]),
    ("$JS.API.STREAM.SNAPSHOT.SWARM", &[]),
    ("$JS.API.STREAM.RESTORE.SWARM", &[]),
    ("$JS.API.STREAM.MSG.GET.LEDGER", &[BudgetProxy, Nightcrew]),
    ("$JS.API.DIRECT.GET.KV_replies.$KV.replies.x", &[BudgetProxy]),
    // Consumers of one's own.
    ("$JS.API.CONSUMER.MSG.NEXT.SWARM.agent-runner-wakes", &[AgentRunner]),
    ("$JS.API.CONSUMER.CREATE.SWARM.agent-runner-wakes", &[AgentRunner, Setup]),
    ("$JS.API.CONSUMER.CREATE.SWARM.agent-runner-wakes.swarm.run.>", &[AgentRunner, Setup]),
    ("$JS.API.CONSUMER.DELETE.SWARM.agent-runner-wakes", &[AgentRunner]),
    ("$JS.ACK.SWARM.agent-runner-wakes.1.2.3.4.5", &[AgentRunner]),
    ("$JS.ACK.SWARM.chat-bridge-matrix.1.2.3.4.5", &[ChatBridge]),
    ("$JS.ACK.SWARM.run-correlator-runs.1.2.3.4.5", &[RunCorrelator]),
    // What belongs to the server and to the system account.
    ("$SYS.REQ.CLAIMS.UPDATE", &[]),
    ("$SYS.REQ.SERVER.PING", &[]),
    ("_INBOX.nightcrew.x.y", &[]),
];

/// What is subscribed to, and by whom it may be.
const READERS: &[(&str, &[Service])] = &[
    ("_INBOX.>", &[]),
    (">", &[]),
    ("swarm.>", &[]),
    ("swarm.run.>", &[Nightcrew]),
    ("swarm.signal.>", &[AgentRunner]),
    ("swarm.control.>", &[AgentRunner]),
    ("swarm.hold.*", &[AgentRunner]),
    ("swarm.ask.issuer.*", &[Issuer]),
    ("swarm.ask.issuer.mint", &[Issuer]),
    ("swarm.ask.budget-proxy.*", &[BudgetProxy]),
    ("swarm.ledger.>", &[]),
    ("$JS.EVENT.>", &[]),
    ("$KV.replies.>", &[]),
    ("$SYS.>", &[]),
];

#[tokio::test]
async fn each_subject_has_its_writers_and_readers_and_no_others() {
    let bus = TestBus::start().await;
    let mut wrong = Vec::new();
    for service in Service::ALL {
        let mut probe = Probe::connect(&bus, service).await;
        for (subject, writers) in WRITERS {
            let subject = subject.replace("RUN", RUN);
            if probe.may_publish(&subject).await != writers.contains(&service) {
                wrong.push(format!("{service} publishing {subject}"));
            }
        }
        for (subject, readers) in READERS {
            if probe.may_subscribe(subject).await != readers.contains(&service) {
                wrong.push(format!("{service} subscribing {subject}"));
            }
        }
    }
    assert!(wrong.is_empty(), "not as in the table: {wrong:#?}");
}

#[tokio::test]
async fn nobody_reads_anothers_replies() {
    let bus = TestBus::start().await;
    for service in Service::ALL {
        let mut probe = Probe::connect(&bus, service).await;
        for other in Service::ALL {
            let inbox = format!("{}.>", other.inbox_prefix());
            assert_eq!(probe.may_subscribe(&inbox).await, service == other, "{service} on {inbox}");
        }
    }
}

#[tokio::test]
async fn a_service_can_not_take_anothers_consumer_by_any_name_of_the_request() {
    let bus = TestBus::with_streams().await;
    let runner = bus.bus(AgentRunner).await;
    let before = consumer_config(&runner, "agent-runner-wakes").await;

    // The old request carries the consumer's name in its body, where permissions can not see it, and the server
    // would let it replace the consumer of that name.
    let mut thief = Probe::connect(&bus, RunCorrelator).await;
    let config = serde_json::json!({
        "name": "agent-runner-wakes", "ack_policy": "explicit", "max_ack_pending": 7,
        "filter_subject": "swarm.run.*.requested.resident.*",
    });
    let body = serde_json::json!({"stream_name": "SWARM", "config": config, "action": ""});
    let request = Request::new().payload(body.to_string().into()).timeout(Some(Duration::from_millis(500)));
    let answer = thief.client.send_request("$JS.API.CONSUMER.CREATE.SWARM", request);
    assert_eq!(answer.await.unwrap_err().kind(), RequestErrorKind::TimedOut);
    assert!(!thief.may_publish("$JS.API.CONSUMER.CREATE.SWARM").await);
    assert_eq!(consumer_config(&runner, "agent-runner-wakes").await, before);
}

async fn consumer_config(bus: &kit::bus::Bus, name: &str) -> jetstream::consumer::Config {
    let stream = bus.jetstream().get_stream("SWARM").await.unwrap();
    stream.consumer_info(name).await.unwrap().config
}

/// A subject of ours in the table must be one that `schemas` would build, wildcards filled in.
#[test]
fn the_table_speaks_the_language_of_the_subjects() {
    for service in Service::ALL {
        let permissions = permissions(service);
        let all = permissions
            .publish
            .allow
            .iter()
            .chain(&permissions.subscribe.allow)
            .filter(|subject| subject.starts_with("swarm."));
        for subject in all {
            let candidates = fill(subject);
            assert!(
                candidates.iter().any(|subject| subject.parse::<Subject>().is_ok()),
                "{service}: {subject} fits no subject"
            );
        }
    }
}

/// Ways to fill the wildcards of a pattern with tokens that a subject could have there.
fn fill(pattern: &str) -> Vec<String> {
    ["x", RUN, "event", "resident.lead"]
        .iter()
        .flat_map(|rest| {
            [RUN, "x"].map(|token| {
                let rest = if *rest == "event" { format!("{RUN}.event") } else { (*rest).to_owned() };
                pattern.replace('*', token).replace('>', &rest)
            })
        })
        .chain([pattern.replace('>', &format!("{RUN}.x"))])
        .collect()
}

#[test]
fn every_user_lists_what_it_may_do() {
    for service in Service::ALL {
        let permissions = permissions(service);
        // An empty list would mean everything.
        assert!(!permissions.publish.allow.is_empty());
        assert!(!permissions.subscribe.allow.is_empty());
        for subject in permissions.publish.allow.iter().chain(&permissions.subscribe.allow) {
            assert!(
                !matches!(subject.as_str(), ">" | "swarm.>" | "$JS.>" | "$JS.API.>" | "_INBOX.>" | "$SYS.>"),
                "{service} may use {subject}"
            );
        }
    }
    assert_eq!(durables(Service::Issuer), Vec::<&str>::new());
    assert!(durables(AgentRunner).contains(&"agent-runner-wakes"));
}

#[tokio::test]
async fn a_reply_reaches_whoever_asked_and_only_answers_are_let_through() {
    let bus = TestBus::start().await;
    let issuer = bus.connect(Issuer).await;
    let mut asked = issuer.subscribe("swarm.ask.issuer.*").await.unwrap();
    // The server takes what one connection sends in order: with this answered, it knows of the subscription.
    issuer.request("$JS.API.INFO", "".into()).await.unwrap();

    let proxy = bus.connect(BudgetProxy).await;
    let answers = async {
        let request = asked.next().await.unwrap();
        issuer.publish(request.reply.unwrap(), "here".into()).await.unwrap();
    };
    let (reply, ()) = tokio::join!(proxy.request("swarm.ask.issuer.keys", "".into()), answers);
    assert_eq!(reply.unwrap().payload, "here");

    let mut probe = Probe::connect(&bus, Issuer).await;
    assert!(!probe.may_publish("_INBOX.budget-proxy.made-up").await);
}

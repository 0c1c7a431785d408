//! The issuer through its public `run`, on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::time::{Duration, Instant};

use async_nats::{Client, RequestErrorKind};
use issuer::{Config, DEFAULT_MAX_LIFETIME, Deps};
use jiff::{SignedDuration, Timestamp};
use kit::for_test::{PROJECT, TestBus};
use kit::identity::Service;
use kit::service::Context;
use kit::token::{Audience, PublicKey, Verifier};
use schemas::ask::{Answer, AskCode, KeysReply, MintReply, MintRequest};
use schemas::{ProjectId, RunId};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What a reply may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

struct Fixture {
    bus: TestBus,
    context: Context,
}

impl Fixture {
    async fn start() -> Self {
        Self::on(TestBus::start().await).await
    }

    async fn on(bus: TestBus) -> Self {
        let config = Config {
            project: project(),
            key_file: bus.identity().bearer_key_file(),
            max_lifetime: DEFAULT_MAX_LIFETIME,
        };
        let deps = Deps { client: bus.connect(Service::Issuer).await, now: kit::clock::now };
        let context = Context::new("issuer");
        context.spawn_vital("issuer", issuer::run(config, deps, context.clone()));
        is_ready(&context).await;
        Self { bus, context }
    }

    async fn stop(self) -> TestBus {
        self.context.begin_shutdown();
        assert!(self.context.drain(PATIENCE).await, "the issuer must end");
        assert_eq!(self.context.ended(), None);
        self.bus
    }
}

async fn is_ready(context: &Context) {
    let deadline = Instant::now() + PATIENCE;
    while !context.health.report().ready {
        assert!(Instant::now() < deadline, "not ready");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn project() -> ProjectId {
    ProjectId::try_new(PROJECT).unwrap()
}

fn request() -> MintRequest {
    let run = RunId::from_uuid(uuid::Uuid::from_u128(7));
    MintRequest {
        run_id: run,
        root_run_id: run,
        agent: "coder".parse().unwrap(),
        epoch: 12,
        deadline: kit::clock::now() + SignedDuration::from_hours(1),
    }
}

async fn ask<T: DeserializeOwned>(client: &Client, operation: &str, body: &Value) -> Answer<T> {
    let subject = format!("swarm.ask.issuer.{operation}");
    let reply = client.request(subject, body.to_string().into());
    let reply = tokio::time::timeout(PATIENCE, reply).await.unwrap().unwrap();
    serde_json::from_slice(&reply.payload).unwrap()
}

async fn code(client: &Client, operation: &str, body: &Value) -> AskCode {
    let answer: Answer<Value> = ask(client, operation, body).await;
    answer.into_result().unwrap_err().code
}

#[tokio::test]
async fn what_it_mints_verifies_with_the_keys_it_publishes() {
    let fixture = Fixture::start().await;
    let runner = fixture.bus.connect(Service::AgentRunner).await;
    let minted: Answer<MintReply> = ask(&runner, "mint", &json!(request())).await;
    let minted = minted.into_result().unwrap();

    let proxy = fixture.bus.connect(Service::BudgetProxy).await;
    let keys: Answer<KeysReply> = ask(&proxy, "keys", &json!({})).await;
    let keys: Vec<PublicKey> =
        keys.into_result().unwrap().keys.into_iter().map(|jwk| PublicKey::try_from(jwk).unwrap()).collect();
    let verifier = Verifier::new(project(), &keys).unwrap();
    let claims = verifier.verify(&minted.token, Audience::BudgetProxy, kit::clock::now()).unwrap();
    assert_eq!(claims.run_id, request().run_id);
    assert_eq!(claims.epoch, 12);
    assert_eq!(claims.expires_at, minted.expires_at.as_second());
}

#[tokio::test]
async fn a_restart_keeps_the_key() {
    let fixture = Fixture::start().await;
    let runner = fixture.bus.connect(Service::AgentRunner).await;
    let proxy = fixture.bus.connect(Service::BudgetProxy).await;
    let before: Answer<KeysReply> = ask(&proxy, "keys", &Value::Null).await;
    let bus = fixture.stop().await;
    let nobody = runner.request("swarm.ask.issuer.mint", "".into()).await;
    assert_eq!(nobody.unwrap_err().kind(), RequestErrorKind::NoResponders);

    let _fixture = Fixture::on(bus).await;
    let after: Answer<KeysReply> = ask(&proxy, "keys", &Value::Null).await;
    assert_eq!(before, after);
}

#[tokio::test]
async fn bad_requests_get_typed_errors() {
    let fixture = Fixture::start().await;
    let runner = fixture.bus.connect(Service::AgentRunner).await;

    assert_eq!(code(&runner, "mint", &json!({})).await, AskCode::Malformed);
    assert_eq!(code(&runner, "mint", &json!("x")).await, AskCode::Malformed);
    let mut extra = json!(request());
    extra["audience"] = json!(["everything"]);
    assert_eq!(code(&runner, "mint", &extra).await, AskCode::Malformed);
    let mut agent = json!(request());
    agent["agent"] = json!("../root");
    assert_eq!(code(&runner, "mint", &agent).await, AskCode::Malformed);

    let past = MintRequest { deadline: Timestamp::UNIX_EPOCH, ..request() };
    assert_eq!(code(&runner, "mint", &json!(past)).await, AskCode::DeadlinePassed);
    let never = MintRequest { deadline: kit::clock::now() + SignedDuration::from_hours(24 * 365), ..request() };
    assert_eq!(code(&runner, "mint", &json!(never)).await, AskCode::DeadlineTooFar);

    // It still serves.
    let minted: Answer<MintReply> = ask(&runner, "mint", &json!(request())).await;
    minted.into_result().unwrap();
}

#[tokio::test]
async fn nobody_but_the_holder_of_runs_may_have_a_bearer_minted() {
    let fixture = Fixture::start().await;
    let others = [
        Service::ChatBridge,
        Service::BudgetProxy,
        Service::RunCorrelator,
        Service::Nightcrew,
        Service::Setup,
        Service::Issuer,
    ];
    for service in others {
        let client = fixture.bus.connect(service).await;
        let body = json!(request()).to_string();
        let asked = client.send_request(
            "swarm.ask.issuer.mint",
            async_nats::Request::new().payload(body.into()).timeout(Some(Duration::from_millis(300))),
        );
        let refused = asked.await.unwrap_err();
        assert_eq!(refused.kind(), RequestErrorKind::TimedOut, "{service}: {refused}");
    }
    let log = std::fs::read_to_string(fixture.bus.folder().join("nats/nats-server.log")).unwrap();
    for service in others {
        assert!(
            log.lines().any(|line| line.contains("Publish Violation")
                && line.contains(&format!("{service}"))
                && line.contains("swarm.ask.issuer.mint")),
            "the server must have refused {service}:\n{log}"
        );
    }
}

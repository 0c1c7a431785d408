//! What belongs to neither API: keys, bounds, the end.

use std::time::Duration;

use rehearsal::{Config, Outcome, Scenario, run};
use reqwest::Client;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::client::{Api, BOTH, LOOPBACK, Rig, question, until_broken};

const HELLO: &str = "\n  - name: hello\n    reply: {text: Hello.}\n";

#[tokio::test]
async fn a_required_key_is_checked() {
    let config = Config { require_key: Some("sk-right".to_owned().into()), ..Config::at(LOOPBACK) };
    let rig = Rig::with(HELLO, config).await;
    for (api, path) in BOTH.into_iter().zip(["/v1/messages", "/v1/chat/completions"]) {
        let asked = |name: &str, key: &str| {
            let request = rig.request(path).header("anthropic-version", "2023-06-01").header(name, key);
            request.json(&question(api, "x", false)).send()
        };
        assert_eq!(asked("x-api-key", "sk-right").await.unwrap().status(), 200);
        assert_eq!(asked("authorization", "Bearer sk-right").await.unwrap().status(), 200);
        let refused = asked("authorization", "Bearer sk-wrong").await.unwrap();
        assert_eq!(refused.status(), 401);
        let error: Value = refused.json().await.unwrap();
        match api {
            Api::Anthropic => assert_eq!(error["error"]["type"], "authentication_error"),
            Api::Openai => assert_eq!(error["error"]["code"], "invalid_api_key"),
        }
        assert_eq!(rig.ask(api, "x").await.status(), 401, "no key at all");
    }
    let models = rig.http.get(format!("{}/v1/models", rig.server.url())).send().await.unwrap();
    assert_eq!(models.status(), 401);
}

#[tokio::test]
async fn a_request_above_the_bound_is_refused() {
    let rig = Rig::with(HELLO, Config { max_request_bytes: 1000, ..Config::at(LOOPBACK) }).await;
    for (api, kind) in BOTH.into_iter().zip(["request_too_large", "invalid_request_error"]) {
        let refused = rig.ask(api, &"x".repeat(1000)).await;
        assert_eq!(refused.status(), 413);
        let error: Value = refused.json().await.unwrap();
        assert_eq!(error["error"]["type"], kind);
        assert_eq!(rig.ask(api, "x").await.status(), 200);
    }
    // Without an announced length the bound holds too.
    let pieces = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("y".repeat(100))));
    let body = reqwest::Body::wrap_stream(pieces);
    assert_eq!(rig.request("/v1/chat/completions").body(body).send().await.unwrap().status(), 413);
}

#[tokio::test]
async fn what_is_not_there_is_told_in_the_shape_of_the_api() {
    let rig = Rig::playing(HELLO).await;
    assert_eq!(rig.get("/v1/nowhere").await["error"]["code"], "not_found");
    let get = rig.http.get(format!("{}/v1/nowhere", rig.server.url())).header("anthropic-version", "2023-06-01");
    let error: Value = get.send().await.unwrap().json().await.unwrap();
    assert_eq!(error["error"]["type"], "not_found_error");
}

#[tokio::test]
async fn requests_are_listed_with_what_they_cost() {
    let rig = Rig::playing(HELLO).await;
    rig.ask(Api::Anthropic, "one").await;
    rig.ask_streaming(Api::Openai, "two").await.bytes().await.unwrap();
    rig.until_seen(|seen| seen.len() == 2 && seen[1].outcome == Outcome::Completed).await;
    let listed = rig.get("/rehearsal/requests").await;
    assert_eq!(listed["seen"], 2);
    let first = &listed["requests"][0];
    assert_eq!((&first["id"], &first["api"], &first["agent"]), (&1.into(), &"anthropic".into(), &"coder".into()));
    assert_eq!((&first["rule"], &first["outcome"]), (&"hello".into(), &"completed".into()));
    assert_eq!((&first["input_tokens"], &first["output_tokens"]), (&7.into(), &2.into()));
    assert_eq!(rig.get("/rehearsal/requests?after=1").await["requests"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn many_at_once_are_all_answered() {
    let rig = Rig::playing("\n  - name: waits\n    gate: all\n    reply: {text: '0123456789'}\n").await;
    let asked = futures::future::join_all((0..200).map(|index| rig.ask_streaming(BOTH[index % 2], "x")));
    let all_wait = async {
        rig.until_seen(|seen| seen.len() == 200).await;
        rig.server.open_gate("all").unwrap();
    };
    let (answers, ()) = futures::join!(asked, all_wait);
    for response in answers {
        assert_eq!(response.status(), 200);
        assert!(!until_broken(response).await.1);
    }
    let seen = rig.server.requests(0).requests;
    assert_eq!(seen.iter().filter(|record| record.outcome == Outcome::Completed).count(), 200);
}

#[tokio::test]
async fn a_server_that_stops_lets_go_what_it_holds() {
    let rule = "\n  - name: held\n    fault: {kind: hold, after_tokens: 1}\n    reply: {text: '0123456789'}\n";
    let rig = Rig::playing(rule).await;
    let response = rig.ask_streaming(Api::Anthropic, "x").await;
    rig.until_seen(|seen| seen[0].output_tokens == 1).await;
    let (broken, ()) = tokio::join!(until_broken(response), rig.server.stop());
    assert!(broken.1);
}

#[tokio::test]
async fn it_runs_until_its_shutdown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("hello.yaml");
    std::fs::write(&file, format!("name: hello\nrules:\n{HELLO}")).unwrap();
    Scenario::read_all(std::slice::from_ref(&file)).unwrap();
    // A port that was free a moment ago: `run` tells nobody which one it took.
    let listen = std::net::TcpListener::bind(LOOPBACK).unwrap().local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let running = run(Config { scenarios: vec![file], ..Config::at(listen) }, shutdown.clone());
    let asked = async {
        let http = Client::new();
        let healthy = async {
            while http.get(format!("http://{listen}/rehearsal/health")).send().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), healthy).await.unwrap();
        shutdown.cancel();
    };
    let (ended, ()) = tokio::join!(running, asked);
    ended.unwrap();
}

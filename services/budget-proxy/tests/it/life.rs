//! How the proxy starts, how it says that it is well, and how it ends.

use std::time::Duration;

use budget_proxy::Patience;
use kit::service::Check;
use schemas::call::CallOutcome;
use serde_json::Value;

use crate::client::{Api, Hearing, hear, json_of};
use crate::stage::{Setting, Stage, soon};

const RULES: &str = "
  - name: slow
    when: {last_user: slow}
    gate: {name: middle, after_tokens: 2}
    reply: {text: '0123456789abcdefghijklmnop'}
  - name: plain
    reply: {text: Hello.}
";

fn short() -> Setting {
    let patience = Patience {
        landing: Duration::from_millis(300),
        records: Duration::from_millis(500),
        bus: Duration::from_millis(300),
        ..Patience::SHIPPED
    };
    Setting { patience: Some(patience), ..Setting::default() }
}

#[tokio::test]
async fn its_health_has_a_check_for_all_that_it_needs() {
    let stage = Stage::playing(RULES).await;
    let report = stage.proxy.context.health.report();
    let names: Vec<&str> = report.checks.keys().map(String::as_str).collect();
    assert_eq!(names, ["bus", "epochs", "issuer", "started"]);
    assert!(report.checks.values().all(|check| *check == Check::Green));
    let (_run, caller) = stage.caller().await;
    for path in ["healthz", "readyz"] {
        let response = caller.http.get(format!("{}/{path}", caller.url)).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(json_of(response).await["ready"], Value::Bool(true));
    }
}

#[tokio::test]
async fn it_is_red_while_the_bus_is_gone() {
    let mut stage = Stage::playing(RULES).await;
    stage.bus.server().stop().await.unwrap();
    let red = |check: Option<&Check>| matches!(check, Some(Check::Red(_)));
    stage.until_health(|report| red(report.checks.get("bus")) && red(report.checks.get("epochs"))).await;
    stage.bus.server().restart().await.unwrap();
    stage.until_health(|report| report.ready).await;
}

#[tokio::test]
async fn calls_under_way_land_before_it_ends() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(Api::Anthropic, "k", "slow", true).await);
    hearing.until("4567").await;
    stage.proxy.context.begin_shutdown();
    stage.model.open_gate("middle").unwrap();
    assert!(soon("the answer's end", hearing.rest()).await.whole);
    assert!(stage.proxy.context.drain(Duration::from_secs(5)).await);
    assert_eq!(stage.proxy.context.ended(), None);
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
}

#[tokio::test]
async fn calls_that_do_not_land_in_time_are_cut_and_booked() {
    let stage = Stage::with(RULES, short()).await;
    let (run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(Api::Anthropic, "k", "slow", true).await);
    hearing.until("4567").await;
    stage.proxy.context.begin_shutdown();
    assert!(!soon("the cut", hearing.rest()).await.whole);
    assert!(stage.proxy.context.drain(Duration::from_secs(5)).await);
    let record = stage.record(run.id).await;
    assert_eq!(record.outcome, CallOutcome::ProxyCut);
    assert!(record.usage_estimated);
}

#[tokio::test]
async fn without_the_bus_it_ends_in_time_too() {
    let mut stage = Stage::with(RULES, short()).await;
    let (_run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(Api::OpenAi, "k", "slow", true).await);
    hearing.until("4567").await;
    stage.bus.server().stop().await.unwrap();
    stage.model.open_gate("middle").unwrap();
    assert!(soon("the answer's end", hearing.rest()).await.whole);
    stage.proxy.context.begin_shutdown();
    assert!(stage.proxy.context.drain(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn a_record_that_waits_for_the_bus_is_flushed_at_the_end() {
    let mut stage = Stage::with(
        RULES,
        Setting {
            patience: Some(Patience { bus: Duration::from_millis(300), ..Patience::SHIPPED }),
            ..Setting::default()
        },
    )
    .await;
    let (run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(Api::OpenAi, "k", "slow", true).await);
    hearing.until("4567").await;
    stage.bus.server().stop().await.unwrap();
    stage.model.open_gate("middle").unwrap();
    assert!(soon("the answer's end", hearing.rest()).await.whole);
    stage.proxy.context.begin_shutdown();
    stage.bus.server().restart().await.unwrap();
    assert!(stage.proxy.context.drain(Duration::from_secs(10)).await);
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
}

#[tokio::test]
async fn once_it_ends_no_call_begins() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    // Keeps a connection that the proxy took before.
    let mut slow = Hearing::of(caller.ask(Api::OpenAi, "k", "slow", true).await);
    slow.until("4567").await;
    stage.proxy.context.begin_shutdown();
    let late = caller.call(Api::OpenAi, "late", &crate::client::question(Api::OpenAi, "plain", false));
    match late.send().await {
        Ok(response) => assert_eq!(response.status(), 503),
        Err(error) => assert!(error.is_connect() || error.is_request(), "{error}"),
    }
    stage.model.open_gate("middle").unwrap();
    assert!(soon("the end", slow.rest()).await.whole);
    assert_eq!(stage.asked().len(), 1);
    stage.record(run.id).await;
}

#[tokio::test]
async fn it_waits_for_the_issuer() {
    let mut stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    stage.stop_issuer().await;
    let starting = stage.begin_proxy().await;
    let red = |check: Option<&Check>| matches!(check, Some(Check::Red(_)));
    let report = || async { red(starting.context.health.report().checks.get("issuer")).then_some(()) };
    crate::stage::until("a red check", report).await;
    assert!(!starting.context.health.is_ready());
    stage.start_issuer().await;
    soon("the proxy is ready", starting.context.health.until_ready()).await;
    let caller = caller.at(&starting.url);
    hear(caller.ask(Api::OpenAi, "k", "plain", false).await).await;
    assert_eq!(stage.asked().len(), 1);
}

#[tokio::test]
async fn a_new_key_of_the_issuer_is_learnt() {
    let mut stage = Stage::playing(RULES).await;
    let (run, old) = stage.caller().await;
    assert_eq!(old.ask(Api::OpenAi, "1", "plain", false).await.status(), 200);
    stage.stop_issuer().await;
    std::fs::remove_file(stage.bus.identity().bearer_key_file()).unwrap();
    stage.start_issuer().await;
    let new = stage.caller_of(&run).await;
    assert_eq!(new.ask(Api::OpenAi, "2", "plain", false).await.status(), 200);
    assert_eq!(old.ask(Api::OpenAi, "3", "plain", false).await.status(), 401, "the old key is no key any more");
}

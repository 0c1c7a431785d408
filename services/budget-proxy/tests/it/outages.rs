//! The bus is away: nothing is forwarded, nothing is lost.

use std::time::{Duration, Instant};

use budget_proxy::Patience;
use schemas::call::CallOutcome;

use crate::client::{Api, BOTH, Hearing, hear, refusal};
use crate::stage::{SOON, Setting, Stage, soon};

const RULES: &str = "
  - name: slow
    when: {last_user: slow}
    gate: {name: middle, after_tokens: 2}
    reply: {text: '0123456789abcdefghijklmnop'}
  - name: plain
    reply: {text: Hello.}
";

async fn impatient() -> Stage {
    let patience = Patience { bus: Duration::from_millis(500), epoch: Duration::from_millis(300), ..Patience::SHIPPED };
    let setting = Setting { patience: Some(patience), ..Setting::default() };
    Stage::with(RULES, setting).await
}

/// Asks until it is answered, which must be soon.
async fn recovered(stage: &Stage, caller: &crate::client::Caller) {
    let deadline = Instant::now() + SOON;
    let mut n = 0;
    loop {
        n += 1;
        let response = caller.ask(Api::OpenAi, &format!("back-{n}"), "plain", false).await;
        if response.status() == 200 {
            return;
        }
        assert_eq!(response.status(), 503);
        assert!(Instant::now() < deadline, "{:?}", stage.proxy.context.health.report());
    }
}

#[tokio::test]
async fn while_the_bus_hangs_nothing_is_forwarded() {
    let stage = &mut impatient().await;
    let (_run, caller) = stage.caller().await;
    let (mut new, _) = stage.caller().await;
    assert_eq!(caller.ask(Api::Anthropic, "known", "plain", false).await.status(), 200);
    stage.bus.server().pause().unwrap();
    for round in 0..3 {
        for api in BOTH {
            let answer = soon("a refusal", caller.ask(api, &format!("k{round}"), "plain", false)).await;
            assert_eq!(answer.headers()["retry-after"], "1");
            refusal(api, answer, 503).await;
        }
    }
    assert_eq!(stage.asked().len(), 1);
    stage.bus.server().unpause().unwrap();
    recovered(stage, &caller).await;
    new.resume().await;
    assert_eq!(stage.caller_of(&new).await.ask(Api::OpenAi, "k", "plain", false).await.status(), 200);
}

#[tokio::test]
async fn while_the_bus_is_gone_nothing_is_forwarded() {
    let stage = &mut impatient().await;
    let (_run, caller) = stage.caller().await;
    stage.bus.server().stop().await.unwrap();
    stage.until_health(|report| !report.ready).await;
    for api in BOTH {
        refusal(api, caller.ask(api, "k", "plain", false).await, 503).await;
    }
    assert!(stage.asked().is_empty());
    stage.bus.server().restart().await.unwrap();
    recovered(stage, &caller).await;
    stage.until_health(|report| report.ready).await;
}

#[tokio::test]
async fn replies_that_are_lost_with_the_bus_are_no_error_and_later_ones_are_kept_again() {
    let stage = &mut impatient().await;
    let (_run, caller) = stage.caller().await;
    hear(caller.ask(Api::Anthropic, "before", "plain", false).await).await;
    stage.bus.server().restart().await.unwrap();
    recovered(stage, &caller).await;
    let before = stage.asked().len();
    let again = caller.ask(Api::Anthropic, "before", "plain", false).await;
    assert_eq!(again.status(), 200);
    assert!(!again.headers().contains_key("idempotent-replayed"));
    hear(again).await;
    assert_eq!(stage.asked().len(), before + 1);
    let kept = caller.ask(Api::Anthropic, "before", "plain", false).await;
    assert_eq!(kept.headers()["idempotent-replayed"], "true");
}

#[tokio::test]
async fn a_call_that_lands_while_the_bus_is_gone_is_told_kept_and_on_record_once() {
    for api in BOTH {
        let stage = &mut impatient().await;
        let (run, caller) = stage.caller().await;
        let mut hearing = Hearing::of(caller.ask(api, "k", "slow", true).await);
        hearing.until("4567").await;
        stage.bus.server().stop().await.unwrap();
        stage.model.open_gate("middle").unwrap();
        let heard = soon("the answer's end", hearing.rest()).await;
        assert!(heard.whole, "an answer under way is not cut because nobody knows");
        stage.bus.server().restart().await.unwrap();
        assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
        recovered(stage, &caller).await;
        let again = caller.ask(api, "k", "slow", true).await;
        assert_eq!(again.status(), 200);
        assert_eq!(hear(again).await, heard);
        let asked = stage.asked();
        let slow = asked.iter().filter(|record| record.rule.as_deref() == Some("slow"));
        assert_eq!(slow.count(), 1);
    }
}

#[tokio::test]
async fn what_became_over_while_the_bus_was_gone_is_cut_when_it_is_back() {
    let stage = &mut impatient().await;
    let (mut run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(Api::Anthropic, "k", "slow", true).await);
    hearing.until("4567").await;
    stage.bus.server().restart().await.unwrap();
    run.resume().await;
    assert!(!soon("the cut", hearing.rest()).await.whole);
}

#[tokio::test]
async fn a_proxy_that_starts_after_the_bucket_was_lost_has_one_again() {
    let stage = &mut impatient().await;
    let (_run, caller) = stage.caller().await;
    stage.proxy.kill();
    stage.bus.server().restart().await.unwrap();
    stage.start_proxy().await;
    let caller = caller.at(&stage.proxy.url);
    recovered(stage, &caller).await;
    hear(caller.ask(Api::OpenAi, "k", "plain", true).await).await;
    let again = caller.ask(Api::OpenAi, "k", "plain", true).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
}

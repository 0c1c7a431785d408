//! What is over is cut: for its listener, and with its run also upstream.

use rehearsal::Outcome;
use schemas::call::CallOutcome;

use crate::client::{Api, BOTH, Heard, Hearing, hear, refusal};
use crate::stage::{Stage, soon};

const RULES: &str = "
  - name: within
    when: {last_user: within}
    gate: {name: middle, after_tokens: 3}
    reply: {text: '0123456789abcdefghijklmnop'}
  - name: before
    when: {last_user: before}
    gate: start
    reply: {text: Late.}
  - name: hold
    when: {last_user: hold}
    fault: {kind: hold, after_tokens: 3}
    reply: {text: '0123456789abcdefghijklmnop'}
";

/// An answer of which the first tokens have come.
async fn begun(stage: &Stage, api: Api, text: &str) -> (crate::journal::Run, Hearing) {
    let (run, caller) = stage.caller().await;
    let mut hearing = Hearing::of(caller.ask(api, "k", text, true).await);
    hearing.until("89ab").await;
    (run, hearing)
}

/// What is heard until the cut. The model itself says no more.
async fn cut(mut hearing: Hearing) -> Heard {
    soon("the cut", hearing.rest()).await
}

#[tokio::test]
async fn an_old_epochs_stream_is_cut_and_the_new_one_joins_the_call() {
    for api in BOTH {
        let stage = Stage::playing(RULES).await;
        let (mut run, hearing) = begun(&stage, api, "within").await;
        run.resume().await;
        let heard = cut(hearing).await;
        assert!(!heard.whole, "a cut answer has no end");

        let joined = stage.caller_of(&run).await.ask(api, "k", "within", true).await;
        stage.model.open_gate("middle").unwrap();
        let all = hear(joined).await;
        assert!(all.whole && all.bytes.starts_with(&heard.bytes) && all.bytes.len() > heard.bytes.len());
        assert_eq!(stage.asked().len(), 1, "{api:?}");
        let record = stage.record(run.id).await;
        assert_eq!(record.outcome, CallOutcome::Completed);
        assert!(record.epoch < run.epoch, "the epoch that asked first is on record");
    }
}

#[tokio::test]
async fn an_old_epochs_call_is_kept_when_nobody_listens() {
    let stage = Stage::playing(RULES).await;
    let (mut run, hearing) = begun(&stage, Api::Anthropic, "within").await;
    run.resume().await;
    cut(hearing).await;
    stage.model.open_gate("middle").unwrap();
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::CallerGone);
    let again = stage.caller_of(&run).await.ask(Api::Anthropic, "k", "within", true).await;
    assert_eq!(again.headers()["idempotent-replayed"], "true");
    assert!(hear(again).await.whole);
    assert_eq!(stage.asked().len(), 1);
}

#[tokio::test]
async fn an_ended_runs_call_is_cut_upstream_too_and_booked() {
    for api in BOTH {
        let stage = Stage::playing(RULES).await;
        let (mut run, hearing) = begun(&stage, api, "within").await;
        run.finish().await;
        assert!(!cut(hearing).await.whole);
        stage.until_model(Outcome::CutByClient).await;
        let record = stage.record(run.id).await;
        assert_eq!((record.outcome, record.status), (CallOutcome::ProxyCut, Some(200)));
        assert!(record.usage_estimated && record.usage.output_tokens >= 3, "{record:#?}");
        assert!(record.cost.unwrap().0 > 0);
    }
}

#[tokio::test]
async fn a_run_that_is_released_and_then_ends_is_cut_upstream() {
    let stage = Stage::playing(RULES).await;
    let (mut run, hearing) = begun(&stage, Api::Anthropic, "within").await;
    run.wait().await;
    assert!(!cut(hearing).await.whole);
    run.finish().await;
    stage.until_model(Outcome::CutByClient).await;
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::ProxyCut);
}

#[tokio::test]
async fn who_waits_for_the_first_byte_is_told_that_the_epoch_is_over() {
    let stage = Stage::playing(RULES).await;
    for (api, stream) in [(Api::Anthropic, true), (Api::OpenAi, false)] {
        let (mut run, caller) = stage.caller().await;
        let asking = async { refusal(api, caller.ask(api, "k", "before", stream).await, 401).await };
        let ending = async {
            stage.until_waiting("start").await;
            run.resume().await;
        };
        tokio::join!(asking, ending);
    }
}

#[tokio::test]
async fn other_runs_do_not_matter() {
    let stage = Stage::playing(RULES).await;
    let (_run, mut hearing) = begun(&stage, Api::Anthropic, "within").await;
    for _ in 0..20 {
        let (mut other, _) = stage.caller().await;
        other.resume().await;
        other.finish().await;
    }
    stage.model.open_gate("middle").unwrap();
    assert!(soon("the end", hearing.rest()).await.whole);
}

//! One record a call that reached its upstream, with what it used and cost.

use kit::crew::Rate;
use schemas::Usage;
use schemas::call::CallOutcome;
use sha2::{Digest as _, Sha256};

use crate::client::{Api, BOTH, hear, question};
use crate::provider::Provider;
use crate::stage::{Setting, Stage};

const RULES: &str = "
  - name: cached
    when: {last_user: cached}
    reply: {text: '0123456789', usage: {input: 1000, output: 200, cache_read: 30000, cache_write: 4000}}
  - name: silent
    when: {last_user: silent}
    fault: {kind: missing_usage}
    reply: {text: '0123456789'}
  - name: cut
    when: {last_user: cut}
    fault: {kind: cut_stream, after_tokens: 4}
    reply: {text: '0123456789abcdef0123456789abcdef'}
  - name: error
    when: {last_user: error}
    fault: {kind: error_frame, after_tokens: 4}
    reply: {text: '0123456789abcdef0123456789abcdef'}
  - name: refused
    when: {last_user: refused}
    fault: {kind: rate_limited}
  - name: garbage
    when: {last_user: garbage}
    fault: {kind: garbage}
  - name: plain
    reply: {text: '0123456789'}
";

#[tokio::test]
async fn a_record_tells_what_the_model_counted() {
    let stage = Stage::playing(RULES).await;
    for (n, (api, stream)) in BOTH.into_iter().flat_map(|api| [(api, false), (api, true)]).enumerate() {
        let (run, caller) = stage.caller().await;
        hear(caller.ask(api, "key/1", "plain", stream).await).await;
        let (record, asked) = (stage.record(run.id).await, &stage.asked()[n]);
        let usage = Usage {
            input_tokens: asked.input_tokens.into(),
            output_tokens: asked.output_tokens.into(),
            ..Usage::default()
        };
        assert_eq!((record.usage, record.usage_estimated), (usage, false));
        assert_eq!(record.outcome, CallOutcome::Completed);
        assert_eq!((record.run_id, record.agent.as_str(), record.epoch), (run.id, "coder", run.epoch));
        assert_eq!(record.idempotency_key, "key/1");
        assert_eq!(record.api, if api == Api::Anthropic { "anthropic" } else { "openai" });
        assert_eq!(record.route, api.route());
        assert_eq!(record.model, format!("rehearsal/{}", api.model()));
        let body = question(api, "plain", stream).to_string();
        let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(body.as_bytes()));
        assert_eq!(record.request_digest, digest);
        assert_eq!(record.status, Some(200));
        assert!(record.rehearsal);
        assert!(record.first_byte_ms.unwrap() <= record.total_ms);
    }
}

#[tokio::test]
async fn a_call_is_priced_by_the_list_of_its_day() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    hear(caller.ask(Api::Anthropic, "k", "cached", true).await).await;
    let record = stage.record(run.id).await;
    let usage = Usage { input_tokens: 1000, output_tokens: 200, cache_write_tokens: 4000, cache_read_tokens: 30_000 };
    assert_eq!(record.usage, usage);
    // The list of 2021: neither the one before it nor the one that has not begun.
    assert_eq!(record.price_date.as_deref(), Some("2021-01-01"));
    let dollars = Rate::try_new("0.30").unwrap();
    assert_eq!(record.cost.unwrap().0, 30_000 + 30_000 + 150_000 + 90_000);
    assert_eq!(record.cost.unwrap().0, dollars.0, "thirty cents in millionths");
}

#[tokio::test]
async fn what_the_model_does_not_count_is_the_worst_case_and_marked() {
    let stage = Stage::playing(RULES).await;
    for stream in [false, true] {
        let (run, caller) = stage.caller().await;
        let heard = hear(caller.ask(Api::Anthropic, "k", "silent", stream).await).await;
        let record = stage.record(run.id).await;
        assert!(record.usage_estimated);
        assert_eq!(record.outcome, CallOutcome::Completed);
        let body = question(Api::Anthropic, "silent", stream).to_string().len() as u64;
        let asked = stage.asked().pop().unwrap();
        assert!(u64::from(asked.input_tokens) < body && u64::from(asked.output_tokens) < 10);
        // At the dearest rate of the input, which is that of writing the cache.
        assert!(record.usage.cache_write_tokens >= body);
        assert_eq!((record.usage.input_tokens, record.usage.cache_read_tokens), (0, 0));
        let output = if stream { 1000.min(heard.bytes.len() as u64) } else { 1000 };
        assert_eq!(record.usage.output_tokens, output);
        assert!(record.cost.unwrap().0 > 0);
    }
    let (run, caller) = stage.caller().await;
    let heard = hear(caller.ask(Api::OpenAi, "k", "silent", true).await).await;
    assert!(heard.whole);
    let record = stage.record(run.id).await;
    assert_eq!(record.usage.output_tokens, 3000, "what the route's model may have thought unseen");
}

#[tokio::test]
async fn each_end_is_on_record_as_what_it_was() {
    let stage = Stage::playing(RULES).await;
    let cases = [
        ("cut", true, Some(200), CallOutcome::UpstreamCut, true),
        ("cut", false, Some(200), CallOutcome::UpstreamError, true),
        ("error", true, Some(200), CallOutcome::UpstreamCut, true),
        ("refused", true, Some(429), CallOutcome::UpstreamError, false),
        ("garbage", false, Some(200), CallOutcome::UpstreamError, true),
    ];
    for api in BOTH {
        for (text, stream, status, outcome, estimated) in cases {
            let (run, caller) = stage.caller().await;
            hear(caller.ask(api, "k", text, stream).await).await;
            assert_eq!(stage.recorded(run.id).await, 1, "{api:?} {text} {stream} is told before it is on record");
            let record = stage.record(run.id).await;
            let what = format!("{api:?} {text} {stream}: {record:#?}");
            assert_eq!((record.status, record.outcome), (status, outcome), "{what}");
            assert_eq!(record.usage_estimated, estimated, "{what}");
            assert_eq!(record.cost.unwrap().0 > 0, estimated, "{what}");
        }
    }
}

#[tokio::test]
async fn input_that_was_told_before_the_cut_is_no_estimate() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    hear(caller.ask(Api::Anthropic, "k", "cut", true).await).await;
    let record = stage.record(run.id).await;
    let asked = stage.asked().pop().unwrap();
    assert_eq!(record.usage.input_tokens, u64::from(asked.input_tokens));
    assert!(record.usage.output_tokens >= u64::from(asked.output_tokens) && record.usage_estimated);
}

#[tokio::test]
async fn a_model_without_a_price_has_no_cost() {
    let body = "{\"type\":\"message\",\"model\":\"m\",\"usage\":{\"input_tokens\":3,\"output_tokens\":4}}";
    let provider = Provider::saying("200 OK", "content-type: application/json\r\n", body).await;
    let setting = Setting { routes: provider.route("own", "anthropic", ""), ..Setting::default() };
    let stage = Stage::with(RULES, setting).await;
    let (run, caller) = stage.caller().await;
    let mut asked = question(Api::Anthropic, "x", false);
    asked["model"] = "own".into();
    let answer = caller.call(Api::Anthropic, "k", &asked).send().await.unwrap();
    assert_eq!(hear(answer).await.bytes, body.as_bytes());
    let record = stage.record(run.id).await;
    assert_eq!((record.cost, record.price_date.as_deref(), record.rehearsal), (None, None, false));
    assert_eq!((record.model.as_str(), record.usage.total()), ("m", 7));
}

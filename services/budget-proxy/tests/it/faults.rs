//! What providers do wrong, and what callers see of it.

use std::time::Duration;

use budget_proxy::Patience;
use schemas::call::CallOutcome;
use serde_json::json;

use crate::client::{Api, BOTH, Caller, Hearing, hear, question, refusal};
use crate::provider::{Act, Provider, chunk, stream_head};
use crate::stage::{Setting, Stage, soon};

const RULES: &str = "
  - name: limited
    when: {last_user: limited}
    fault: {kind: rate_limited, retry_after: 7}
  - name: overloaded
    when: {last_user: overloaded}
    fault: {kind: overloaded, retry_after: 3}
  - name: down
    when: {last_user: down}
    fault: {kind: server_error, status: 504}
  - name: cut
    when: {last_user: cut}
    fault: {kind: cut_stream, after_tokens: 3}
    reply: {text: '0123456789abcdefghijklmnop'}
  - name: malformed
    when: {last_user: malformed}
    fault: {kind: malformed_frame, after_tokens: 3}
    reply: {text: '0123456789abcdefghijklmnop'}
  - name: error
    when: {last_user: error}
    fault: {kind: error_frame, after_tokens: 3}
    reply: {text: '0123456789abcdefghijklmnop'}
";

fn impatient() -> Patience {
    Patience { first_byte: Duration::from_millis(300), whole_answer: Duration::from_millis(400), ..Patience::SHIPPED }
}

/// A stage with routes of both APIs to each provider.
async fn stage(providers: &[Provider]) -> Stage {
    stage_with(Patience::SHIPPED, providers).await
}

async fn stage_with(patience: Patience, providers: &[Provider]) -> Stage {
    let routes = providers.iter().enumerate().flat_map(|(n, provider)| {
        [provider.route(&format!("claude-{n}"), "anthropic", ""), provider.route(&format!("gpt-{n}"), "openai", "")]
    });
    let setting = Setting { routes: routes.collect(), patience: Some(patience), ..Setting::default() };
    Stage::with(RULES, setting).await
}

/// Asks a provider.
async fn ask_nth(caller: &Caller, n: usize, api: Api, stream: bool) -> reqwest::Response {
    let mut body = question(api, "x", stream);
    body["model"] = json!(format!("{}-{n}", api.route()));
    soon("an answer", caller.call(api, "k", &body).send()).await.unwrap()
}

async fn ask(caller: &Caller, api: Api, stream: bool) -> reqwest::Response {
    ask_nth(caller, 0, api, stream).await
}

/// A streamed answer of the Messages API up to its last event.
const EVENTS: &str =
    "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\n";
const LAST_EVENT: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[tokio::test]
async fn a_providers_error_passes_with_its_status_and_when_to_try_again() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        let overloaded = if api == Api::Anthropic { 529 } else { 503 };
        for (text, status, pause) in
            [("limited", 429, Some("7")), ("overloaded", overloaded, Some("3")), ("down", 504, None)]
        {
            for stream in [false, true] {
                let direct = Caller::new(&stage.model.url(), "").post(api);
                let mut body = question(api, text, stream);
                body["model"] = json!(api.model());
                let wanted = hear(direct.body(body.to_string()).send().await.unwrap()).await;
                let answer = caller.ask(api, "k", text, stream).await;
                assert_eq!(answer.status(), status);
                let told = answer.headers().get("retry-after").map(|value| value.to_str().unwrap());
                assert_eq!(told, pause);
                let body = hear(answer).await;
                let strip = |bytes: &[u8]| {
                    // The model numbers its requests.
                    let mut error: serde_json::Value = serde_json::from_slice(bytes).unwrap();
                    error["request_id"].take();
                    error
                };
                assert_eq!(strip(&body.bytes), strip(&wanted.bytes));
            }
        }
    }
}

#[tokio::test]
async fn a_broken_stream_never_ends_well() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        for text in ["cut", "malformed"] {
            let heard = hear(caller.ask(api, "k", text, true).await).await;
            assert!(!heard.whole, "{api:?} {text}");
            assert!(!heard.bytes.is_empty(), "what came before is passed on");
        }
        let told = hear(caller.ask(api, "k", "error", true).await).await;
        assert!(told.whole && String::from_utf8_lossy(&told.bytes).contains("overloaded"), "{api:?}");
        let whole = caller.ask(api, "k", "cut", false).await;
        assert!(refusal(api, whole, 502).await.contains("broke off"));
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_last_event_is_broken_however_politely_it_ends() {
    let acts = vec![Act::Send([stream_head(), chunk(EVENTS.as_bytes()), chunk(b"")].concat())];
    let provider = [Provider::answering(acts).await];
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!((heard.bytes.as_slice(), heard.whole), (EVENTS.as_bytes(), false));
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::UpstreamCut);
}

#[tokio::test]
async fn a_stream_is_whole_with_its_last_event_though_the_connection_stays_open() {
    let acts =
        vec![Act::Send([stream_head(), chunk(EVENTS.as_bytes()), chunk(LAST_EVENT.as_bytes())].concat()), Act::Hang];
    let provider = [Provider::answering(acts).await];
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!((heard.bytes, heard.whole), ([EVENTS, LAST_EVENT].concat().into_bytes(), true));
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = Provider::saying("200 OK", "", "{}").await;
    let location = format!("location: {}/v1/messages\r\n", elsewhere.url);
    let mut providers = Vec::new();
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        providers.push(Provider::saying(status, &location, "").await);
    }
    let stage = stage(&providers).await;
    for (n, provider) in providers.iter().enumerate() {
        let (run, caller) = stage.caller().await;
        let answer = ask_nth(&caller, n, Api::Anthropic, false).await;
        assert!(!answer.headers().contains_key("location"));
        let message = refusal(Api::Anthropic, answer, 502).await;
        assert!(message.contains("redirect"), "{message}");
        assert_eq!(provider.sent().len(), 1);
        let record = stage.record(run.id).await;
        assert_eq!(record.outcome, CallOutcome::UpstreamError);
    }
    assert!(elsewhere.sent().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_silent_is_given_up() {
    let mute = Provider::answering(vec![Act::Hang]).await;
    let head_only = Provider::answering(vec![Act::Send(stream_head()), Act::Hang]).await;
    let providers = [mute, head_only];
    let stage = stage_with(impatient(), &providers).await;
    for (n, status) in [None, Some(200)].into_iter().enumerate() {
        for (api, stream) in [(Api::Anthropic, true), (Api::OpenAi, false)] {
            let (run, caller) = stage.caller().await;
            let answer = ask_nth(&caller, n, api, stream).await;
            assert!(refusal(api, answer, 504).await.contains("silent"));
            let record = stage.record(run.id).await;
            assert_eq!((record.status, record.outcome), (status, CallOutcome::UpstreamError));
            assert!(record.usage_estimated, "it may have worked");
            assert!(record.usage.total() > 1000, "{record:#?}");
        }
    }
}

#[tokio::test]
async fn a_provider_that_falls_silent_within_an_answer_is_given_up() {
    let acts = vec![Act::Send([stream_head(), chunk(EVENTS.as_bytes())].concat()), Act::Hang];
    let provider = [Provider::answering(acts).await];
    let patience = Patience { next_byte: Duration::from_millis(300), ..Patience::SHIPPED };
    let stage = stage_with(patience, &provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!((heard.bytes.as_slice(), heard.whole), (EVENTS.as_bytes(), false));
    let record = stage.record(run.id).await;
    assert_eq!((record.outcome, record.usage.input_tokens), (CallOutcome::UpstreamCut, 5));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_of_the_api() {
    const JSON: &str = "content-type: application/json\r\n";
    const GZIP: &str = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let mut providers = Vec::new();
    for (headers, body) in [
        ("content-type: text/html\r\n", "<html>It works!</html>"),
        (JSON, "{\"type\":\"mess"),
        (JSON, "{\"hello\":\"world\"}"),
        (GZIP, "{\"type\":\"message\",\"choices\":[]}"),
        ("", ""),
    ] {
        providers.push(Provider::saying("200 OK", headers, body).await);
    }
    let stage = stage(&providers).await;
    for n in 0..providers.len() {
        for (api, stream) in [(Api::Anthropic, true), (Api::OpenAi, false)] {
            let (run, caller) = stage.caller().await;
            refusal(api, ask_nth(&caller, n, api, stream).await, 502).await;
            assert_eq!(stage.record(run.id).await.outcome, CallOutcome::UpstreamError, "{n} {api:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_before_any_of_it_is_told_is_none() {
    let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{\"type\": \"mess";
    let (half, head) = (half.as_bytes().to_vec(), stream_head());
    let providers = [
        Provider::answering(vec![Act::Send(half.clone())]).await,
        Provider::answering(vec![Act::Send(half), Act::Reset]).await,
        Provider::answering(vec![Act::Send(head.clone())]).await,
        Provider::answering(vec![Act::Send(head), Act::Reset]).await,
        Provider::answering(vec![Act::Reset]).await,
    ];
    let stage = stage(&providers).await;
    for n in 0..providers.len() {
        for (api, stream) in [(Api::Anthropic, true), (Api::OpenAi, false)] {
            let (run, caller) = stage.caller().await;
            let message = refusal(api, ask_nth(&caller, n, api, stream).await, 502).await;
            assert!(message.contains("broke off"), "{n} {api:?}: {message}");
            let record = stage.record(run.id).await;
            assert_eq!(record.outcome, CallOutcome::UpstreamError, "{n} {api:?}");
            assert!(record.usage_estimated, "it may have worked");
        }
    }
}

#[tokio::test]
async fn who_can_not_be_reached_is_not_on_record() {
    let gone = [Provider::answering(Vec::new()).await];
    let stage = stage(&gone).await;
    drop(gone);
    let (run, caller) = stage.caller().await;
    let answer = ask(&caller, Api::Anthropic, true).await;
    assert!(refusal(Api::Anthropic, answer, 502).await.contains("reached"));
    hear(caller.ask(Api::Anthropic, "other", "error", true).await).await;
    assert_eq!(stage.record(run.id).await.idempotency_key, "other");
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_on_record() {
    let provider = [Provider::answering(Vec::new()).await];
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    refusal(Api::OpenAi, ask(&caller, Api::OpenAi, true).await, 502).await;
    let record = stage.record(run.id).await;
    assert_eq!((record.outcome, record.status), (CallOutcome::UpstreamError, None));
    assert!(record.usage_estimated && record.usage.output_tokens == 500);
    assert_eq!(provider[0].sent().len(), 1, "it is not asked again behind the caller's back");
}

/// A streamed answer of so many events of so many bytes.
fn stream_of(events: usize, bytes: usize) -> Vec<Act> {
    let text = "x".repeat(bytes);
    let event = format!("event: x\ndata: {{\"type\":\"x\",\"t\":\"{text}\"}}\n\n");
    let mut sent = stream_head();
    for _ in 0..events {
        sent.extend_from_slice(&chunk(event.as_bytes()));
    }
    sent.extend_from_slice(&[chunk(LAST_EVENT.as_bytes()), chunk(b"")].concat());
    vec![Act::Send(sent)]
}

#[tokio::test]
async fn a_huge_answer_is_cut() {
    let body = format!("{{\"choices\": [], \"x\": \"{}\"}}", "x".repeat(17 << 20));
    let providers = [
        Provider::answering(stream_of(17, 1 << 20)).await,
        Provider::saying("200 OK", "content-type: application/json\r\n", &body).await,
    ];
    let stage = stage(&providers).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert!(!heard.whole && heard.bytes.len() <= budget_proxy::answer::MAX_ANSWER_BYTES);
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::UpstreamCut);
    let answer = ask_nth(&caller, 1, Api::OpenAi, false).await;
    assert!(refusal(Api::OpenAi, answer, 502).await.contains("more than"));
}

#[tokio::test]
async fn a_slow_listener_keeps_nobody_waiting() {
    // Twelve megabytes are more than sockets hold.
    let provider = [Provider::answering(stream_of(200, 60_000)).await];
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let mut slow = Hearing::of(ask(&caller, Api::Anthropic, true).await);
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
    let second = hear(ask(&caller, Api::Anthropic, true).await).await;
    let heard = soon("the slow one", slow.rest()).await;
    assert!(heard.whole && heard == second);
    assert_eq!(provider[0].sent().len(), 1);
}

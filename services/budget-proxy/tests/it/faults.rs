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
    Patience {
        first_byte: Duration::from_millis(300),
        whole_answer: Duration::from_millis(400),
        next_byte: Duration::from_millis(300),
        ..Patience::SHIPPED
    }
}

/// A stage with routes of both APIs to `provider`.
async fn stage(provider: &Provider) -> Stage {
    let setting = Setting {
        routes: [
            provider.route("far-claude", "anthropic", ""),
            provider.route("far-gpt", "openai", ""),
        ]
        .concat(),
        patience: Some(impatient()),
    };
    Stage::with(RULES, setting).await
}

async fn ask(caller: &Caller, api: Api, stream: bool) -> reqwest::Response {
    let mut body = question(api, "x", stream);
    body["model"] = json!(if api == Api::Anthropic {
        "far-claude"
    } else {
        "far-gpt"
    });
    soon("an answer", caller.call(api, "k", &body).send())
        .await
        .unwrap()
}

/// A streamed answer of the Messages API up to its last event.
const EVENTS: &str = "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"usage\":{\"input_tokens\":5}}}\n\n";
const LAST_EVENT: &str = "event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n";

#[tokio::test]
async fn a_providers_error_passes_with_its_status_and_when_to_try_again() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        let overloaded = if api == Api::Anthropic { 529 } else { 503 };
        for (text, status, pause) in [
            ("limited", 429, Some("7")),
            ("overloaded", overloaded, Some("3")),
            ("down", 504, None),
        ] {
            for stream in [false, true] {
                let direct = Caller::new(&stage.model.url(), "").post(api);
                let mut body = question(api, text, stream);
                body["model"] = json!(api.model());
                let wanted = hear(direct.body(body.to_string()).send().await.unwrap()).await;
                let answer = caller.ask(api, "k", text, stream).await;
                assert_eq!(answer.status(), status);
                let told = answer
                    .headers()
                    .get("retry-after")
                    .map(|value| value.to_str().unwrap());
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
        assert!(
            told.whole && String::from_utf8_lossy(&told.bytes).contains("overloaded"),
            "{api:?}"
        );
        let whole = caller.ask(api, "k", "cut", false).await;
        assert!(refusal(api, whole, 502).await.contains("broke off"));
    }
}

#[tokio::test]
async fn a_stream_that_ends_before_its_last_event_is_broken_however_politely_it_ends() {
    let acts = vec![Act::Send(
        [stream_head(), chunk(EVENTS.as_bytes()), chunk(b"")].concat(),
    )];
    let provider = Provider::answering(acts).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!(
        (heard.bytes.as_slice(), heard.whole),
        (EVENTS.as_bytes(), false)
    );
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::UpstreamCut);
}

#[tokio::test]
async fn a_stream_is_whole_with_its_last_event_though_the_connection_stays_open() {
    let acts = vec![
        Act::Send(
            [
                stream_head(),
                chunk(EVENTS.as_bytes()),
                chunk(LAST_EVENT.as_bytes()),
            ]
            .concat(),
        ),
        Act::Hang,
    ];
    let provider = Provider::answering(acts).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!(
        (heard.bytes, heard.whole),
        ([EVENTS, LAST_EVENT].concat().into_bytes(), true)
    );
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
}

#[tokio::test]
async fn a_redirect_is_not_followed_with_the_key() {
    let elsewhere = Provider::saying("200 OK", "", "{}").await;
    let location = format!("location: {}/v1/messages\r\n", elsewhere.url);
    for status in [
        "301 Moved",
        "302 Found",
        "307 Temporary Redirect",
        "308 Permanent Redirect",
    ] {
        let provider = Provider::saying(status, &location, "").await;
        let stage = stage(&provider).await;
        let (run, caller) = stage.caller().await;
        let answer = ask(&caller, Api::Anthropic, false).await;
        assert!(!answer.headers().contains_key("location"));
        assert!(
            refusal(Api::Anthropic, answer, 502)
                .await
                .contains("redirect")
        );
        assert_eq!(provider.sent().len(), 1);
        assert_eq!(
            stage.record(run.id).await.outcome,
            CallOutcome::UpstreamError
        );
    }
    assert!(elsewhere.sent().is_empty());
}

#[tokio::test]
async fn a_provider_that_is_silent_is_given_up() {
    let head_only = Act::Send(stream_head());
    for (acts, status) in [
        (vec![Act::Hang], None),
        (vec![head_only, Act::Hang], Some(200)),
    ] {
        let provider = Provider::answering(acts).await;
        let stage = stage(&provider).await;
        for (api, stream) in [(Api::Anthropic, true), (Api::OpenAi, false)] {
            let (run, caller) = stage.caller().await;
            assert!(
                refusal(api, ask(&caller, api, stream).await, 504)
                    .await
                    .contains("silent")
            );
            let record = stage.record(run.id).await;
            assert_eq!(record.status, status);
            assert!(
                record.usage_estimated && record.usage.total() > 1000,
                "it may have worked: {record:#?}"
            );
        }
    }
}

#[tokio::test]
async fn a_provider_that_falls_silent_within_an_answer_is_given_up() {
    let acts = vec![
        Act::Send([stream_head(), chunk(EVENTS.as_bytes())].concat()),
        Act::Hang,
    ];
    let provider = Provider::answering(acts).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert_eq!(
        (heard.bytes.as_slice(), heard.whole),
        (EVENTS.as_bytes(), false)
    );
    let record = stage.record(run.id).await;
    assert_eq!(
        (record.outcome, record.usage.input_tokens),
        (CallOutcome::UpstreamCut, 5)
    );
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_of_the_api() {
    for (headers, body) in [
        ("content-type: text/html\r\n", "<html>It works!</html>"),
        ("content-type: application/json\r\n", "{\"type\":\"mess"),
        (
            "content-type: application/json\r\n",
            "{\"hello\":\"world\"}",
        ),
        (
            "content-type: application/json\r\ncontent-encoding: gzip\r\n",
            "{\"type\":\"message\",\"choices\":[]}",
        ),
        ("", ""),
    ] {
        let provider = Provider::saying("200 OK", headers, body).await;
        let stage = stage(&provider).await;
        for api in BOTH {
            for stream in [false, true] {
                let (run, caller) = stage.caller().await;
                refusal(api, ask(&caller, api, stream).await, 502).await;
                assert_eq!(
                    stage.record(run.id).await.outcome,
                    CallOutcome::UpstreamError
                );
            }
        }
    }
}

#[tokio::test]
async fn who_can_not_be_reached_is_not_on_record() {
    let gone = Provider::answering(Vec::new()).await;
    let setting = Setting {
        routes: gone.route("far-claude", "anthropic", ""),
        ..Setting::default()
    };
    drop(gone);
    let stage = Stage::with(RULES, setting).await;
    let (run, caller) = stage.caller().await;
    assert!(
        refusal(
            Api::Anthropic,
            ask(&caller, Api::Anthropic, true).await,
            502
        )
        .await
        .contains("reached")
    );
    let known = caller.ask(Api::Anthropic, "other", "error", true).await;
    hear(known).await;
    assert_eq!(stage.record(run.id).await.idempotency_key, "other");
}

#[tokio::test]
async fn a_connection_that_is_closed_without_an_answer_is_on_record() {
    let provider = Provider::answering(Vec::new()).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    refusal(Api::OpenAi, ask(&caller, Api::OpenAi, true).await, 502).await;
    let record = stage.record(run.id).await;
    assert_eq!(
        (record.outcome, record.status),
        (CallOutcome::UpstreamError, None)
    );
    assert!(record.usage_estimated && record.usage.output_tokens == 500);
    assert_eq!(
        provider.sent().len(),
        1,
        "it is not asked again behind the caller's back"
    );
}

#[tokio::test]
async fn a_huge_answer_is_cut() {
    let text = "x".repeat(1 << 20);
    let event =
        format!("event: content_block_delta\ndata: {{\"type\":\"x\",\"t\":\"{text}\"}}\n\n");
    let mut sent = stream_head();
    for _ in 0..17 {
        sent.extend_from_slice(&chunk(event.as_bytes()));
    }
    sent.extend_from_slice(&[chunk(LAST_EVENT.as_bytes()), chunk(b"")].concat());
    let provider = Provider::answering(vec![Act::Send(sent)]).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let heard = hear(ask(&caller, Api::Anthropic, true).await).await;
    assert!(!heard.whole && heard.bytes.len() <= budget_proxy::answer::MAX_ANSWER_BYTES);
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::UpstreamCut);

    let body = format!("{{\"choices\": [], \"x\": \"{}\"}}", "x".repeat(17 << 20));
    let provider = Provider::saying("200 OK", "content-type: application/json\r\n", &body).await;
    let stage = self::stage(&provider).await;
    let (_run, caller) = stage.caller().await;
    assert!(
        refusal(Api::OpenAi, ask(&caller, Api::OpenAi, false).await, 502)
            .await
            .contains("more than")
    );
}

#[tokio::test]
async fn a_slow_listener_keeps_nobody_waiting() {
    let event = format!(
        "event: x\ndata: {{\"type\":\"x\",\"t\":\"{}\"}}\n\n",
        "x".repeat(60_000)
    );
    let mut sent = stream_head();
    for _ in 0..200 {
        sent.extend_from_slice(&chunk(event.as_bytes()));
    }
    sent.extend_from_slice(&[chunk(LAST_EVENT.as_bytes()), chunk(b"")].concat());
    let provider = Provider::answering(vec![Act::Send(sent)]).await;
    let stage = stage(&provider).await;
    let (run, caller) = stage.caller().await;
    let mut slow = Hearing::of(ask(&caller, Api::Anthropic, true).await);
    // Twelve megabytes are more than sockets hold, and the call lands nevertheless.
    assert_eq!(stage.record(run.id).await.outcome, CallOutcome::Completed);
    let second = hear(ask(&caller, Api::Anthropic, true).await).await;
    let heard = soon("the slow one", slow.rest()).await;
    assert!(heard.whole && heard == second);
    assert_eq!(provider.sent().len(), 1);
}

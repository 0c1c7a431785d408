//! Each fault that providers show, by both APIs.

use std::time::{Duration, Instant};

use rehearsal::Outcome;
use serde_json::{Value, json};

use crate::client::{Api, BOTH, Rig, events, parse_events, said, streamed_text, until_broken};

/// An answer of 10 tokens, and something wrong with it.
fn faulty(fault: &str) -> String {
    format!(
        "
  - name: faulty
    fault: {{{fault}}}
    reply: {{text: \"0123456789012345678901234567890123456789\"}}
"
    )
}

fn error_type(error: &Value) -> &str {
    error["error"]["type"].as_str().unwrap()
}

#[tokio::test]
async fn a_rate_limit_says_when_to_try_again_and_ends_after_its_times() {
    for (api, kind) in BOTH.into_iter().zip(["rate_limit_error", "requests"]) {
        let rig = Rig::playing(&faulty("kind: rate_limited, retry_after: 7, times: 2")).await;
        for stream in [false, true] {
            let response = if stream { rig.ask_streaming(api, "x").await } else { rig.ask(api, "x").await };
            assert_eq!(response.status(), 429);
            assert_eq!(response.headers()["retry-after"], "7");
            let error: Value = response.json().await.unwrap();
            assert_eq!(error_type(&error), kind);
        }
        assert_eq!(rig.ask(api, "x").await.status(), 200, "the third time it answers");
        assert_eq!(rig.ask(api, "y").await.status(), 429, "another conversation starts anew");
        let outcomes: Vec<Outcome> = rig.server.requests(0).requests.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes[..2], [Outcome::Failed, Outcome::Failed]);
        assert_eq!(rig.server.requests(0).requests[0].fault.as_deref(), Some("rate_limited"));
    }
}

#[tokio::test]
async fn errors_of_the_server_have_the_status_and_shape_of_each_api() {
    let cases = [
        ("kind: overloaded", Api::Anthropic, 529, "overloaded_error"),
        ("kind: overloaded", Api::Openai, 503, "server_error"),
        ("kind: server_error", Api::Anthropic, 500, "api_error"),
        ("kind: server_error", Api::Openai, 500, "server_error"),
        ("kind: server_error, status: 504", Api::Anthropic, 504, "timeout_error"),
        ("kind: server_error, status: 502", Api::Openai, 502, "server_error"),
    ];
    for (fault, api, status, kind) in cases {
        let rig = Rig::playing(&format!("\n  - name: down\n    fault: {{{fault}}}\n")).await;
        let response = rig.ask_streaming(api, "x").await;
        assert_eq!(response.status(), status);
        assert!(response.headers().get("retry-after").is_none());
        let error: Value = response.json().await.unwrap();
        assert_eq!(error_type(&error), kind);
    }
}

#[tokio::test]
async fn garbage_is_no_json() {
    for api in BOTH {
        let rig = Rig::playing("\n  - name: broken\n    fault: {kind: garbage}\n").await;
        let response = rig.ask(api, "x").await;
        assert_eq!(response.status(), 200);
        assert!(response.headers()["content-type"].to_str().unwrap().starts_with("text/html"));
        assert!(response.json::<Value>().await.is_err());
    }
}

#[tokio::test]
async fn a_cut_stream_breaks_after_what_it_brought() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: cut_stream, after_tokens: 3")).await;
        let (text, broken) = until_broken(rig.ask_streaming(api, "x").await).await;

        assert!(broken, "{api:?}: the connection ends before the stream does");
        assert_eq!(streamed_text(api, &parse_events(&text)), "012345678901");
        let seen = rig.server.requests(0).requests;
        assert_eq!((seen[0].outcome, seen[0].output_tokens), (Outcome::CutByServer, 3));
    }
}

#[tokio::test]
async fn a_cut_answer_is_shorter_than_announced() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: cut_stream")).await;
        let response = rig.ask(api, "x").await;
        let announced = response.content_length().unwrap();
        let (text, broken) = until_broken(response).await;

        assert!(broken);
        assert!(!text.is_empty() && (text.len() as u64) < announced);
    }
}

#[tokio::test]
async fn a_malformed_frame_comes_among_good_ones() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: malformed_frame, after_tokens: 1")).await;
        let streamed = events(rig.ask_streaming(api, "x").await).await;
        let broken = streamed.iter().filter(|event| event.as_str().is_some_and(|text| text != "[DONE]")).count();
        assert_eq!(broken, 1, "{api:?}");
        assert_eq!(streamed_text(api, &streamed).len(), 40);

        assert!(rig.ask(api, "x").await.json::<Value>().await.is_err(), "a whole answer is no JSON");
    }
}

#[tokio::test]
async fn an_error_in_a_stream_is_its_end() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: error_frame, after_tokens: 2")).await;
        let streamed = events(rig.ask_streaming(api, "x").await).await;
        assert_eq!(streamed_text(api, &streamed).len(), 8);
        let kind = error_type(streamed.last().unwrap()).to_owned();
        assert_eq!(kind, if api == Api::Anthropic { "overloaded_error" } else { "server_error" });

        let seen = rig.server.requests(0).requests;
        assert_eq!((seen[0].outcome, seen[0].output_tokens), (Outcome::CutByServer, 2));

        let whole = rig.ask(api, "x").await;
        assert_eq!(whole.status(), if api == Api::Anthropic { 529 } else { 503 });
    }
}

#[tokio::test]
async fn usage_may_be_missing_or_wrong() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: missing_usage")).await;
        let whole: Value = rig.ask(api, "x").await.json().await.unwrap();
        assert!(whole.get("usage").is_none());
        let streamed = events(rig.ask_streaming(api, "x").await).await;
        assert!(streamed.iter().all(|event| event.get("usage").is_none_or(Value::is_null)));
        assert!(streamed[0]["message"].get("usage").is_none());

        let rig = Rig::playing(&faulty("kind: wrong_usage, output_tokens: 999999")).await;
        let whole: Value = rig.ask(api, "x").await.json().await.unwrap();
        let told = if api == Api::Anthropic { "output_tokens" } else { "completion_tokens" };
        assert_eq!(whole["usage"][told], 999_999);
        assert_eq!(rig.server.requests(0).requests[0].output_tokens, 10, "what went out is counted rightly");
    }
}

#[tokio::test]
async fn a_stall_only_takes_time() {
    for api in BOTH {
        let rig = Rig::playing(&faulty("kind: stall, after_tokens: 2, ms: 80")).await;
        let started = Instant::now();
        let streamed = events(rig.ask_streaming(api, "x").await).await;
        assert_eq!(streamed_text(api, &streamed).len(), 40);
        assert!(started.elapsed() >= Duration::from_millis(80));

        let started = Instant::now();
        let whole: Value = rig.ask(api, "x").await.json().await.unwrap();
        assert_eq!(said(api, &whole).len(), 40);
        assert!(started.elapsed() >= Duration::from_millis(80));
    }
}

#[tokio::test]
async fn a_held_answer_ends_with_the_client_that_gives_up() {
    for api in BOTH {
        for (fault, stream) in [("kind: hold, after_tokens: 4", true), ("kind: hold", true), ("kind: hold", false)] {
            let rig = Rig::playing(&faulty(fault)).await;
            let asked = async {
                let response = if stream { rig.ask_streaming(api, "x").await } else { rig.ask(api, "x").await };
                until_broken(response).await
            };
            let given_up = async {
                let sent = if fault.contains("after") { 4 } else { 0 };
                rig.until_seen(|seen| {
                    seen.first().is_some_and(|record| record.rule.is_some() && record.output_tokens == sent)
                })
                .await
            };
            tokio::select! {
                _ = asked => panic!("a held answer ended by itself"),
                seen = given_up => assert_eq!(seen[0].outcome, Outcome::InProgress),
            }
            rig.until_seen(|seen| seen[0].outcome == Outcome::CutByClient).await;
        }
    }
}

#[tokio::test]
async fn latency_is_for_each_token() {
    let rules = "
  - name: slow
    latency: {first_token_ms: 30, per_token_ms: 10}
    reply: {text: '0123456789012345678901234567890123456789'}
";
    for api in BOTH {
        let rig = Rig::playing(rules).await;
        for stream in [false, true] {
            let started = Instant::now();
            let response = if stream { rig.ask_streaming(api, "x").await } else { rig.ask(api, "x").await };
            response.bytes().await.unwrap();
            assert!(started.elapsed() >= Duration::from_millis(30 + 9 * 10), "{:?}", started.elapsed());
        }
    }
}

#[tokio::test]
async fn a_rule_with_times_gives_way_to_the_next() {
    let rules = "
  - name: first
    times: 1
    reply: {text: once}
  - name: then
    reply: {text: ever after}
";
    let rig = Rig::playing(rules).await;
    let mut texts = Vec::new();
    for _ in 0..3 {
        let answer: Value = rig.ask(Api::Openai, "x").await.json().await.unwrap();
        texts.push(said(Api::Openai, &answer).to_owned());
    }
    assert_eq!(json!(texts), json!(["once", "ever after", "ever after"]));
}

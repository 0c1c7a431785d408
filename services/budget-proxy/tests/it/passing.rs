//! What passes: requests and answers of both APIs, untouched.

use serde_json::json;

use crate::client::{Api, BOTH, Caller, hear, json_of, question};
use crate::stage::Stage;

const RULES: &str = "
  - name: think
    when: {last_user: think}
    reply: {thinking: 'Let me see.', text: 'Seen. Gesehen: äöü 日本語 🦀', usage: {cache_read: 7, cache_write: 9}}
  - name: tools
    when: {last_user: tools}
    reply: {text: 'I look.', tools: [{name: read, arguments: {path: a.rs}}, {name: search, arguments: {for: 'x\"y'}}]}
  - name: long
    when: {last_user: long}
    reply: {text: '0123456789012345678901234567890123456789012345678901234567890123456789'}
";

/// What the model answers when it is asked directly, with the model's own name.
async fn directly(stage: &Stage, api: Api, text: &str, stream: bool) -> Vec<u8> {
    let caller = Caller::new(&stage.model.url(), "anybody");
    let mut body = question(api, text, stream);
    body["model"] = json!(api.model());
    let response = caller.post(api).body(body.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    hear(response).await.bytes
}

#[tokio::test]
async fn answers_of_both_apis_pass_untouched_streamed_and_not() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        for stream in [false, true] {
            for text in ["think", "tools", "long"] {
                let key = format!("{api:?}/{stream}/{text}");
                let wanted = directly(&stage, api, text, stream).await;
                let response = caller.ask(api, &key, text, stream).await;
                assert_eq!(response.status(), 200, "{key}");
                let content_type = response.headers()["content-type"].to_str().unwrap();
                assert_eq!(content_type.starts_with("text/event-stream"), stream, "{key}");
                assert!(!response.headers().contains_key("idempotent-replayed"));
                let heard = hear(response).await;
                assert!(heard.whole, "{key}");
                // The answers' ids derive from the request's bytes, so those were the same as well.
                assert_eq!(String::from_utf8_lossy(&heard.bytes), String::from_utf8_lossy(&wanted), "{key}");
            }
        }
    }
}

#[tokio::test]
async fn the_routes_model_is_asked_and_told() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        let answer = json_of(caller.ask(api, "k", "think", false).await).await;
        assert_eq!(answer["model"], format!("rehearsal/{}", api.model()));
        assert_eq!(stage.asked().last().unwrap().model, api.model());
    }
}

#[tokio::test]
async fn a_bearer_may_stand_where_sdks_put_keys() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    let request = caller.post(Api::Anthropic).header("x-api-key", &caller.bearer);
    let body = question(Api::Anthropic, "think", false).to_string();
    let response = request.body(body).send().await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn a_call_without_a_key_of_its_own_is_made_each_time() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    for _ in 0..2 {
        let request = caller.post(Api::OpenAi).bearer_auth(&caller.bearer);
        let body = question(Api::OpenAi, "think", true).to_string();
        assert!(hear(request.body(body).send().await.unwrap()).await.whole);
    }
    assert_eq!(stage.asked().len(), 2);
    assert_eq!(stage.records(run.id, 2).await.len(), 2);
}

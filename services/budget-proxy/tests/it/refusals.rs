//! What is refused, in the words of the API, before anything is forwarded.

use std::time::Duration;

use budget_proxy::Patience;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;

use crate::client::{Api, BOTH, Caller, hear, json_of, question, refusal};
use crate::stage::{Setting, Stage, soon};

const RULES: &str = "
  - name: any
    reply: {text: Hello.}
";

async fn refused(caller: &Caller, api: Api, body: Vec<u8>, status: u16) -> String {
    let request = caller.post(api).bearer_auth(&caller.bearer).body(body);
    refusal(api, soon("a refusal", request.send()).await.unwrap(), status).await
}

fn with(api: Api, name: &str, value: Value) -> Vec<u8> {
    let mut body = question(api, "x", false);
    body[name] = value;
    body.to_string().into_bytes()
}

#[tokio::test]
async fn bad_requests_are_refused_with_their_reason_and_go_nowhere() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for api in BOTH {
        for (body, status, says) in [
            (b"{\"model\": \"cla".to_vec(), 400, "not a JSON object"),
            (b"".to_vec(), 400, "not a JSON object"),
            (b"[1, 2]".to_vec(), 400, "not a JSON object"),
            (b"{\"model\": \"claude\", \"x\": \"\xff\"}".to_vec(), 400, "UTF-8"),
            (b"{\"messages\": []}".to_vec(), 400, "names no model"),
            (with(api, "model", json!(7)), 400, "names no model"),
            (with(api, "stream", json!("yes")), 400, "`stream`"),
            (with(api, "model", json!("opus")), 404, "\"opus\""),
            (with(api, "model", json!("foreign")), 403, "scope of agent coder"),
            (b"{\"model\": \"claude\", \"model\": \"gpt\"}".to_vec(), 400, "duplicate field"),
        ] {
            let message = refused(&caller, api, body, status).await;
            assert!(message.contains(says), "{message}");
        }
    }
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn a_request_that_is_too_large_is_told_so() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    let text = "x".repeat(budget_proxy::intake::MAX_REQUEST_BYTES);
    for api in BOTH {
        let body = with(api, "messages", json!([{"role": "user", "content": text}]));
        let message = refused(&caller, api, body.clone(), 413).await;
        assert!(message.contains("33554432"), "{message}");
        // Also when its length is not announced.
        let chunks = body.chunks(1 << 20).map(|part| Ok::<_, std::io::Error>(part.to_vec()));
        let chunks: Vec<_> = chunks.collect();
        let body = reqwest::Body::wrap_stream(futures::stream::iter(chunks));
        let request = caller.post(api).bearer_auth(&caller.bearer).body(body);
        refusal(api, soon("a refusal", request.send()).await.unwrap(), 413).await;
    }
    assert!(stage.asked().is_empty());
    assert_eq!(caller.ask(Api::OpenAi, "k", "hi", false).await.status(), 200);
}

#[tokio::test]
async fn a_large_request_without_a_bearer_gets_its_refusal() {
    let stage = Stage::playing(RULES).await;
    let nobody = Caller::new(&stage.proxy.url, "nobody");
    let body = with(Api::Anthropic, "system", json!("x".repeat(8 << 20)));
    refused(&nobody, Api::Anthropic, body, 401).await;
}

#[tokio::test]
async fn a_large_request_passes() {
    let stage = Stage::playing(RULES).await;
    let (run, caller) = stage.caller().await;
    let body = with(Api::Anthropic, "system", json!("x".repeat(8 << 20)));
    let request = caller.post(Api::Anthropic).bearer_auth(&caller.bearer).body(body);
    let response = soon("an answer", request.send()).await.unwrap();
    assert_eq!(response.status(), 200);
    hear(response).await;
    assert_eq!(u64::from(stage.asked()[0].input_tokens), stage.record(run.id).await.usage.input_tokens);
}

#[tokio::test]
async fn a_request_that_does_not_come_in_time_is_refused_and_keeps_no_room() {
    let (soon_over, long) = (Duration::from_millis(200), Duration::from_mins(5));
    let short_pause = Patience { request_next: soon_over, request_all: long, ..Patience::SHIPPED };
    let short_in_all = Patience { request_next: long, request_all: soon_over, ..Patience::SHIPPED };
    for patience in [short_pause, short_in_all] {
        let setting = Setting { patience: Some(patience), ..Setting::default() };
        let stage = Stage::with(RULES, setting).await;
        let (_run, caller) = stage.caller().await;
        // Together they take all the room that there is.
        let begun = (0..8).map(|_| caller.begin(Api::OpenAi, "k", budget_proxy::intake::MAX_REQUEST_BYTES, "{"));
        for mut stream in futures::future::join_all(begun).await {
            let mut told = String::new();
            soon("a refusal", stream.read_to_string(&mut told)).await.unwrap();
            assert!(told.starts_with("HTTP/1.1 408 ") && told.contains("did not come in time"), "{told}");
        }
        assert_eq!(caller.ask(Api::OpenAi, "k", "hi", false).await.status(), 200);
        assert_eq!(stage.asked().len(), 1);
    }
}

#[tokio::test]
async fn keys_are_text_of_bounded_length() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    for key in ["", &"x".repeat(257)] {
        let message = refusal(Api::Anthropic, caller.ask(Api::Anthropic, key, "x", false).await, 400).await;
        assert!(message.contains("idempotency-key"), "{message}");
    }
    let request = caller.call(Api::OpenAi, "k", &question(Api::OpenAi, "x", false));
    let request = request.header("idempotency-key", "second");
    assert_eq!(request.send().await.unwrap().status(), 200, "the first one counts");
    assert_eq!(caller.ask(Api::OpenAi, &"x".repeat(256), "x", false).await.status(), 200);
    let odd = caller.post(Api::Anthropic).bearer_auth(&caller.bearer);
    let odd = odd.header("idempotency-key", reqwest::header::HeaderValue::from_bytes(b"\xff").unwrap());
    let odd = odd.body(question(Api::Anthropic, "x", false).to_string()).send().await.unwrap();
    refusal(Api::Anthropic, odd, 400).await;
    assert_eq!(stage.asked().len(), 2);
}

#[tokio::test]
async fn nothing_but_a_date_goes_upstream_as_a_version() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    let request = caller.http.post(format!("{}/v1/messages", caller.url)).bearer_auth(&caller.bearer);
    let request = request.header("anthropic-version", "sk-secret");
    let response = request.body(question(Api::Anthropic, "x", false).to_string()).send().await.unwrap();
    refusal(Api::Anthropic, response, 400).await;
    assert!(stage.asked().is_empty());
}

#[tokio::test]
async fn what_is_not_served_is_told_in_the_shape_of_the_api() {
    let stage = Stage::playing(RULES).await;
    let (_run, caller) = stage.caller().await;
    let get = caller.http.get(format!("{}/v1/messages", caller.url)).header("anthropic-version", "2023-06-01");
    let answer = get.send().await.unwrap();
    assert_eq!(answer.status(), 405);
    assert_eq!(json_of(answer).await["error"]["type"], "invalid_request_error");
    let nowhere = caller.http.post(format!("{}/v1/embeddings", caller.url)).send().await.unwrap();
    assert_eq!(nowhere.status(), 404);
    assert!(json_of(nowhere).await["error"]["message"].as_str().unwrap().contains("no such path"));
}

#[tokio::test]
async fn a_run_has_so_many_calls_at_once_and_others_have_theirs() {
    let rules = "
  - name: held
    when: {last_user: held}
    gate: start
    reply: {text: At last.}
  - name: any
    reply: {text: Hello.}
";
    let stage = Stage::playing(rules).await;
    let (_run, caller) = stage.caller().await;
    let ask = async |n: usize| caller.ask(Api::OpenAi, &format!("k{n}"), "held", false).await;
    let held = futures::future::join_all((0..64).map(&ask));
    let beyond = async {
        crate::stage::until("all calls under way", || async { (stage.asked().len() == 64).then_some(()) }).await;
        let refused = ask(64).await;
        assert!(refused.headers().contains_key("retry-after"));
        refusal(Api::OpenAi, refused, 429).await;
        let (_other, free) = stage.caller().await;
        assert_eq!(free.ask(Api::OpenAi, "k", "x", false).await.status(), 200);
        stage.model.open_gate("start").unwrap();
    };
    let both = Box::pin(async { tokio::join!(held, beyond) });
    let (held, ()) = soon("all answers", both).await;
    for response in held {
        assert_eq!(response.status(), 200);
        assert!(hear(response).await.whole);
    }
    assert_eq!(ask(64).await.status(), 200);
}

//! The Anthropic Messages API.

use serde_json::{Value, json};

use crate::client::{Api::Anthropic, Rig, events};

const RULES: &str = r#"
  - name: thinks-and-calls
    when: {agent: coder, step: 1, last_user: "look at (?<path>\\S+)"}
    reply:
      thinking: Hm.
      text: I will look.
      tools:
        - {name: read, arguments: {path: "{{capture.path}}", lines: [1, 2]}}
        - {name: list, arguments: {note: "{{agent}} {{step}} {{call_id}}"}}
  - name: ends
    when: {step: 2, tool_result: {tool: read, content: "needle", is_error: false}}
    reply: {text: Found it.}
  - name: plain
    when: {last_user: "^hello$"}
    reply: {text: Hello to you.}
"#;

fn request(stream: bool) -> Value {
    json!({
        "model": "claude-sonnet-4-5", "max_tokens": 1000, "stream": stream, "temperature": 1,
        "system": [{"type": "text", "text": "Agent: coder", "cache_control": {"type": "ephemeral"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "tools": [{"name": "read", "input_schema": {"type": "object"}}],
        "messages": [{"role": "user", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
            {"type": "text", "text": "look at src/a.py", "cache_control": {"type": "ephemeral"}},
        ]}],
    })
}

#[tokio::test]
async fn an_answer_has_the_shape_of_the_real_one() {
    let rig = Rig::playing(RULES).await;
    let response = rig.send(Anthropic, &request(false)).await;
    assert_eq!(response.headers()["request-id"], "req_rehearsal_1");
    assert_eq!(response.headers()["x-rehearsal"], "thinks-and-calls");
    let answer: Value = response.json().await.unwrap();

    assert_eq!(answer["type"], "message");
    assert_eq!(answer["role"], "assistant");
    assert_eq!(answer["model"], "rehearsal/claude-sonnet-4-5");
    assert_eq!(answer["stop_reason"], "tool_use");
    assert!(answer["id"].as_str().unwrap().starts_with("msg_"));
    let kinds: Vec<&str> = answer["content"].as_array().unwrap().iter().filter_map(|c| c["type"].as_str()).collect();
    assert_eq!(kinds, ["thinking", "text", "tool_use", "tool_use"]);
    assert_eq!(answer["content"][2]["input"], json!({"path": "src/a.py", "lines": [1, 2]}));
    let note = answer["content"][3]["input"]["note"].as_str().unwrap();
    assert!(note.starts_with("coder 1 "), "{note}");
    assert_ne!(answer["content"][2]["id"], answer["content"][3]["id"]);
    // "Agent: coder", "look at src/a.py", the tool as compact JSON, and an image.
    let tools = r#"[{"input_schema":{"type":"object"},"name":"read"}]"#.len();
    assert_eq!(answer["usage"]["input_tokens"], (12 + 16 + tools).div_ceil(4) + 1600);
    assert_eq!(answer["usage"]["cache_read_input_tokens"], 0);
    assert_eq!(answer["usage"]["cache_creation_input_tokens"], 0);
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer() {
    let rig = Rig::playing(RULES).await;
    let first = rig.send(Anthropic, &request(false)).await.text().await.unwrap();
    let second = rig.send(Anthropic, &request(false)).await.text().await.unwrap();
    let mut other = request(false);
    other["max_tokens"] = json!(999);
    let other = rig.send(Anthropic, &other).await.text().await.unwrap();

    assert_eq!(first, second);
    assert_ne!(first, other);
}

#[tokio::test]
async fn a_stream_has_the_events_of_the_real_one_and_adds_up_to_the_answer() {
    let rig = Rig::playing(RULES).await;
    let whole: Value = rig.send(Anthropic, &request(false)).await.json().await.unwrap();
    let response = rig.send(Anthropic, &request(true)).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
    let text = response.text().await.unwrap();
    for event in text.split("\n\n").filter(|event| !event.is_empty()) {
        let (name, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name.strip_prefix("event: ").unwrap(), data["type"], "an event is named like its data");
    }
    let events = crate::client::parse_events(&text);

    let mut kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    kinds.dedup();
    let block = ["content_block_start", "content_block_delta", "content_block_stop"];
    let mut expected =
        vec!["message_start", "content_block_start", "ping", "content_block_delta", "content_block_stop"];
    expected.extend([block; 3].concat());
    expected.extend(["message_delta", "message_stop"]);
    assert_eq!(kinds, expected);
    let joined = |index: usize, field: &str| -> String {
        let deltas = events.iter().filter(|event| event["index"] == index);
        deltas.filter_map(|event| event["delta"][field].as_str()).collect()
    };
    assert_eq!(joined(0, "thinking"), "Hm.");
    assert_eq!(joined(1, "text"), "I will look.");
    let input: Value = serde_json::from_str(&joined(2, "partial_json")).unwrap();
    assert_eq!(input, whole["content"][2]["input"]);
    assert_eq!(events[0]["message"]["usage"]["input_tokens"], whole["usage"]["input_tokens"]);
    let end = &events[events.len() - 2];
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(end["usage"]["output_tokens"], whole["usage"]["output_tokens"]);
}

#[tokio::test]
async fn a_conversation_goes_on_with_the_results_of_tools() {
    let rig = Rig::playing(RULES).await;
    let answer: Value = rig.send(Anthropic, &request(false)).await.json().await.unwrap();
    let mut next = request(false);
    let messages = next["messages"].as_array_mut().unwrap();
    messages.push(json!({"role": "assistant", "content": answer["content"]}));
    let result = |index: usize, content: Value| json!({"type": "tool_result", "tool_use_id": answer["content"][index]["id"], "content": content});
    let results = [result(3, json!("nothing")), result(2, json!([{"type": "text", "text": "a needle"}]))];
    messages.push(json!({"role": "user", "content": results}));
    let end: Value = rig.send(Anthropic, &next).await.json().await.unwrap();

    assert_eq!(end["content"][0]["text"], "Found it.");
    assert_eq!(end["stop_reason"], "end_turn");
    let seen = rig.server.requests(0).requests;
    assert_eq!((seen[0].step, seen[1].step), (1, 2));
    assert_eq!(seen[0].conversation, seen[1].conversation);
    assert_ne!(seen[0].digest, seen[1].digest);
}

#[tokio::test]
async fn an_answer_ends_at_max_tokens() {
    let rig = Rig::playing(RULES).await;
    let body = json!({"model": "m", "max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]});
    let answer: Value = rig.send(Anthropic, &body).await.json().await.unwrap();

    assert_eq!(answer["content"][0]["text"], "Hello to");
    assert_eq!(answer["stop_reason"], "max_tokens");
    assert_eq!(answer["usage"]["output_tokens"], 2);
}

#[tokio::test]
async fn tokens_are_counted_as_they_are_billed() {
    let rig = Rig::playing(RULES).await;
    let billed: Value = rig.send(Anthropic, &request(false)).await.json().await.unwrap();
    let mut body = request(false);
    body.as_object_mut().unwrap().remove("max_tokens");
    let count = rig.request("/v1/messages/count_tokens").header("anthropic-version", "2023-06-01").json(&body);
    let counted: Value = count.send().await.unwrap().json().await.unwrap();

    assert_eq!(counted, json!({"input_tokens": billed["usage"]["input_tokens"]}));
}

#[tokio::test]
async fn mistakes_of_the_client_are_told_in_the_shape_of_the_api() {
    let rig = Rig::playing(RULES).await;
    let user = |content: Value| json!({"role": "user", "content": content});
    let call = json!({"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "read", "input": {}}]});
    let result = json!([{"type": "tool_result", "tool_use_id": "t2", "content": "x"}]);
    let cases = [
        (json!({"model": "m", "messages": []}), "max_tokens: field required"),
        (json!({"model": "m", "max_tokens": 9, "messages": []}), "at least one message"),
        (json!({"model": "m", "max_tokens": 9, "messages": [call]}), "must be the user's"),
        (json!({"model": "m", "max_tokens": 9, "messages": [user(json!(7))]}), "content must be a string or a list"),
        (json!({"model": "m", "max_tokens": 9, "messages": [user(json!("a")), call, user(json!("b"))]}), "`t1` has no"),
        (json!({"model": "m", "max_tokens": 9, "messages": [user(json!("a")), call, user(result)]}), "`t2` answers no"),
    ];
    for (body, wanted) in cases {
        let response = rig.send(Anthropic, &body).await;
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["type"], "error");
        assert_eq!(error["error"]["type"], "invalid_request_error");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}");
    }
    let no_version = rig.request("/v1/messages").json(&request(false)).send().await.unwrap();
    assert_eq!(no_version.status(), 400);
    assert!(no_version.text().await.unwrap().contains("anthropic-version"));
}

#[tokio::test]
async fn an_unmatched_request_is_told_what_came_nearest() {
    let rig = Rig::playing(RULES).await;
    let mut body = request(true);
    body["messages"] = json!([{"role": "user", "content": "look elsewhere"}]);
    let response = rig.send(Anthropic, &body).await;
    assert_eq!(response.status(), 400);
    let error: Value = response.json().await.unwrap();
    let message = error["error"]["message"].as_str().unwrap();

    assert!(message.contains("agent coder, step 1"), "{message}");
    assert!(message.contains("\"look elsewhere\""), "{message}");
    assert!(message.contains("nearest rule is `thinks-and-calls` (test.yaml:4)"), "{message}");
    assert!(message.contains(r"its last_user /look at (?<path>\S+)/ is not found"), "{message}");
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_the_api() {
    let rig = Rig::playing(RULES).await;
    let get =
        |path: &str| rig.http.get(format!("{}{path}", rig.server.url())).header("anthropic-version", "2023-06-01");
    let list: Value = get("/v1/models").send().await.unwrap().json().await.unwrap();
    let one: Value = get("/v1/models/claude").send().await.unwrap().json().await.unwrap();

    assert_eq!(list["data"][0]["id"], "rehearsal/any");
    assert_eq!(list["has_more"], false);
    assert_eq!(one["type"], "model");
    assert_eq!(one["id"], "rehearsal/claude");
}

#[tokio::test]
async fn usage_can_be_told_by_the_rule() {
    let rule = "
  - name: cached
    reply: {text: a, usage: {input: 10, cache_read: 90, cache_write: 5}}
";
    let rig = Rig::playing(rule).await;
    let events = events(rig.ask_streaming(Anthropic, "x").await).await;
    let usage = &events[events.len() - 2]["usage"];

    assert_eq!(
        *usage,
        json!({"input_tokens": 10, "output_tokens": 1, "cache_read_input_tokens": 90, "cache_creation_input_tokens": 5})
    );
}

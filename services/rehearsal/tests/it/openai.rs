//! The OpenAI Chat Completions API.

use serde_json::{Value, json};

use crate::client::{Api::Openai, Rig, events, question, streamed_text};

const RULES: &str = r"
  - name: calls
    when: {agent: coder, step: 1}
    reply:
      text: I will look.
      tools:
        - {name: read, arguments: {path: a.py}}
        - {name: list, arguments: {}}
  - name: sees-the-error
    when: {step: 2, tool_result: {tool: read, is_error: true}}
    reply: {text: No such file.}
";

#[tokio::test]
async fn an_answer_has_the_shape_of_the_real_one() {
    let rig = Rig::playing(RULES).await;
    let response = rig.ask(Openai, "go").await;
    assert_eq!(response.headers()["x-request-id"], "req_rehearsal_1");
    let answer: Value = response.json().await.unwrap();

    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], "rehearsal/m-1");
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], "I will look.");
    assert_eq!(
        choice["message"]["tool_calls"][0]["function"],
        json!({"name": "read", "arguments": "{\"path\":\"a.py\"}"})
    );
    // "Agent: coder\nBe brief." and "go"; "I will look.", then the two calls.
    let output = 3 + (4 + 15_usize).div_ceil(4) + (4 + 2_usize).div_ceil(4);
    let input = (22 + 2_usize).div_ceil(4);
    assert_eq!(answer["usage"]["prompt_tokens"], input);
    assert_eq!(answer["usage"]["completion_tokens"], output);
    assert_eq!(answer["usage"]["total_tokens"], input + output);
    assert_eq!(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 0);
}

#[tokio::test]
async fn a_stream_has_the_chunks_of_the_real_one() {
    let rig = Rig::playing(RULES).await;
    let whole: Value = rig.ask(Openai, "go").await.json().await.unwrap();
    let events = events(rig.ask_streaming(Openai, "go").await).await;

    assert_eq!(events.last().unwrap(), "[DONE]");
    assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
    assert_eq!(events[0]["object"], "chat.completion.chunk");
    assert_eq!(streamed_text(Openai, &events), "I will look.");
    let calls: Vec<&Value> =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["tool_calls"].get(0)).collect();
    assert_eq!(calls[0]["function"], json!({"name": "read", "arguments": ""}));
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_"));
    let joined: String = calls
        .iter()
        .filter(|call| call["index"] == 0)
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(joined, "{\"path\":\"a.py\"}");
    assert_eq!(calls.iter().filter(|call| call["index"] == 1 && call["id"].is_string()).count(), 1);
    let count = events.len();
    assert_eq!(events[count - 3]["choices"][0]["finish_reason"], "tool_calls");
    assert_eq!(events[count - 2]["choices"], json!([]));
    assert_eq!(events[count - 2]["usage"], whole["usage"]);
    assert!(events[..count - 2].iter().all(|event| event["usage"].is_null()));
}

#[tokio::test]
async fn a_stream_tells_its_usage_only_when_asked() {
    let rig = Rig::playing(RULES).await;
    let mut body = question(Openai, "go", true);
    body.as_object_mut().unwrap().remove("stream_options");
    let events = events(rig.send(Openai, &body).await).await;

    assert!(events.iter().all(|event| event.get("usage").is_none()));
    assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "tool_calls");
}

#[tokio::test]
async fn a_result_that_reads_as_an_error_is_one() {
    let rig = Rig::playing(RULES).await;
    let answer: Value = rig.ask(Openai, "go").await.json().await.unwrap();
    let mut next = question(Openai, "go", false);
    let messages = next["messages"].as_array_mut().unwrap();
    let message = &answer["choices"][0]["message"];
    messages.push(message.clone());
    for (index, content) in ["Error: a.py is not there", "nothing"].into_iter().enumerate() {
        let id = &message["tool_calls"][index]["id"];
        messages.push(json!({"role": "tool", "tool_call_id": id, "content": content}));
    }
    let end: Value = rig.send(Openai, &next).await.json().await.unwrap();

    assert_eq!(end["choices"][0]["message"]["content"], "No such file.");
    assert_eq!(end["choices"][0]["finish_reason"], "stop");
}

#[tokio::test]
async fn mistakes_of_the_client_are_told_in_the_shape_of_the_api() {
    let rig = Rig::playing(RULES).await;
    let user = json!({"role": "user", "content": "a"});
    let cases = [
        (json!({"model": "m", "messages": [user], "n": 2}), "one choice only"),
        (json!({"model": "m", "messages": []}), "at least one message"),
        (
            json!({"model": "m", "messages": [user, {"role": "tool", "tool_call_id": "c", "content": "x"}]}),
            "`c` answers no",
        ),
        (json!({"model": "m", "messages": [{"role": "wizard", "content": "x"}]}), "wizard"),
        (json!({"messages": [user]}), "model"),
    ];
    for (body, wanted) in cases {
        let response = rig.send(Openai, &body).await;
        assert_eq!(response.status(), 400);
        let error: Value = response.json().await.unwrap();
        assert_eq!(error["error"]["type"], "invalid_request_error");
        let message = error["error"]["message"].as_str().unwrap();
        assert!(message.contains(wanted), "{message}");
    }
}

#[tokio::test]
async fn images_and_developer_prompts_are_accepted() {
    let rig = Rig::playing(RULES).await;
    let body = json!({
        "model": "m", "max_completion_tokens": 99, "reasoning_effort": "high", "store": false,
        "messages": [
            {"role": "developer", "content": "Agent: coder"},
            {"role": "user", "content": [
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                {"type": "text", "text": "abcd"},
            ]},
        ],
    });
    let answer: Value = rig.send(Openai, &body).await.json().await.unwrap();

    assert_eq!(answer["usage"]["prompt_tokens"], 1600 + 4);
}

#[tokio::test]
async fn models_are_listed_in_the_shape_of_the_api() {
    let rig = Rig::playing(RULES).await;

    assert_eq!(rig.get("/v1/models").await["object"], "list");
    assert_eq!(rig.get("/v1/models/org/name").await["id"], "rehearsal/org/name");
}

#[tokio::test]
async fn what_this_api_can_not_tell_is_not_counted() {
    let rig = Rig::playing("\n  - name: thinks\n    reply: {thinking: long and hard, text: abcd}\n").await;
    let events = events(rig.ask_streaming(Openai, "go").await).await;

    assert_eq!(events[events.len() - 2]["usage"]["completion_tokens"], 1);
    assert_eq!(rig.server.requests(0).requests[0].output_tokens, 1);
}

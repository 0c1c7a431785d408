//! The model client by both APIs, against a model server: what is sent, what is read, and what goes wrong.

use std::{net::SocketAddr, time::Duration};

use agent_runner::{
    model::{Api, ModelAnswer, ModelClient, ModelError, ModelRequest, ToolOffer},
    run::{Turn, conversation::ToolResult},
};
use rehearsal::{Scenario, Server};
use schemas::{
    Block,
    event::{ModelErrorClass, StopReason, ToolOutcome},
};
use serde_json::{Value, json};

const BOTH: [Api; 2] = [Api::Anthropic, Api::OpenAi];

struct Model {
    server: Server,
    client: ModelClient,
}

impl Model {
    async fn playing(rules: &str) -> Self {
        let scenario = Scenario::parse("scenario.yaml", &format!("name: model\nrules:{rules}")).unwrap();
        let server = Server::start(vec![scenario], SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let client = ModelClient::new(server.url()).unwrap();
        Self { server, client }
    }

    async fn ask(&self, api: Api, turns: &[Turn]) -> Result<ModelAnswer, ModelError> {
        let offer = ToolOffer {
            name: "read".into(),
            description: "Reads a file.".into(),
            input_schema: json!({ "type": "object", "properties": { "path": { "type": "string" } } }),
        };
        let request = ModelRequest {
            model: "strong",
            system: "Agent: coder\n\nYou code.",
            turns,
            tools: &[offer],
            max_output_tokens: 1_000,
        };
        self.client.call(api, &request, "bearer", "run/1").await
    }
}

/// The arguments of a call.
fn arguments(block: &Block) -> &Value {
    let Block::ToolUse { input, .. } = block else { panic!("{block:?}") };
    input
}

fn task() -> Turn {
    Turn::User(vec!["fix it".into(), "in a.rs".into()])
}

#[tokio::test]
async fn text_and_calls_made_at_once_are_read_from_the_stream_and_their_results_sent_back() {
    let rules = "
  - name: calls
    when: {agent: coder, step: 1, last_user: 'fix it', any_message: 'in a.rs'}
    reply:
      text: I look.
      tools:
        - {name: read, arguments: {path: 'a \"quoted\" ü.rs', deep: {list: [1, 2.5, null]}}}
        - {name: read, arguments: {}}
        - {name: read, arguments: {path: c.rs}}
      usage: {input: 120, output: 30, cache_read: 7}
  - name: answers
    when: {step: 2, tool_result: {tool: read, content: 'no such file', is_error: true}}
    reply: {text: done}
";
    for api in BOTH {
        let model = Model::playing(rules).await;
        let answer = model.ask(api, &[task()]).await.unwrap();
        assert!(answer.model.starts_with("rehearsal/"), "{}", answer.model);
        assert_eq!(answer.stop, StopReason::ToolUse);
        let usage = answer.usage.unwrap();
        assert_eq!((usage.output_tokens, usage.cache_read_tokens), (30, 7), "{api:?}: {usage:?}");
        assert_eq!(usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens, 127, "{api:?}: {usage:?}");
        let [Block::Text { text }, calls @ ..] = answer.content.as_slice() else { panic!("{:?}", answer.content) };
        assert_eq!(text, "I look.");
        let inputs: Vec<_> = calls.iter().map(arguments).collect();
        let deep = json!({ "path": "a \"quoted\" ü.rs", "deep": { "list": [1, 2.5, null] } });
        assert_eq!(inputs, [&deep, &json!({}), &json!({ "path": "c.rs" })]);

        let result = |call: &Block| {
            let Block::ToolUse { id, name, .. } = call else { panic!("{call:?}") };
            let output = "no such file".into();
            ToolResult { call_id: id.clone(), tool: name.clone(), outcome: ToolOutcome::Error, output }
        };
        let results = Turn::Tools(calls.iter().map(result).collect());
        let answer = model.ask(api, &[task(), Turn::Assistant(answer.content.clone()), results]).await.unwrap();
        assert_eq!(
            (answer.content.as_slice(), answer.stop),
            (&[Block::Text { text: "done".into() }][..], StopReason::EndTurn)
        );
    }
}

#[tokio::test]
async fn thinking_comes_back_with_its_signature_and_is_sent_again() {
    let rules = "
  - name: thinks
    when: {step: 1}
    reply: {thinking: hm, text: yes}
  - name: goes-on
    when: {step: 2}
    reply: {text: done}
";
    let model = Model::playing(rules).await;
    let answer = model.ask(Api::Anthropic, &[task()]).await.unwrap();
    let [Block::Thinking { thinking, signature }, Block::Text { .. }] = answer.content.as_slice() else {
        panic!("{:?}", answer.content)
    };
    assert!(thinking == "hm" && !signature.is_empty());
    let turns = [task(), Turn::Assistant(answer.content), Turn::User(vec!["well?".into()])];
    assert_eq!(model.ask(Api::Anthropic, &turns).await.unwrap().content, [Block::Text { text: "done".into() }]);
}

#[tokio::test]
async fn why_a_model_stopped_is_told() {
    for (stop, expected) in [("max_tokens", StopReason::MaxTokens), ("refusal", StopReason::Refusal)] {
        for api in BOTH {
            let model = Model::playing(&format!("\n  - {{name: stops, reply: {{text: well, stop: {stop}}}}}\n")).await;
            assert_eq!(model.ask(api, &[task()]).await.unwrap().stop, expected, "{api:?}");
        }
    }
}

/// An answer of 10 tokens, and something wrong with it.
async fn failing(api: Api, fault: &str) -> ModelError {
    let rules = format!(
        "
  - name: faulty
    fault: {{{fault}}}
    reply: {{text: \"0123456789012345678901234567890123456789\"}}
"
    );
    Model::playing(&rules).await.ask(api, &[task()]).await.unwrap_err()
}

#[tokio::test]
async fn what_is_worth_a_retry_is_told_from_what_is_not() {
    use ModelErrorClass::{Interrupted, Malformed, RateLimited, Unavailable};
    for api in BOTH {
        for (fault, class, status) in [
            ("kind: rate_limited", RateLimited, Some(429)),
            ("kind: overloaded", Unavailable, Some(if api == Api::Anthropic { 529 } else { 503 })),
            ("kind: server_error, status: 502", Unavailable, Some(502)),
            ("kind: cut_stream, after_tokens: 3", Interrupted, None),
            ("kind: malformed_frame, after_tokens: 3", Malformed, None),
            ("kind: error_frame, after_tokens: 3", Unavailable, None),
            ("kind: garbage", Interrupted, None),
        ] {
            let error = failing(api, fault).await;
            assert_eq!((error.class, error.status), (class, status), "{api:?}, {fault}: {error}");
            assert!(error.retry_after.is_none(), "{error:?}");
            assert_eq!(error.begun, status.is_none(), "{api:?}, {fault}: {error:?}");
        }
    }
}

#[tokio::test]
async fn how_long_a_provider_asks_to_wait_is_heard() {
    for api in BOTH {
        for fault in ["kind: rate_limited, retry_after: 7", "kind: overloaded, retry_after: 7"] {
            assert_eq!(failing(api, fault).await.retry_after, Some(Duration::from_secs(7)), "{api:?}, {fault}");
        }
    }
}

#[tokio::test]
async fn a_missing_usage_is_unknown_and_no_failure() {
    for api in BOTH {
        let model = Model::playing("\n  - {name: quiet, fault: {kind: missing_usage}, reply: {text: yes}}\n").await;
        let answer = model.ask(api, &[task()]).await.unwrap();
        assert_eq!(answer.usage, None, "{api:?}");
    }
}

#[tokio::test]
async fn what_the_server_refuses_is_not_tried_again() {
    for api in BOTH {
        let model = Model::playing("\n  - {name: other, when: {agent: lead}, reply: {text: yes}}\n").await;
        let error = model.ask(api, &[task()]).await.unwrap_err();
        assert_eq!(error.class, ModelErrorClass::Refused, "{error}");
        assert!(error.status.is_some_and(|status| (400..500).contains(&status)), "{error:?}");
    }
    let nobody = ModelClient::new("http://127.0.0.1:1").unwrap();
    let request = ModelRequest { model: "m", system: "s", turns: &[task()], tools: &[], max_output_tokens: 10 };
    let error = nobody.call(Api::Anthropic, &request, "bearer", "run/1").await.unwrap_err();
    assert_eq!(error.class, ModelErrorClass::Unavailable);
}

#[tokio::test]
async fn giving_a_call_up_hangs_up() {
    for api in BOTH {
        let model = Model::playing("\n  - {name: slow, gate: never, reply: {text: yes}}\n").await;
        let turns = [task()];
        let call = model.ask(api, &turns);
        let waits = async {
            while model.server.requests(0).requests.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            answer = call => panic!("the gate is closed: {answer:?}"),
            () = waits => {}
        }
        let gone = async {
            while model.server.requests(0).requests[0].outcome != rehearsal::Outcome::CutByClient {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the server sees that nobody listens");
    }
}

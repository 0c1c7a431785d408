//! What a provider sees of a call, and what a caller sees of the provider's key: nothing.

use std::io;
use std::sync::{Arc, Mutex};

use kit::telemetry::{self, Output, TelemetryConfig};
use serde_json::json;

use crate::client::{Api, BOTH, Caller, hear, question, refusal};
use crate::provider::{Act, Provider, chunk, route_to, stream_head};
use crate::stage::{Setting, Stage};

const RULES: &str = "
  - name: any
    reply: {text: Hello.}
";

const SECRET: &str = "sk-very-secret-0123456789";

/// Answers with something that is an answer of both APIs, and tells the key that it was shown.
async fn telling() -> Provider {
    let body = json!({"type": "message", "choices": [], "said": format!("you showed {SECRET}")});
    let headers = format!("content-type: application/json\r\nx-shown: {SECRET}\r\nrequest-id: req-1\r\n");
    Provider::saying("200 OK", &headers, &body.to_string()).await
}

fn routes(provider: &Provider, key: &str) -> Setting {
    Setting {
        routes: [provider.route("far-claude", "anthropic", key), provider.route("far-gpt", "openai", key)].concat(),
        ..Setting::default()
    }
}

const fn route(api: Api) -> &'static str {
    match api {
        Api::Anthropic => "far-claude",
        Api::OpenAi => "far-gpt",
    }
}

#[tokio::test]
async fn a_provider_sees_its_key_and_nothing_of_the_caller() {
    let provider = telling().await;
    let stage = Stage::with(RULES, routes(&provider, ", key_file: provider.key")).await;
    std::fs::write(stage.bus.folder().join("provider.key"), format!("{SECRET}\n")).unwrap();
    let (_run, caller) = stage.caller().await;
    for (n, api) in BOTH.into_iter().enumerate() {
        let mut body = question(api, "x", true);
        body["model"] = json!(route(api));
        let request = caller.call(api, "k", &body);
        let request = request
            .header("x-api-key", "the callers own")
            .header("cookie", "session=1")
            .header("user-agent", "anthropic-sdk")
            .header("x-stainless-os", "Linux")
            .header("anthropic-beta", "something")
            .header("openai-organization", "org")
            .header("traceparent", "00-0-0-0");
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["request-id"], "req-1");
        assert!(!format!("{:?}", answer.headers()).contains(SECRET));
        let told = hear(answer).await.bytes;
        assert!(!String::from_utf8_lossy(&told).contains(SECRET), "the key is taken out of answers");

        let sent = provider.sent().remove(n);
        body["model"] = json!("upstream-model");
        assert_eq!(String::from_utf8_lossy(&sent.body), body.to_string());
        let mut names: Vec<&str> = sent.headers.keys().map(String::as_str).collect();
        let (line, shown, wanted) = match api {
            Api::Anthropic => (
                "POST /v1/messages HTTP/1.1",
                ("x-api-key", SECRET.to_owned()),
                vec![
                    "accept",
                    "accept-encoding",
                    "anthropic-version",
                    "content-length",
                    "content-type",
                    "host",
                    "x-api-key",
                ],
            ),
            Api::OpenAi => (
                "POST /chat/completions HTTP/1.1",
                ("authorization", format!("Bearer {SECRET}")),
                vec!["accept", "accept-encoding", "authorization", "content-length", "content-type", "host"],
            ),
        };
        names.sort_unstable();
        assert_eq!((sent.line.as_str(), names), (line, wanted));
        assert_eq!(sent.headers[shown.0], shown.1);
        assert_eq!(sent.headers["accept-encoding"], "identity");
    }
}

#[tokio::test]
async fn a_key_that_a_provider_tells_within_a_stream_is_taken_out() {
    let (one, two) = SECRET.split_at(9);
    let first = format!("data: {{\"type\":\"ping\",\"said\":\"{one}");
    let last = format!("{two}!\"}}\n\ndata: {{\"type\":\"message_stop\"}}\n\n");
    let sent = [stream_head(), chunk(first.as_bytes()), chunk(last.as_bytes()), chunk(b"")].concat();
    let provider = Provider::answering(vec![Act::Send(sent)]).await;
    let stage = Stage::with(RULES, routes(&provider, ", key_file: provider.key")).await;
    std::fs::write(stage.bus.folder().join("provider.key"), SECRET).unwrap();
    let (_run, caller) = stage.caller().await;
    let mut body = question(Api::Anthropic, "x", true);
    body["model"] = json!("far-claude");
    let wanted = [first, last].concat().replace(SECRET, &"*".repeat(SECRET.len()));
    // The second time it is the kept reply.
    for _ in 0..2 {
        let heard = hear(caller.call(Api::Anthropic, "k", &body).send().await.unwrap()).await;
        assert_eq!((String::from_utf8_lossy(&heard.bytes), heard.whole), (wanted.as_str().into(), true));
    }
    assert_eq!(provider.sent().len(), 1);
}

#[tokio::test]
async fn a_key_of_the_environment_is_shown_as_it_is_now() {
    // Whatever runs tests sets this one.
    let value = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    let provider = telling().await;
    let stage = Stage::with(RULES, routes(&provider, ", key_env: CARGO_MANIFEST_DIR")).await;
    let (_run, caller) = stage.caller().await;
    let mut body = question(Api::Anthropic, "x", false);
    body["model"] = json!("far-claude");
    hear(caller.call(Api::Anthropic, "k", &body).send().await.unwrap()).await;
    assert_eq!(provider.sent()[0].headers["x-api-key"], value);
}

#[tokio::test]
async fn a_key_file_is_read_for_each_call() {
    let provider = telling().await;
    let stage = Stage::with(RULES, routes(&provider, ", key_file: provider.key")).await;
    let (_run, caller) = stage.caller().await;
    let file = stage.bus.folder().join("provider.key");
    let mut body = question(Api::OpenAi, "x", false);
    body["model"] = json!("far-gpt");
    for (n, key) in ["one", "two"].into_iter().enumerate() {
        std::fs::write(&file, key).unwrap();
        hear(caller.call(Api::OpenAi, key, &body).send().await.unwrap()).await;
        assert_eq!(provider.sent()[n].headers["authorization"], format!("Bearer {key}"));
    }
    std::fs::write(&file, "two\nlines").unwrap();
    let broken = caller.call(Api::OpenAi, "three", &body).send().await.unwrap();
    refusal(Api::OpenAi, broken, 503).await;
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir(&file).unwrap();
    let unreadable = caller.call(Api::OpenAi, "four", &body).send().await.unwrap();
    refusal(Api::OpenAi, unreadable, 503).await;
    assert_eq!(provider.sent().len(), 2);
    assert!(stage.asked().is_empty(), "a broken mount must not turn work into play");
}

#[tokio::test]
async fn a_route_of_the_other_api_is_refused() {
    let provider = telling().await;
    let stage = Stage::with(RULES, routes(&provider, "")).await;
    let (_run, caller) = stage.caller().await;
    for (api, other, path) in
        [(Api::Anthropic, "far-gpt", "/v1/chat/completions"), (Api::OpenAi, "far-claude", "/v1/messages")]
    {
        let mut body = question(api, "x", false);
        body["model"] = json!(other);
        let refused = caller.call(api, "k", &body).send().await.unwrap();
        let message = refusal(api, refused, 400).await;
        assert!(message.contains(path), "{message}");
    }
    assert!(provider.sent().is_empty());
}

/// Where log lines go.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn neither_keys_nor_bearers_are_logged() {
    let lines = Lines::default();
    let config = TelemetryConfig {
        service: "test".to_owned(),
        format: telemetry::Format::Text,
        // Of NATS less: the mint that the test itself asks for passes there.
        filter: "trace,async_nats=info".to_owned(),
        log_dir: None,
    };
    let (subscriber, _guard) = telemetry::subscriber(&config, Output::text(lines.clone(), false)).unwrap();
    tracing::subscriber::set_global_default(subscriber).unwrap();
    let provider = Provider::saying("500 Oh no", "content-type: text/plain\r\n", SECRET).await;
    let stage = Stage::with(RULES, routes(&provider, ", key_file: provider.key")).await;
    std::fs::write(stage.bus.folder().join("provider.key"), SECRET).unwrap();
    let (_run, caller) = stage.caller().await;
    let forger = Caller::new(&stage.proxy.url, &format!("{}x", caller.bearer));
    let refused = forger.ask(Api::Anthropic, "k", "x", false).await;
    refusal(Api::Anthropic, refused, 401).await;
    for api in BOTH {
        let mut body = question(api, "x", true);
        body["model"] = json!(route(api));
        let answer = caller.call(api, "k", &body).send().await.unwrap();
        assert_eq!(answer.status(), 500);
        let told = hear(answer).await.bytes;
        assert_eq!(told, "*".repeat(SECRET.len()).as_bytes(), "nor told in errors");
    }
    let logged = String::from_utf8_lossy(&lines.0.lock().unwrap()).into_owned();
    assert!(logged.contains("a bearer is refused"), "something was logged");
    for secret in [SECRET, caller.bearer.as_str()] {
        let line = logged.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}

/// Set in the process that has a proxy in its environment.
const PROXIED: &str = "NIGHTCREW_TEST_PROXIED";

#[tokio::test]
async fn the_environments_proxy_is_for_far_providers_only() {
    if std::env::var_os(PROXIED).is_none() {
        // The environment is read at the start of a process, so this one starts itself anew.
        let gateway = Provider::saying("200 OK", "content-type: application/json\r\n", "{\"choices\":[]}").await;
        let own = std::env::current_exe().unwrap();
        let mut child = tokio::process::Command::new(own);
        child.args(["--exact", "headers::the_environments_proxy_is_for_far_providers_only"]).env(PROXIED, "yes");
        for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
            child.env(name, &gateway.url);
        }
        let done = child.env_remove("NO_PROXY").env_remove("no_proxy").output().await.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
        let passed: Vec<String> = gateway.sent().into_iter().map(|sent| sent.line).collect();
        assert_eq!(passed, ["POST http://provider.example/v1/chat/completions HTTP/1.1"]);
        return;
    }
    let near = telling().await;
    let far = route_to("http://provider.example/v1", "far", "openai", "");
    let routes = [far, near.route("near", "openai", "")].concat();
    let stage = Stage::with(RULES, Setting { routes, ..Setting::default() }).await;
    let (_run, caller) = stage.caller().await;
    for route in ["far", "near", "gpt"] {
        let mut body = question(Api::OpenAi, "x", false);
        body["model"] = json!(route);
        let answer = caller.call(Api::OpenAi, route, &body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{route}");
    }
    assert_eq!((near.sent().len(), stage.asked().len()), (1, 1));
}

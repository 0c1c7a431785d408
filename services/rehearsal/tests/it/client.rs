//! A server for a test, and requests to it in the words of both APIs.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use rehearsal::{Config, Record, Scenario, Server};
use reqwest::{Client, Response};
use serde_json::{Value, json};

/// The longest that a condition is waited for.
const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Anthropic,
    Openai,
}

pub(crate) const BOTH: [Api; 2] = [Api::Anthropic, Api::Openai];

pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) http: Client,
}

impl Rig {
    pub(crate) async fn playing(rules: &str) -> Self {
        Self::with(rules, Config::at(LOOPBACK)).await
    }

    pub(crate) async fn with(rules: &str, config: Config) -> Self {
        let scenario = Scenario::parse("test.yaml", &format!("name: test\nrules:\n{rules}")).unwrap();
        let server = Server::start_with(vec![scenario], config).await.unwrap();
        Self { server, http: Client::new() }
    }

    pub(crate) fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.server.url()))
    }

    /// Sends a request body.
    pub(crate) async fn send(&self, api: Api, body: &Value) -> Response {
        let request = match api {
            Api::Anthropic => self.request("/v1/messages").header("anthropic-version", "2023-06-01"),
            Api::Openai => self.request("/v1/chat/completions"),
        };
        request.json(body).send().await.unwrap()
    }

    /// Asks something and gives the whole answer.
    pub(crate) async fn ask(&self, api: Api, text: &str) -> Response {
        self.send(api, &question(api, text, false)).await
    }

    /// Asks something and gives the answer as a stream.
    pub(crate) async fn ask_streaming(&self, api: Api, text: &str) -> Response {
        self.send(api, &question(api, text, true)).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let response = self.http.get(format!("{}{path}", self.server.url())).send().await.unwrap();
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str) -> u16 {
        self.request(path).send().await.unwrap().status().as_u16()
    }

    /// Waits until the list of requests is as wanted.
    pub(crate) async fn until_seen(&self, wanted: impl Fn(&[Record]) -> bool) -> Vec<Record> {
        let look = async {
            loop {
                let requests = self.server.requests(0).requests;
                if wanted(&requests) {
                    return requests;
                }
                tokio::task::yield_now().await;
            }
        };
        let seen = tokio::time::timeout(DEADLINE, look).await;
        seen.unwrap_or_else(|_| panic!("not seen in time: {:#?}", self.server.requests(0)))
    }
}

/// A request of one message.
pub(crate) fn question(api: Api, text: &str, stream: bool) -> Value {
    let messages = json!([{"role": "user", "content": text}]);
    let mut body = json!({"model": "m-1", "stream": stream});
    match api {
        Api::Anthropic => {
            body["max_tokens"] = json!(1000);
            body["system"] = json!("Agent: coder\nBe brief.");
            body["messages"] = messages;
        }
        Api::Openai => {
            body["stream_options"] = if stream { json!({"include_usage": true}) } else { Value::Null };
            body["messages"] =
                json!([{"role": "system", "content": "Agent: coder\nBe brief."}, {"role": "user", "content": text}]);
        }
    }
    body
}

/// The data of a stream's events, in order. Text that is no JSON is a string.
pub(crate) async fn events(response: Response) -> Vec<Value> {
    parse_events(&response.text().await.unwrap())
}

pub(crate) fn parse_events(text: &str) -> Vec<Value> {
    let data = text.split("\n\n").filter_map(|event| event.lines().find_map(|line| line.strip_prefix("data: ")));
    data.map(|data| serde_json::from_str(data).unwrap_or_else(|_| json!(data))).collect()
}

/// The text that a whole answer says.
pub(crate) fn said(api: Api, answer: &Value) -> &str {
    match api {
        Api::Anthropic => answer["content"][0]["text"].as_str().unwrap(),
        Api::Openai => answer["choices"][0]["message"]["content"].as_str().unwrap(),
    }
}

/// The text that a stream says.
pub(crate) fn streamed_text(api: Api, events: &[Value]) -> String {
    let pieces = events.iter().filter_map(|event| match api {
        Api::Anthropic => event["delta"]["text"].as_str(),
        Api::Openai => event["choices"][0]["delta"]["content"].as_str(),
    });
    pieces.collect()
}

/// All that a stream brings before it ends or breaks, and whether it broke.
pub(crate) async fn until_broken(mut response: Response) -> (String, bool) {
    let mut text = String::new();
    loop {
        match response.chunk().await {
            Ok(Some(bytes)) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Ok(None) => return (text, false),
            Err(_) => return (text, true),
        }
    }
}

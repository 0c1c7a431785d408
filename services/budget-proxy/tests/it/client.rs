//! Requests in the words of both APIs.

use std::time::Duration;

use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::stage::soon;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Api {
    Anthropic,
    OpenAi,
}

pub(crate) const BOTH: [Api; 2] = [Api::Anthropic, Api::OpenAi];

impl Api {
    pub(crate) const fn path(self) -> &'static str {
        match self {
            Self::Anthropic => "/v1/messages",
            Self::OpenAi => "/v1/chat/completions",
        }
    }

    /// The route that the rehearsal model plays.
    pub(crate) const fn route(self) -> &'static str {
        match self {
            Self::Anthropic => "claude",
            Self::OpenAi => "gpt",
        }
    }

    pub(crate) const fn model(self) -> &'static str {
        match self {
            Self::Anthropic => "claude-test",
            Self::OpenAi => "gpt-test",
        }
    }
}

/// Whoever shows a bearer to the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) http: Client,
    pub(crate) url: String,
    pub(crate) bearer: String,
}

impl Caller {
    pub(crate) fn new(url: &str, bearer: &str) -> Self {
        let http = Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_mins(1))
            .build()
            .unwrap();
        Self { http, url: url.to_owned(), bearer: bearer.to_owned() }
    }

    /// The same with another proxy.
    pub(crate) fn at(&self, url: &str) -> Self {
        Self::new(url, &self.bearer)
    }

    pub(crate) fn post(&self, api: Api) -> RequestBuilder {
        let request = self.http.post(format!("{}{}", self.url, api.path()));
        let request = request.header("content-type", "application/json");
        match api {
            Api::Anthropic => request.header("anthropic-version", "2023-06-01"),
            Api::OpenAi => request,
        }
    }

    /// A call of a body under an idempotency key.
    pub(crate) fn call(&self, api: Api, key: &str, body: &Value) -> RequestBuilder {
        self.post(api).bearer_auth(&self.bearer).header("idempotency-key", key).body(body.to_string())
    }

    /// Asks the rehearsal model something.
    pub(crate) async fn ask(&self, api: Api, key: &str, text: &str, stream: bool) -> Response {
        let body = question(api, text, stream);
        soon("an answer", self.call(api, key, &body).send()).await.unwrap()
    }
}

impl Caller {
    /// Sends a head that announces a body of `length` bytes, and as much of it as is given.
    pub(crate) async fn begin(&self, api: Api, key: &str, length: usize, body: &str) -> TcpStream {
        let address = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!(
            "POST {} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\nidempotency-key: {key}\r\n\
             content-length: {length}\r\n\r\n{body}",
            api.path(),
            self.bearer,
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// Asks for a stream, hears until `text` has come, and hangs up. Returns once the proxy has noticed.
    pub(crate) async fn ask_and_leave(&self, api: Api, key: &str, question: &str, text: &str) {
        let body = self::question(api, question, true).to_string();
        let mut stream = self.begin(api, key, body.len(), &body).await;
        let mut heard = Vec::new();
        while !heard.windows(text.len()).any(|found| found == text.as_bytes()) {
            let read = soon("more of the answer", stream.read_buf(&mut heard)).await;
            assert!(read.unwrap() > 0, "{}", String::from_utf8_lossy(&heard));
        }
        // A server that reads the end closes the connection: then it knows.
        stream.shutdown().await.unwrap();
        let rest = stream.read_to_end(&mut heard);
        let _ = soon("the proxy notices", rest).await;
    }
}

/// A request of one message.
pub(crate) fn question(api: Api, text: &str, stream: bool) -> Value {
    let mut body = json!({
        "model": api.route(),
        "stream": stream,
        "messages": [{"role": "user", "content": text}],
    });
    match api {
        Api::Anthropic => {
            body["max_tokens"] = json!(1000);
            body["system"] = json!("Agent: coder\nBe brief.");
        }
        Api::OpenAi if stream => body["stream_options"] = json!({"include_usage": true}),
        Api::OpenAi => {}
    }
    body
}

/// What came of an answer's body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) bytes: Vec<u8>,
    /// Whether it ended as a whole body does.
    pub(crate) whole: bool,
}

/// All that comes of an answer, until it ends or breaks off.
pub(crate) async fn hear(response: Response) -> Heard {
    let mut hearing = Hearing::of(response);
    soon("the answer's end", hearing.rest()).await
}

/// An answer that is being heard.
pub(crate) struct Hearing {
    response: Response,
    bytes: Vec<u8>,
}

impl Hearing {
    pub(crate) const fn of(response: Response) -> Self {
        Self { response, bytes: Vec::new() }
    }

    /// Hears until `text` has come.
    pub(crate) async fn until(&mut self, text: &str) {
        while !self.bytes.windows(text.len()).any(|found| found == text.as_bytes()) {
            let chunk = soon("more of the answer", self.response.chunk()).await;
            let chunk = chunk.unwrap().expect("more of the answer");
            self.bytes.extend_from_slice(&chunk);
        }
    }

    pub(crate) async fn rest(&mut self) -> Heard {
        let whole = loop {
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.bytes.extend_from_slice(&chunk),
                Ok(None) => break true,
                Err(_) => break false,
            }
        };
        Heard { bytes: std::mem::take(&mut self.bytes), whole }
    }
}

/// The JSON of an answer.
pub(crate) async fn json_of(response: Response) -> Value {
    let heard = hear(response).await;
    serde_json::from_slice(&heard.bytes).unwrap()
}

/// Asserts that an answer is an error of the API, and gives its message.
pub(crate) async fn refusal(api: Api, response: Response, status: u16) -> String {
    assert_eq!(response.status(), status);
    let body = json_of(response).await;
    if api == Api::Anthropic {
        assert_eq!(body["type"], "error", "{body}");
    }
    assert!(body["error"]["type"].is_string(), "{body}");
    body["error"]["message"].as_str().unwrap().to_owned()
}

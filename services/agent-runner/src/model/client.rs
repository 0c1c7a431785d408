//! The HTTP side of a model call.

use std::time::Duration;

use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use jiff::Timestamp;
use kit::clock;
use schemas::event::ModelErrorClass;

use super::{Api, ModelAnswer, ModelError, ModelRequest, Reader, anthropic, openai};

/// A stream that says nothing for so long is taken for stalled. Providers send pings every few seconds; thinking models
/// pause for up to a minute.
const STALL: Duration = Duration::from_mins(2);

/// How long budget-proxy may take to be reached, on the same machine or in the same cluster.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// How long the head of an answer may take: more than budget-proxy gives a provider for its first byte. A repeat joins a
/// call that is still under way, so to give up costs nothing.
const HEAD_WITHIN: Duration = Duration::from_mins(4);

/// Bytes of one answer; a model's largest output is well below a megabyte of text.
const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// Connections to the proxy that are kept while no call needs them. A crew at work has fewer calls at once; after a crowd of
/// them the rest are closed, for each takes tens of kilobytes on both sides.
const IDLE_CONNECTIONS: usize = 32;

/// Calls models through budget-proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ModelClient {
    http: reqwest::Client,
    base_url: String,
}

impl ModelClient {
    /// A client of the proxy at `base_url`.
    pub fn new(base_url: impl Into<String>) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder().no_proxy().tcp_nodelay(true).connect_timeout(CONNECT_WITHIN);
        let http = client.pool_max_idle_per_host(IDLE_CONNECTIONS).build()?;
        Ok(Self { http, base_url: base_url.into().trim_end_matches('/').to_owned() })
    }

    /// Makes one call and reads its answer to the end. Dropping the future hangs up.
    pub async fn call(
        &self,
        api: Api,
        request: &ModelRequest<'_>,
        bearer: &str,
        idempotency_key: &str,
    ) -> Result<ModelAnswer, ModelError> {
        let (path, body, reader): (_, _, Box<dyn Reader>) = match api {
            Api::Anthropic => (anthropic::PATH, anthropic::body(request), Box::new(anthropic::Stream::default())),
            Api::OpenAi => (openai::PATH, openai::body(request), Box::new(openai::Stream::default())),
        };
        let sent = self
            .http
            .post(format!("{}{path}", self.base_url))
            .bearer_auth(bearer)
            .header("anthropic-version", "2023-06-01")
            .header("idempotency-key", idempotency_key)
            .json(&body)
            .send();
        let silent = |why: &dyn std::fmt::Display| {
            ModelError::new(ModelErrorClass::Unavailable, format!("budget-proxy did not answer: {why}"))
        };
        let response = match tokio::time::timeout(HEAD_WITHIN, sent).await {
            Ok(response) => response.map_err(|error| silent(&error))?,
            Err(elapsed) => return Err(silent(&elapsed)),
        };
        if !response.status().is_success() {
            return Err(refusal(response).await);
        }
        read(response, reader).await.map_err(|error| ModelError { begun: true, ..error })
    }
}

async fn read(response: reqwest::Response, mut reader: Box<dyn Reader>) -> Result<ModelAnswer, ModelError> {
    let mut bytes = 0;
    let mut frames = response.bytes_stream().eventsource();
    loop {
        let frame = match tokio::time::timeout(STALL, frames.next()).await {
            Err(_) => return Err(ModelError::interrupted(format!("nothing came for {} s", STALL.as_secs()))),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(ModelError::interrupted(error)),
            Ok(Some(Ok(frame))) => frame,
        };
        bytes += frame.data.len();
        if bytes > MAX_ANSWER_BYTES {
            return Err(ModelError::malformed(format!("more than {MAX_ANSWER_BYTES} bytes")));
        }
        if reader.event(&frame.event, &frame.data)? {
            break;
        }
    }
    reader.finish()
}

/// How long a `retry-after` asks to wait: seconds, or until a date.
fn retry_after(asked: &str, now: Timestamp) -> Option<Duration> {
    let asked = asked.trim();
    if let Ok(seconds) = asked.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let until = jiff::fmt::rfc2822::parse(asked).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(now)).unwrap_or(Duration::ZERO))
}

async fn refusal(response: reqwest::Response) -> ModelError {
    let status = response.status().as_u16();
    let asked = response.headers().get("retry-after").and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|asked| retry_after(asked, clock::now()));
    let text = response.text().await.unwrap_or_default();
    let said = serde_json::from_str::<serde_json::Value>(&text).ok();
    let error = said.as_ref().map(|value| &value["error"]);
    let kind = error.and_then(|error| error["type"].as_str()).unwrap_or_default();
    let message = error.and_then(|error| error["message"].as_str()).unwrap_or(&text);
    let class = match status {
        _ if kind == "budget_exceeded" => ModelErrorClass::Budget,
        429 => ModelErrorClass::RateLimited,
        408 | 425 | 409 | 500..=599 => ModelErrorClass::Unavailable,
        _ => ModelErrorClass::Refused,
    };
    let said = ModelError::new(class, format!("HTTP {status}: {message}"));
    ModelError { status: Some(status), retry_after, ..said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_provider_asks_to_wait_for_seconds_or_until_a_date() {
        let now = "2015-10-21T07:27:30Z".parse().unwrap();
        let seconds = |asked| retry_after(asked, now).map(|wait| wait.as_secs_f64());
        assert_eq!(seconds("7"), Some(7.0));
        assert_eq!(seconds(" 0.5 "), Some(0.5));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:28:00 GMT"), Some(30.0));
        assert_eq!(seconds("Wed, 21 Oct 2015 07:00:00 GMT"), Some(0.0), "a date that has passed");
        assert_eq!(seconds("-1"), None);
        assert_eq!(seconds("soon"), None);
    }
}

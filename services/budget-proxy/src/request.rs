//! A request's body: what the proxy has to know of it, and the one thing in it that is replaced. Pure.
//!
//! The body goes upstream byte for byte as it came, but for the model's name: whatever a parser would not keep (the order
//! of keys, figures beyond a float, what a provider will add tomorrow) is not the proxy's to touch.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::upstream::Api;

/// Longest name of a route that is looked up.
const MAX_ROUTE_BYTES: usize = 256;

/// A body that is no request.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRequest {
    /// It is not JSON, or not an object with the fields that a request has.
    #[error("the body is not a JSON object of this API: {reason}")]
    Json {
        /// Where it stops to be one.
        reason: String,
    },
    /// It is not text.
    #[error("the body is not UTF-8")]
    Text,
    /// It names no model.
    #[error("the body names no model: a route of models.yaml is needed in `model`")]
    NoModel,
}

/// What is read of a request; everything else is only checked for being JSON.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    model: Option<&'a RawValue>,
    #[serde(borrow)]
    stream: Option<&'a RawValue>,
    #[serde(borrow)]
    max_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    max_completion_tokens: Option<&'a RawValue>,
    #[serde(borrow)]
    thinking: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Thinking<'a> {
    #[serde(rename = "type", borrow)]
    kind: std::borrow::Cow<'a, str>,
}

/// A request for a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    body: Bytes,
    model_at: Range<usize>,
    /// The route that is asked for.
    pub route: String,
    /// Whether the answer is to be streamed.
    pub streamed: bool,
    /// Tokens that the answer may have, when the request says so.
    pub max_output: Option<u64>,
    /// Whether all that is billed as output is also sent: a model that thinks for itself sends less.
    pub sends_all: bool,
}

impl Request {
    /// Reads a body. A field that is there twice is refused, because nobody knows which of them a provider takes.
    pub fn parse(api: Api, body: Bytes) -> Result<Self, InvalidRequest> {
        let text = std::str::from_utf8(&body).map_err(|_| InvalidRequest::Text)?;
        let json = |reason: String| InvalidRequest::Json { reason };
        // An array would be taken for the fields in their order.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(json("it does not begin with a brace".to_owned()));
        }
        let fields: Fields<'_> = serde_json::from_str(text).map_err(|error| json(error.to_string()))?;
        let model = fields.model.ok_or(InvalidRequest::NoModel)?.get();
        let route: String = serde_json::from_str(model).map_err(|_| InvalidRequest::NoModel)?;
        if route.is_empty() || route.len() > MAX_ROUTE_BYTES {
            return Err(InvalidRequest::NoModel);
        }
        let begin = model.as_ptr().addr() - text.as_ptr().addr();
        let max_output = [fields.max_completion_tokens, fields.max_tokens];
        let max_output = max_output.into_iter().flatten().find_map(|raw| raw.get().parse().ok());
        Ok(Self {
            model_at: begin..begin + model.len(),
            route,
            streamed: match fields.stream.map_or("null", RawValue::get) {
                "true" => true,
                "false" | "null" => false,
                _ => return Err(json("`stream` is neither true nor false".to_owned())),
            },
            max_output,
            sends_all: api == Api::Anthropic && !thinks(fields.thinking),
            body,
        })
    }

    /// The body as it came.
    pub const fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body with another model's name.
    pub fn with_model(&self, model: &str) -> Bytes {
        let name = serde_json::Value::from(model).to_string();
        let (before, after) = (&self.body[..self.model_at.start], &self.body[self.model_at.end..]);
        [before, name.as_bytes(), after].concat().into()
    }
}

fn thinks(thinking: Option<&RawValue>) -> bool {
    thinking.is_some_and(|raw| {
        let parsed: Result<Thinking<'_>, _> = serde_json::from_str(raw.get());
        parsed.map_or(raw.get() != "null", |thinking| thinking.kind != "disabled")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str) -> Result<Request, InvalidRequest> {
        Request::parse(Api::Anthropic, Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn nothing_but_the_models_name_is_replaced() {
        let body = "{ \"z\":1.00, \"big\":123456789012345678901234567890,\n \"a\": {\"model\":\"inner\"}, \
                    \"model\" :\"st\\u0072ong\", \"stream\":true,\"m\":[\"model\", \"strong\"] }";
        let request = parse(body).unwrap();
        assert_eq!((request.route.as_str(), request.streamed), ("strong", true));
        let sent = request.with_model("claude-\"x\"");
        let wanted = body.replace("\"st\\u0072ong\"", "\"claude-\\\"x\\\"\"");
        assert_eq!(sent, wanted.as_bytes());
    }

    #[test]
    fn what_is_no_request_is_refused_with_its_reason() {
        for body in ["", "x", "[\"strong\"]", "{\"model\":\"m\"", "{\"model\":\"m\",\"stream\":\"yes\"}"] {
            assert!(matches!(parse(body), Err(InvalidRequest::Json { .. })), "{body}");
        }
        for body in ["{}", "{\"model\":7}", "{\"model\":null}", "{\"model\":\"\"}"] {
            assert!(matches!(parse(body), Err(InvalidRequest::NoModel)), "{body}");
        }
        let twice = parse("{\"model\":\"a\",\"mod\\u0065l\":\"b\"}");
        assert!(matches!(twice, Err(InvalidRequest::Json { .. })));
        let bytes = Bytes::from_static(b"{\"model\":\"m\",\"x\":\"\xff\"}");
        assert!(matches!(Request::parse(Api::OpenAi, bytes), Err(InvalidRequest::Text)));
    }

    #[test]
    fn the_most_that_an_answer_may_have_is_read() {
        let most = |body: &str| parse(body).unwrap().max_output;
        assert_eq!(most("{\"model\":\"m\",\"max_tokens\":7}"), Some(7));
        assert_eq!(most("{\"model\":\"m\",\"max_completion_tokens\":9,\"max_tokens\":null}"), Some(9));
        assert_eq!(most("{\"model\":\"m\",\"max_tokens\":\"7\"}"), None);
    }

    #[test]
    fn a_model_that_thinks_sends_less_than_it_bills() {
        let sends_all =
            |thinking: &str| parse(&format!("{{\"model\":\"m\",\"thinking\":{thinking}}}")).unwrap().sends_all;
        assert!(sends_all("null") && sends_all("{\"type\":\"disabled\"}"));
        assert!(!sends_all("{\"type\":\"enabled\",\"budget_tokens\":9}") && !sends_all("{\"x\":1}"));
        let openai = Request::parse(Api::OpenAi, Bytes::from_static(b"{\"model\":\"m\"}"));
        assert!(!openai.unwrap().sends_all);
    }
}

//! Model calls as the native harness makes them: one neutral request, two HTTP APIs, one neutral reply.
//!
//! Every call goes to budget-proxy with the run's bearer and an idempotency key; no provider's key is known here. The
//! dialects only translate; they keep no state beyond one stream and make no decision about retries.

use std::time::Duration;

use schemas::{
    Block, Usage,
    event::{ModelErrorClass, StopReason},
};

pub mod anthropic;
pub mod client;
pub mod openai;

pub use client::ModelClient;

use crate::run::Turn;

/// The HTTP API that a route speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions, as most local servers speak it too.
    OpenAi,
}

/// A tool as the model is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolOffer {
    /// Its name.
    pub name: String,
    /// What it does and when to use it.
    pub description: String,
    /// JSON Schema of its arguments.
    pub input_schema: serde_json::Value,
}

impl ToolOffer {
    /// Its size in a request, for the estimate of the input.
    pub fn bytes(&self) -> usize {
        self.name.len() + self.description.len() + self.input_schema.to_string().len()
    }
}

/// One request, its texts loaded.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRequest<'a> {
    /// The route, which budget-proxy maps to a provider's model.
    pub model: &'a str,
    /// System prompt.
    pub system: &'a str,
    /// The conversation; every text in it is inline.
    pub turns: &'a [Turn],
    /// Tools on offer.
    pub tools: &'a [ToolOffer],
    /// Limit on the answer, in tokens.
    pub max_output_tokens: u64,
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelAnswer {
    /// The model's name as it reported it.
    pub model: String,
    /// The blocks in order.
    pub content: Vec<Block>,
    /// Why it stopped.
    pub stop: StopReason,
    /// Tokens as they were reported on the wire; none when not all of them were.
    pub usage: Option<Usage>,
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ModelError {
    /// What kind of failure.
    pub class: ModelErrorClass,
    /// HTTP status, when there was one.
    pub status: Option<u16>,
    /// What was said, bounded by [`MAX_ERROR_BYTES`].
    pub message: String,
    /// How long the other side asked to wait.
    pub retry_after: Option<Duration>,
    /// Whether an answer had begun.
    pub begun: bool,
}

/// An error's text is kept up to this length: providers' errors are a few lines, a proxy's HTML page is not worth more.
pub const MAX_ERROR_BYTES: usize = 2_000;

impl ModelError {
    pub(crate) fn new(class: ModelErrorClass, message: impl Into<String>) -> Self {
        let mut message: String = message.into();
        if message.len() > MAX_ERROR_BYTES {
            let end = message.floor_char_boundary(MAX_ERROR_BYTES);
            message.truncate(end);
            message.push('…');
        }
        Self { class, status: None, message, retry_after: None, begun: false }
    }

    pub(crate) fn malformed(what: impl std::fmt::Display) -> Self {
        Self::new(ModelErrorClass::Malformed, format!("the provider's answer could not be understood: {what}"))
    }

    pub(crate) fn interrupted(what: impl std::fmt::Display) -> Self {
        Self::new(ModelErrorClass::Interrupted, format!("the answer ended early: {what}"))
    }
}

/// One dialect's reader of a stream: frames in, an answer out.
pub(crate) trait Reader: Send {
    /// Takes one server-sent event. `Ok(true)` when it was the last.
    fn event(&mut self, name: &str, data: &str) -> Result<bool, ModelError>;
    /// The answer, once the stream has ended as the API says that it must.
    fn finish(self: Box<Self>) -> Result<ModelAnswer, ModelError>;
}

/// The arguments of a tool call from the text that was streamed; an empty text is an empty object. So is one that was cut at
/// the limit of the answer: what is left of it is not what the model meant, and no repeat of the call brings more.
pub(crate) fn arguments(text: &str, cut: bool) -> Result<serde_json::Value, ModelError> {
    if text.trim().is_empty() {
        return Ok(serde_json::json!({}));
    }
    match serde_json::from_str(text) {
        Ok(arguments) => Ok(arguments),
        Err(_) if cut => Ok(serde_json::json!({})),
        Err(error) => Err(ModelError::malformed(format!("arguments of a tool call: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What is made of a stream of Anthropic's that calls a tool twice, with these arguments, and then stops.
    fn anthropic(first: &str, last: &str, stop: &str) -> Result<ModelAnswer, ModelError> {
        let mut stream = Box::<anthropic::Stream>::default();
        for (index, text) in [first, last].into_iter().enumerate() {
            let block = json!({ "type": "tool_use", "id": index.to_string(), "name": "write", "input": {} });
            let delta = json!({ "type": "input_json_delta", "partial_json": text });
            for event in [
                json!({ "type": "content_block_start", "index": index, "content_block": block }),
                json!({ "type": "content_block_delta", "index": index, "delta": delta }),
            ] {
                stream.event("", &event.to_string())?;
            }
        }
        let delta = json!({ "stop_reason": if stop == "length" { "max_tokens" } else { "tool_use" } });
        stream.event("", &json!({ "type": "message_delta", "delta": delta }).to_string())?;
        stream.event("", &json!({ "type": "message_stop" }).to_string())?;
        stream.finish()
    }

    /// The same of OpenAI's.
    fn openai(first: &str, last: &str, stop: &str) -> Result<ModelAnswer, ModelError> {
        let mut stream = Box::<openai::Stream>::default();
        for (index, text) in [first, last].into_iter().enumerate() {
            let function = json!({ "name": "write", "arguments": text });
            let call = json!({ "index": index, "id": index.to_string(), "function": function });
            stream.event("", &json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string())?;
        }
        stream.event("", &json!({ "choices": [{ "delta": {}, "finish_reason": stop }] }).to_string())?;
        stream.finish()
    }

    fn inputs(answer: ModelAnswer) -> Vec<serde_json::Value> {
        let inputs = answer.content.into_iter().filter_map(|block| match block {
            Block::ToolUse { input, .. } => Some(input),
            _ => None,
        });
        inputs.collect()
    }

    #[test]
    fn a_call_that_was_cut_at_the_limit_has_no_arguments() {
        let (whole, cut) = (r#"{"path": "a"}"#, r#"{"path": "b", "content": "on"#);
        for read in [anthropic, openai] {
            assert_eq!(inputs(read(whole, cut, "length").unwrap()), [json!({ "path": "a" }), json!({})]);
            assert_eq!(inputs(read(whole, whole, "length").unwrap()), [json!({ "path": "a" }), json!({ "path": "a" })]);
            for (first, last, stop) in [(whole, cut, "tool_calls"), (cut, whole, "length")] {
                let error = read(first, last, stop).unwrap_err();
                assert_eq!(error.class, ModelErrorClass::Malformed, "nothing cut these: {error}");
            }
        }
    }

    #[test]
    fn calls_beyond_the_most_that_are_read_are_not_dropped_silently() {
        let mut stream = openai::Stream::default();
        let call = |index| {
            let call = json!({ "index": index, "id": "c", "function": { "name": "read", "arguments": "{}" } });
            json!({ "choices": [{ "delta": { "tool_calls": [call] } }] }).to_string()
        };
        assert!(stream.event("", &call(127)).is_ok());
        assert_eq!(stream.event("", &call(128)).unwrap_err().class, ModelErrorClass::Malformed);
    }
}

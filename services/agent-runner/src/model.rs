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

/// The arguments of a tool call from the text that was streamed; an empty text is an empty object.
pub(crate) fn arguments(text: &str) -> Result<serde_json::Value, ModelError> {
    if text.trim().is_empty() {
        return Ok(serde_json::json!({}));
    }
    serde_json::from_str(text).map_err(|error| ModelError::malformed(format!("arguments of a tool call: {error}")))
}

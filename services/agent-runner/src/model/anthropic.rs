//! Anthropic Messages.

use schemas::{
    Block, Usage,
    event::{ModelErrorClass, StopReason, ToolOutcome},
};
use serde_json::{Value, json};

use super::{ModelAnswer, ModelError, ModelRequest, Reader, arguments};
use crate::run::Turn;

/// The path under the base URL.
pub(crate) const PATH: &str = "/v1/messages";

/// The request's body.
pub(crate) fn body(request: &ModelRequest<'_>) -> Value {
    let mut body = json!({
        "model": request.model,
        "max_tokens": request.max_output_tokens,
        "stream": true,
        "system": [{ "type": "text", "text": request.system, "cache_control": { "type": "ephemeral" } }],
        "messages": request.turns.iter().map(message).collect::<Vec<_>>(),
    });
    if !request.tools.is_empty() {
        body["tools"] = request
            .tools
            .iter()
            .map(
                |tool| json!({ "name": tool.name, "description": tool.description, "input_schema": tool.input_schema }),
            )
            .collect();
    }
    body
}

fn message(turn: &Turn) -> Value {
    match turn {
        Turn::User(texts) => {
            let blocks: Vec<Value> =
                texts.iter().map(|text| json!({ "type": "text", "text": text.preview() })).collect();
            json!({ "role": "user", "content": blocks })
        }
        Turn::Assistant(blocks) => json!({ "role": "assistant", "content": blocks }),
        Turn::Tools(results) => {
            let blocks: Vec<Value> = results
                .iter()
                .map(|result| {
                    json!({
                        "type": "tool_result",
                        "tool_use_id": result.call_id,
                        "content": result.output.preview(),
                        "is_error": result.outcome != ToolOutcome::Ok,
                    })
                })
                .collect();
            json!({ "role": "user", "content": blocks })
        }
    }
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    model: String,
    blocks: Vec<Open>,
    stop: Option<StopReason>,
    usage: Usage,
    /// Whether the input was reported, and the output.
    counted: (bool, bool),
    ended: bool,
}

#[derive(Debug)]
struct Open {
    block: Block,
    json: String,
}

impl Reader for Stream {
    fn event(&mut self, name: &str, data: &str) -> Result<bool, ModelError> {
        let value: Value = serde_json::from_str(data).map_err(ModelError::malformed)?;
        match value["type"].as_str().unwrap_or(name) {
            "message_start" => {
                value["message"]["model"].as_str().unwrap_or_default().clone_into(&mut self.model);
                // Its figure of the output is a placeholder; that in `message_delta` is the count.
                self.counted.0 |= self.count(&value["message"]["usage"]).0;
            }
            "content_block_start" => {
                self.blocks.push(Open { block: block(&value["content_block"])?, json: String::new() });
            }
            "content_block_delta" => self.delta(&value)?,
            "message_delta" => {
                self.stop = value["delta"]["stop_reason"].as_str().map(stop_reason);
                let (input, output) = self.count(&value["usage"]);
                self.counted = (self.counted.0 || input, self.counted.1 || output);
            }
            "message_stop" => self.ended = true,
            "error" => return Err(stream_error(&value["error"])),
            _ => {}
        }
        Ok(self.ended)
    }

    fn finish(self: Box<Self>) -> Result<ModelAnswer, ModelError> {
        let (true, Some(stop)) = (self.ended, self.stop) else {
            return Err(ModelError::interrupted("no message_stop came"));
        };
        let last = self.blocks.len().saturating_sub(1);
        let blocks = self.blocks.into_iter().enumerate();
        let content = blocks.map(|(index, open)| open.close(stop == StopReason::MaxTokens && index == last));
        let content = content.collect::<Result<Vec<_>, _>>()?;
        let usage = (self.counted == (true, true)).then_some(self.usage);
        Ok(ModelAnswer { model: self.model, content, stop, usage })
    }
}

impl Stream {
    /// Figures in a later event replace earlier ones: the API reports cumulative counts. Tells whether there was one of
    /// the input, and one of the output.
    fn count(&mut self, usage: &Value) -> (bool, bool) {
        let read = |name: &str, into: &mut u64| {
            let count = usage[name].as_u64();
            *into = count.unwrap_or(*into);
            count.is_some()
        };
        read("cache_creation_input_tokens", &mut self.usage.cache_write_tokens);
        read("cache_read_input_tokens", &mut self.usage.cache_read_tokens);
        (read("input_tokens", &mut self.usage.input_tokens), read("output_tokens", &mut self.usage.output_tokens))
    }

    fn delta(&mut self, value: &Value) -> Result<(), ModelError> {
        let index = value["index"].as_u64().and_then(|index| usize::try_from(index).ok());
        let open = index.and_then(|index| self.blocks.get_mut(index));
        let Some(open) = open else {
            return Err(ModelError::malformed("a delta for a block that was not started"));
        };
        let delta = &value["delta"];
        match (&mut open.block, delta["type"].as_str().unwrap_or_default()) {
            (Block::Text { text }, "text_delta") => text.push_str(delta["text"].as_str().unwrap_or_default()),
            (Block::ToolUse { .. }, "input_json_delta") => {
                open.json.push_str(delta["partial_json"].as_str().unwrap_or_default());
            }
            (Block::Thinking { thinking, .. }, "thinking_delta") => {
                thinking.push_str(delta["thinking"].as_str().unwrap_or_default());
            }
            (Block::Thinking { signature, .. }, "signature_delta") => {
                signature.push_str(delta["signature"].as_str().unwrap_or_default());
            }
            _ => {}
        }
        Ok(())
    }
}

impl Open {
    /// The block, of which the answer's limit may have `cut` the rest.
    fn close(self, cut: bool) -> Result<Block, ModelError> {
        match self.block {
            Block::ToolUse { id, name, input } if !self.json.is_empty() || !input.is_object() => {
                Ok(Block::ToolUse { id, name, input: arguments(&self.json, cut)? })
            }
            block => Ok(block),
        }
    }
}

fn block(value: &Value) -> Result<Block, ModelError> {
    serde_json::from_value(value.clone()).map_err(ModelError::malformed)
}

fn stop_reason(text: &str) -> StopReason {
    match text {
        "end_turn" | "stop_sequence" => StopReason::EndTurn,
        "tool_use" => StopReason::ToolUse,
        "max_tokens" => StopReason::MaxTokens,
        "refusal" => StopReason::Refusal,
        _ => StopReason::Other,
    }
}

fn stream_error(error: &Value) -> ModelError {
    let class = match error["type"].as_str().unwrap_or_default() {
        "rate_limit_error" => ModelErrorClass::RateLimited,
        "invalid_request_error" | "authentication_error" | "permission_error" | "not_found_error" => {
            ModelErrorClass::Refused
        }
        _ => ModelErrorClass::Unavailable,
    };
    ModelError::new(class, error["message"].as_str().unwrap_or("the provider reported an error in the stream"))
}

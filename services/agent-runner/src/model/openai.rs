//! OpenAI Chat Completions, and the many servers that speak it.

use schemas::{
    Block, Usage,
    event::{ModelErrorClass, StopReason, ToolOutcome},
};
use serde_json::{Value, json};

use super::{ModelAnswer, ModelError, ModelRequest, Reader, arguments};
use crate::run::Turn;

/// The path under the base URL.
pub(crate) const PATH: &str = "/v1/chat/completions";

/// The request's body.
pub(crate) fn body(request: &ModelRequest<'_>) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": request.system })];
    for turn in request.turns {
        push(&mut messages, turn);
    }
    let mut body = json!({
        "model": request.model,
        "max_completion_tokens": request.max_output_tokens,
        "stream": true,
        "stream_options": { "include_usage": true },
        "messages": messages,
    });
    if !request.tools.is_empty() {
        body["tools"] = request
            .tools
            .iter()
            .map(|tool| {
                let function =
                    json!({ "name": tool.name, "description": tool.description, "parameters": tool.input_schema });
                json!({ "type": "function", "function": function })
            })
            .collect();
    }
    body
}

fn push(messages: &mut Vec<Value>, turn: &Turn) {
    match turn {
        Turn::User(texts) => {
            let text = texts.iter().map(schemas::Text::preview).collect::<Vec<_>>().join("\n\n");
            messages.push(json!({ "role": "user", "content": text }));
        }
        Turn::Assistant(blocks) => messages.push(assistant(blocks)),
        Turn::Tools(results) => messages.extend(results.iter().map(|result| {
            let said = result.output.preview();
            let content = if result.outcome == ToolOutcome::Ok { said.to_owned() } else { format!("Error: {said}") };
            json!({ "role": "tool", "tool_call_id": result.call_id, "content": content })
        })),
    }
}

fn assistant(blocks: &[Block]) -> Value {
    let mut text = String::new();
    let mut calls = Vec::new();
    for block in blocks {
        match block {
            Block::Text { text: said } => text.push_str(said),
            Block::ToolUse { id, name, input } => calls.push(json!({
                "id": id, "type": "function", "function": { "name": name, "arguments": input.to_string() },
            })),
            Block::Thinking { .. } | Block::Other(_) => {}
        }
    }
    let mut message = json!({ "role": "assistant", "content": text });
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    message
}

/// Reads one stream.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    model: String,
    text: String,
    calls: Vec<Call>,
    stop: Option<StopReason>,
    usage: Option<Usage>,
}

#[derive(Debug, Default)]
struct Call {
    id: String,
    name: String,
    arguments: String,
}

impl Reader for Stream {
    fn event(&mut self, _name: &str, data: &str) -> Result<bool, ModelError> {
        if data.trim() == "[DONE]" {
            return Ok(true);
        }
        let value: Value = serde_json::from_str(data).map_err(ModelError::malformed)?;
        if value["error"].is_object() {
            let said = value["error"]["message"].as_str().unwrap_or("the provider reported an error in the stream");
            return Err(ModelError::new(ModelErrorClass::Unavailable, said));
        }
        if let Some(model) = value["model"].as_str() {
            model.clone_into(&mut self.model);
        }
        self.count(&value["usage"]);
        let choice = &value["choices"][0];
        self.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            self.call(call)?;
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.stop = Some(stop_reason(reason));
        }
        Ok(false)
    }

    fn finish(self: Box<Self>) -> Result<ModelAnswer, ModelError> {
        let Some(stop) = self.stop else {
            return Err(ModelError::interrupted("no finish_reason came"));
        };
        let mut content = Vec::new();
        if !self.text.is_empty() {
            content.push(Block::Text { text: self.text });
        }
        let last = self.calls.len().saturating_sub(1);
        for (index, call) in self.calls.into_iter().enumerate() {
            let cut = stop == StopReason::MaxTokens && index == last;
            content.push(Block::ToolUse { id: call.id, name: call.name, input: arguments(&call.arguments, cut)? });
        }
        Ok(ModelAnswer { model: self.model, content, stop, usage: self.usage })
    }
}

impl Stream {
    fn count(&mut self, usage: &Value) {
        let counts = (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64());
        let (Some(prompt), Some(completion)) = counts else { return };
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap_or(0).min(prompt);
        self.usage = Some(Usage {
            input_tokens: prompt - cached,
            output_tokens: completion,
            cache_write_tokens: 0,
            cache_read_tokens: cached,
        });
    }

    fn call(&mut self, delta: &Value) -> Result<(), ModelError> {
        /// Parallel calls in one answer: more than any model makes, fewer than would hurt.
        const MAX_CALLS: usize = 128;
        let index = delta["index"].as_u64().and_then(|index| usize::try_from(index).ok()).unwrap_or(self.calls.len());
        if index >= MAX_CALLS {
            return Err(ModelError::malformed(format!("more than {MAX_CALLS} tool calls")));
        }
        if self.calls.len() <= index {
            self.calls.resize_with(index + 1, Call::default);
        }
        let call = &mut self.calls[index];
        if let Some(id) = delta["id"].as_str() {
            id.clone_into(&mut call.id);
        }
        call.name.push_str(delta["function"]["name"].as_str().unwrap_or_default());
        call.arguments.push_str(delta["function"]["arguments"].as_str().unwrap_or_default());
        Ok(())
    }
}

fn stop_reason(text: &str) -> StopReason {
    match text {
        "stop" => StopReason::EndTurn,
        "tool_calls" | "function_call" => StopReason::ToolUse,
        "length" => StopReason::MaxTokens,
        "content_filter" => StopReason::Refusal,
        _ => StopReason::Other,
    }
}

//! The OpenAI Chat Completions API: `POST /v1/chat/completions`, plain and streamed.
//!
//! Fields that change nothing here are accepted and ignored, with one exception: `n` above 1 would need an answer of
//! another shape, so it is refused.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, FailureKind, Frame, json_bytes};
use crate::conversation::{Api, InvalidRequest, Part, Request, Role, ToolResult};
use crate::digest::Digest;
use crate::reply::{Block, Call, Reply, Stop, Usage};
use crate::tokens;

/// When every answer was created, in seconds since 1970. A constant, so that the same request gets the same bytes.
const CREATED: u64 = 0;

#[derive(Deserialize)]
struct Body {
    model: String,
    messages: Vec<Message>,
    #[serde(default)]
    stream: bool,
    stream_options: Option<StreamOptions>,
    tools: Option<Vec<Value>>,
    max_tokens: Option<u32>,
    max_completion_tokens: Option<u32>,
    n: Option<u32>,
}

#[derive(Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: bool,
}

#[derive(Deserialize)]
#[serde(tag = "role", rename_all = "snake_case")]
enum Message {
    #[serde(alias = "developer")]
    System {
        content: Content,
    },
    User {
        content: Content,
    },
    Assistant {
        content: Option<Content>,
        tool_calls: Option<Vec<ToolCall>>,
    },
    Tool {
        tool_call_id: String,
        content: Content,
    },
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "content must be a string or a list of content parts")]
enum Content {
    Text(String),
    Parts(Vec<WirePart>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WirePart {
    Text {
        text: String,
    },
    ImageUrl,
    InputAudio,
    File,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ToolCall {
    id: String,
    function: Function,
}

#[derive(Deserialize)]
struct Function {
    name: String,
    arguments: String,
}

/// Parses a request.
pub(super) fn parse(bytes: &[u8]) -> Result<Request, InvalidRequest> {
    let body: Body = serde_json::from_slice(bytes).map_err(|error| InvalidRequest::Shape(error.to_string()))?;
    if body.n.is_some_and(|n| n != 1) {
        return Err(InvalidRequest::Shape("n: the rehearsal model gives one choice only".to_owned()));
    }
    let mut system = Vec::new();
    let mut turns = Vec::new();
    for message in body.messages {
        match message {
            Message::System { content } => system.push(flatten(content).0),
            Message::User { content } => Request::push(&mut turns, Role::User, parts(content)),
            Message::Assistant { content, tool_calls } => {
                let mut all = content.map(parts).unwrap_or_default();
                all.extend(tool_calls.unwrap_or_default().into_iter().map(call));
                Request::push(&mut turns, Role::Assistant, all);
            }
            Message::Tool { tool_call_id, content } => {
                Request::push(&mut turns, Role::User, vec![result(tool_call_id, content)]);
            }
        }
    }
    Ok(Request {
        api: Api::Openai,
        model: body.model,
        system: system.join("\n"),
        turns,
        tools_bytes: body.tools.map_or(0, |tools| json_bytes(&tools)),
        stream: body.stream,
        include_usage: body.stream_options.is_some_and(|options| options.include_usage),
        max_tokens: body.max_completion_tokens.or(body.max_tokens),
        digest: Digest::of(&[b"openai", bytes]),
    })
}

fn parts(content: Content) -> Vec<Part> {
    match content {
        Content::Text(text) => vec![Part::Text(text)],
        Content::Parts(parts) => parts.into_iter().filter_map(part).collect(),
    }
}

fn part(part: WirePart) -> Option<Part> {
    match part {
        WirePart::Text { text } => Some(Part::Text(text)),
        WirePart::ImageUrl | WirePart::InputAudio | WirePart::File => Some(Part::Attachment),
        WirePart::Other => None,
    }
}

fn call(call: ToolCall) -> Part {
    Part::Call { id: call.id, name: call.function.name, arguments: call.function.arguments }
}

fn result(call_id: String, content: Content) -> Part {
    let (content, attachments) = flatten(content);
    let is_error = reads_as_error(&content);
    Part::Result(ToolResult { call_id, content, is_error, attachments })
}

/// Whether a tool's text reads as a failure, since this API has no field to say so.
fn reads_as_error(content: &str) -> bool {
    let text = content.trim_start().trim_start_matches(['[', '<', '{', '"']);
    text.get(..5).is_some_and(|word| word.eq_ignore_ascii_case("error"))
}

fn flatten(content: Content) -> (String, u32) {
    let mut texts = Vec::new();
    let mut attachments = 0;
    for part in parts(content) {
        match part {
            Part::Text(text) => texts.push(text),
            _ => attachments += 1,
        }
    }
    (texts.join("\n"), attachments)
}

/// The answer as one body.
pub(super) fn body(reply: &Reply) -> Value {
    let mut message = json!({"role": "assistant", "content": said(reply), "refusal": null});
    let calls: Vec<Value> = calls(reply).map(whole_call).collect();
    if !calls.is_empty() {
        message["tool_calls"] = Value::Array(calls);
    }
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": finish_reason(reply.stop)});
    let mut body = json!({
        "id": completion_id(reply), "object": "chat.completion", "created": CREATED, "model": reply.model,
        "choices": [choice],
    });
    if let Some(usage) = reply.usage {
        body["usage"] = usage_json(usage);
    }
    body
}

/// What the model said, or nothing when it only called tools. What it thought has no field in this API.
fn said(reply: &Reply) -> Option<String> {
    let text: String = texts(reply).collect();
    (!text.is_empty()).then_some(text)
}

fn texts(reply: &Reply) -> impl Iterator<Item = &str> {
    reply.blocks.iter().filter_map(|block| match block {
        Block::Text(text) => Some(text.as_str()),
        _ => None,
    })
}

fn calls(reply: &Reply) -> impl Iterator<Item = &Call> {
    reply.blocks.iter().filter_map(|block| match block {
        Block::Call(call) => Some(call),
        _ => None,
    })
}

fn whole_call(call: &Call) -> Value {
    json!({
        "id": call.id(Api::Openai), "type": "function",
        "function": {"name": call.name, "arguments": call.arguments_json()},
    })
}

fn completion_id(reply: &Reply) -> String {
    format!("chatcmpl-{}", reply.digest.hex(29))
}

fn finish_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::EndTurn => "stop",
        Stop::ToolUse => "tool_calls",
        Stop::MaxTokens => "length",
        Stop::Refusal => "content_filter",
    }
}

fn usage_json(usage: Usage) -> Value {
    // This API counts what came from the cache among the prompt's tokens.
    let prompt = usage.input.saturating_add(usage.cache_read).saturating_add(usage.cache_write);
    json!({
        "prompt_tokens": prompt,
        "completion_tokens": usage.output,
        "total_tokens": prompt.saturating_add(usage.output),
        "prompt_tokens_details": {"cached_tokens": usage.cache_read, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
    })
}

/// The answer as the events of a stream.
pub(super) fn frames(reply: &Reply, include_usage: bool) -> Vec<Frame> {
    let chunk = |tokens: u32, delta: &Value, finish: Option<&str>| {
        let choice = json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish});
        let mut chunk = envelope(reply, &json!([choice]));
        if include_usage {
            chunk["usage"] = Value::Null;
        }
        frame(tokens, &chunk)
    };
    let mut frames = vec![chunk(0, &json!({"role": "assistant", "content": "", "refusal": null}), None)];
    for text in texts(reply) {
        let pieces = tokens::pieces(text);
        frames.extend(pieces.into_iter().map(|(piece, tokens)| chunk(tokens, &json!({"content": piece}), None)));
    }
    for (index, call) in calls(reply).enumerate() {
        let start = json!({
            "index": index, "id": call.id(Api::Openai), "type": "function",
            "function": {"name": call.name, "arguments": ""},
        });
        let (first, pieces) = call.streamed();
        frames.push(chunk(first, &json!({"tool_calls": [start]}), None));
        for (piece, tokens) in pieces {
            let delta = json!({"index": index, "function": {"arguments": piece}});
            frames.push(chunk(tokens, &json!({"tool_calls": [delta]}), None));
        }
    }
    frames.push(chunk(0, &json!({}), Some(finish_reason(reply.stop))));
    if let Some(usage) = reply.usage.filter(|_| include_usage) {
        let mut last = envelope(reply, &json!([]));
        last["usage"] = usage_json(usage);
        frames.push(frame(0, &last));
    }
    frames.push(Frame { bytes: Bytes::from_static(b"data: [DONE]\n\n"), tokens: 0 });
    frames
}

fn envelope(reply: &Reply, choices: &Value) -> Value {
    json!({
        "id": completion_id(reply), "object": "chat.completion.chunk", "created": CREATED, "model": reply.model,
        "choices": choices,
    })
}

/// One server-sent event.
pub(super) fn frame(tokens: u32, data: &Value) -> Frame {
    Frame { bytes: Bytes::from(format!("data: {data}\n\n")), tokens }
}

/// The HTTP status of a failure.
pub(super) fn status(kind: FailureKind) -> u16 {
    match kind {
        FailureKind::InvalidRequest => 400,
        FailureKind::Authentication => 401,
        FailureKind::NotFound => 404,
        FailureKind::TooLarge => 413,
        FailureKind::RateLimited => 429,
        FailureKind::Overloaded => 503,
        FailureKind::Server(status) => status,
    }
}

/// The body of an error, the same in an answer and in a stream.
pub(super) fn error(failure: &Failure) -> Value {
    let (kind, code) = match failure.kind {
        FailureKind::InvalidRequest | FailureKind::TooLarge => ("invalid_request_error", None),
        FailureKind::Authentication => ("invalid_request_error", Some("invalid_api_key")),
        FailureKind::NotFound => ("invalid_request_error", Some("not_found")),
        FailureKind::RateLimited => ("requests", Some("rate_limit_exceeded")),
        FailureKind::Overloaded | FailureKind::Server(_) => ("server_error", None),
    };
    json!({"error": {"message": failure.message, "type": kind, "param": null, "code": code}})
}

/// The list of models.
pub(crate) fn models(models: &[String]) -> Value {
    let data: Vec<Value> = models.iter().map(|id| model(id)).collect();
    json!({"object": "list", "data": data})
}

/// One model.
pub(crate) fn model(id: &str) -> Value {
    json!({"id": id, "object": "model", "created": CREATED, "owned_by": "rehearsal"})
}

#[cfg(test)]
mod tests {
    use super::reads_as_error;

    #[test]
    fn a_result_that_begins_with_error_is_one() {
        for text in ["error: no such file", "Error", "[ERROR] no", "{\"error\": 1}"] {
            assert!(reads_as_error(text), "{text}");
        }
        for text in ["", "erro", "no error", "日本語"] {
            assert!(!reads_as_error(text), "{text}");
        }
    }
}

//! The Anthropic Messages API: `POST /v1/messages`, plain and streamed.
//!
//! Fields that change nothing here (temperature, cache_control, metadata, thinking, tool_choice, ...) are accepted and
//! ignored: the real API has more of them every month, and a rehearsal that refuses a new one helps nobody.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Failure, FailureKind, Frame, json_bytes};
use crate::conversation::{Api, InvalidRequest, Part, Request, Role, ToolResult};
use crate::digest::Digest;
use crate::reply::{Block, Reply, Stop, Usage};
use crate::tokens;

#[derive(Deserialize)]
struct Body {
    model: String,
    max_tokens: Option<u32>,
    messages: Vec<Message>,
    system: Option<Content>,
    #[serde(default)]
    stream: bool,
    tools: Option<Vec<Value>>,
}

#[derive(Deserialize)]
struct Message {
    role: WireRole,
    content: Content,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WireRole {
    User,
    Assistant,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "content must be a string or a list of blocks of the Messages API")]
enum Content {
    Text(String),
    Blocks(Vec<WireBlock>),
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireBlock {
    Text {
        text: String,
    },
    Thinking {
        thinking: String,
    },
    ToolUse {
        id: String,
        name: String,
        input: Value,
    },
    ToolResult {
        tool_use_id: String,
        content: Option<Content>,
        #[serde(default)]
        is_error: bool,
    },
    Image,
    Document,
    #[serde(other)]
    Other,
}

/// Parses a request.
pub(super) fn parse(body: &[u8]) -> Result<Request, InvalidRequest> {
    let request = read(body)?;
    if request.max_tokens.is_none() {
        return Err(InvalidRequest::Shape("max_tokens: field required".to_owned()));
    }
    Ok(request)
}

/// Parses a request for the number of its input tokens, which needs no `max_tokens`.
///
/// # Errors
/// The first thing in it that the provider would refuse.
pub(crate) fn parse_count(body: &[u8]) -> Result<Request, InvalidRequest> {
    let request = read(body)?;
    request.check().map(|()| request)
}

fn read(bytes: &[u8]) -> Result<Request, InvalidRequest> {
    let body: Body = serde_json::from_slice(bytes).map_err(|error| InvalidRequest::Shape(error.to_string()))?;
    let mut turns = Vec::new();
    for message in body.messages {
        let role = match message.role {
            WireRole::User => Role::User,
            WireRole::Assistant => Role::Assistant,
        };
        Request::push(&mut turns, role, parts(message.content));
    }
    Ok(Request {
        api: Api::Anthropic,
        model: body.model,
        system: body.system.map(|content| flatten(content).0).unwrap_or_default(),
        turns,
        tools_bytes: body.tools.map_or(0, |tools| json_bytes(&tools)),
        stream: body.stream,
        include_usage: true,
        max_tokens: body.max_tokens,
        digest: Digest::of(&[b"anthropic", bytes]),
    })
}

fn parts(content: Content) -> Vec<Part> {
    match content {
        Content::Text(text) => vec![Part::Text(text)],
        Content::Blocks(blocks) => blocks.into_iter().filter_map(part).collect(),
    }
}

fn part(block: WireBlock) -> Option<Part> {
    Some(match block {
        WireBlock::Text { text } => Part::Text(text),
        WireBlock::Thinking { thinking } => Part::Thinking(thinking),
        WireBlock::ToolUse { id, name, input } => Part::Call { id, name, arguments: input.to_string() },
        WireBlock::ToolResult { tool_use_id, content, is_error } => {
            let (content, attachments) = content.map(flatten).unwrap_or_default();
            Part::Result(ToolResult { call_id: tool_use_id, content, is_error, attachments })
        }
        WireBlock::Image | WireBlock::Document => Part::Attachment,
        WireBlock::Other => return None,
    })
}

/// The text of a content, and how many attachments stand in it.
fn flatten(content: Content) -> (String, u32) {
    let blocks = match content {
        Content::Text(text) => return (text, 0),
        Content::Blocks(blocks) => blocks,
    };
    let mut texts = Vec::new();
    let mut attachments = 0;
    for block in blocks {
        match block {
            WireBlock::Text { text } => texts.push(text),
            WireBlock::Image | WireBlock::Document => attachments += 1,
            _ => {}
        }
    }
    (texts.join("\n"), attachments)
}

/// The answer as one body.
pub(super) fn body(reply: &Reply) -> Value {
    let content: Vec<Value> = reply.blocks.iter().map(whole_block).collect();
    let mut body = json!({
        "id": message_id(reply), "type": "message", "role": "assistant", "model": reply.model, "content": content,
        "stop_reason": stop_reason(reply.stop), "stop_sequence": null,
    });
    if let Some(usage) = reply.usage {
        body["usage"] = usage_json(usage, usage.output);
    }
    body
}

fn whole_block(block: &Block) -> Value {
    match block {
        Block::Thinking(text) => {
            json!({"type": "thinking", "thinking": text, "signature": SIGNATURE})
        }
        Block::Text(text) => json!({"type": "text", "text": text}),
        Block::Call(call) => {
            json!({"type": "tool_use", "id": call.id(Api::Anthropic), "name": call.name, "input": call.arguments})
        }
    }
}

/// Stands where the real API signs what the model thought. Clients send it back and never look into it.
const SIGNATURE: &str = "cmVoZWFyc2Fs";

fn message_id(reply: &Reply) -> String {
    format!("msg_{}", reply.digest.hex(24))
}

fn stop_reason(stop: Stop) -> &'static str {
    match stop {
        Stop::EndTurn => "end_turn",
        Stop::ToolUse => "tool_use",
        Stop::MaxTokens => "max_tokens",
        Stop::Refusal => "refusal",
    }
}

fn usage_json(usage: Usage, output_tokens: u32) -> Value {
    json!({
        "input_tokens": usage.input,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cache_read,
        "output_tokens": output_tokens,
    })
}

/// The answer as the events of a stream.
pub(super) fn frames(reply: &Reply) -> Vec<Frame> {
    let mut frames = vec![message_start(reply)];
    for (index, block) in reply.blocks.iter().enumerate() {
        let (start, deltas) = streamed_block(block);
        let begin = json!({"type": "content_block_start", "index": index, "content_block": start});
        frames.push(frame("content_block_start", 0, &begin));
        if index == 0 {
            frames.push(frame("ping", 0, &json!({"type": "ping"})));
        }
        for (delta, tokens) in deltas {
            let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
            frames.push(frame("content_block_delta", tokens, &delta));
        }
        frames.push(frame("content_block_stop", 0, &json!({"type": "content_block_stop", "index": index})));
    }
    let mut end = json!({
        "type": "message_delta", "delta": {"stop_reason": stop_reason(reply.stop), "stop_sequence": null},
    });
    if let Some(usage) = reply.usage {
        end["usage"] = usage_json(usage, usage.output);
    }
    frames.push(frame("message_delta", 0, &end));
    frames.push(frame("message_stop", 0, &json!({"type": "message_stop"})));
    frames
}

fn message_start(reply: &Reply) -> Frame {
    let mut message = json!({
        "id": message_id(reply), "type": "message", "role": "assistant", "model": reply.model, "content": [],
        "stop_reason": null, "stop_sequence": null,
    });
    if let Some(usage) = reply.usage {
        // The real API has generated its first token when it sends this, and counts it.
        message["usage"] = usage_json(usage, usage.output.min(1));
    }
    frame("message_start", 0, &json!({"type": "message_start", "message": message}))
}

/// How a block begins in a stream, and its deltas with the tokens of each.
fn streamed_block(block: &Block) -> (Value, Vec<(Value, u32)>) {
    match block {
        Block::Thinking(text) => {
            let mut deltas = deltas(text, |piece| json!({"type": "thinking_delta", "thinking": piece}));
            deltas.push((json!({"type": "signature_delta", "signature": SIGNATURE}), 0));
            (json!({"type": "thinking", "thinking": "", "signature": ""}), deltas)
        }
        Block::Text(text) => {
            let deltas = deltas(text, |piece| json!({"type": "text_delta", "text": piece}));
            (json!({"type": "text", "text": ""}), deltas)
        }
        Block::Call(call) => {
            let partial = |piece: &str| json!({"type": "input_json_delta", "partial_json": piece});
            let (first, pieces) = call.streamed();
            let mut deltas = vec![(partial(""), first)];
            deltas.extend(pieces.iter().map(|(piece, tokens)| (partial(piece), *tokens)));
            (json!({"type": "tool_use", "id": call.id(Api::Anthropic), "name": call.name, "input": {}}), deltas)
        }
    }
}

fn deltas(text: &str, delta: impl Fn(&str) -> Value) -> Vec<(Value, u32)> {
    tokens::pieces(text).into_iter().map(|(piece, tokens)| (delta(piece), tokens)).collect()
}

/// One server-sent event.
pub(super) fn frame(event: &str, tokens: u32, data: &Value) -> Frame {
    Frame { bytes: Bytes::from(format!("event: {event}\ndata: {data}\n\n")), tokens }
}

/// The HTTP status of a failure.
pub(super) fn status(kind: FailureKind) -> u16 {
    match kind {
        FailureKind::InvalidRequest => 400,
        FailureKind::Authentication => 401,
        FailureKind::NotFound => 404,
        FailureKind::TooLarge => 413,
        FailureKind::RateLimited => 429,
        FailureKind::Overloaded => 529,
        FailureKind::Server(status) => status,
    }
}

/// The body of an error, the same in an answer and in a stream.
pub(super) fn error(failure: &Failure, request_id: &str) -> Value {
    let kind = match failure.kind {
        FailureKind::InvalidRequest => "invalid_request_error",
        FailureKind::Authentication => "authentication_error",
        FailureKind::NotFound => "not_found_error",
        FailureKind::TooLarge => "request_too_large",
        FailureKind::RateLimited => "rate_limit_error",
        FailureKind::Overloaded | FailureKind::Server(529) => "overloaded_error",
        FailureKind::Server(504) => "timeout_error",
        FailureKind::Server(_) => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": failure.message}, "request_id": request_id})
}

/// The list of models.
pub(crate) fn models(models: &[String]) -> Value {
    let data: Vec<Value> = models.iter().map(|id| model(id)).collect();
    json!({"data": data, "has_more": false, "first_id": models.first(), "last_id": models.last()})
}

/// One model.
pub(crate) fn model(id: &str) -> Value {
    json!({
        "type": "model", "id": id, "display_name": format!("{id} (rehearsal)"), "created_at": "1970-01-01T00:00:00Z",
    })
}

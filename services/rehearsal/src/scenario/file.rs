//! Scenario files as they are written: the YAML format, its schema, its documentation.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What a rehearsal model answers. Rules are tried from the first to the last; the first that matches answers.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Nightcrew rehearsal scenario")]
pub(crate) struct ScenarioFile {
    /// Name of the scenario.
    pub(crate) name: String,
    /// What it is for.
    #[serde(default)]
    #[allow(dead_code, reason = "for people only")]
    pub(crate) description: Option<String>,
    /// Models that `GET /v1/models` lists. A request may name any model.
    #[serde(default)]
    pub(crate) models: Vec<String>,
    /// How slow answers are, where a rule says nothing else.
    #[serde(default)]
    pub(crate) latency: LatencyFile,
    /// The rules.
    #[schemars(length(min = 1))]
    pub(crate) rules: Vec<RuleFile>,
}

/// Who gets which answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RuleFile {
    /// Name of the rule, unique in the file.
    #[schemars(length(min = 1))]
    pub(crate) name: String,
    /// What must hold, all of it. Nothing here matches every request.
    #[serde(default)]
    pub(crate) when: WhenFile,
    /// The rule applies to the first so many matching requests of each conversation (same system prompt and first
    /// message), then no more.
    #[schemars(range(min = 1))]
    pub(crate) times: Option<u32>,
    /// How slow this answer is.
    pub(crate) latency: Option<LatencyFile>,
    /// The answer waits at this gate until `POST /rehearsal/gates/NAME/open`.
    pub(crate) gate: Option<GateFile>,
    /// What goes wrong.
    pub(crate) fault: Option<FaultFile>,
    /// The answer. May be left out when the fault takes its place.
    pub(crate) reply: Option<ReplyFile>,
}

/// Conditions. Patterns are regular expressions of the Rust `regex` crate, found anywhere in the text; their named
/// groups, as in `(?<path>\S+)`, are `{{capture.path}}` in the answer.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct WhenFile {
    /// The agent: the name in the line `Agent: NAME` of the system prompt.
    pub(crate) agent: Option<String>,
    /// The step: the model's turns so far, and one.
    #[schemars(range(min = 1))]
    pub(crate) step: Option<u32>,
    /// This step or a later one.
    #[schemars(range(min = 1))]
    pub(crate) from_step: Option<u32>,
    /// Pattern in the model that was asked for.
    pub(crate) model: Option<String>,
    /// Pattern in the system prompt.
    pub(crate) system: Option<String>,
    /// Pattern in the latest text of the user; tool results may have come since.
    pub(crate) last_user: Option<String>,
    /// Pattern in a text or tool result that came in since the model spoke last.
    pub(crate) last_message: Option<String>,
    /// Pattern in any text or tool result of the conversation; the latest that has it is captured from.
    pub(crate) any_message: Option<String>,
    /// A tool result that came in since the model spoke last.
    pub(crate) tool_result: Option<ToolResultFile>,
}

/// One tool result for which all of this holds.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ToolResultFile {
    /// The tool.
    pub(crate) tool: Option<String>,
    /// Pattern in the result's text.
    pub(crate) content: Option<String>,
    /// Whether the tool failed. With the OpenAI API, which has no field for it: whether the text begins with "error".
    pub(crate) is_error: Option<bool>,
}

/// How slow an answer is.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LatencyFile {
    /// Milliseconds until the first token.
    #[schemars(range(max = 600_000))]
    pub(crate) first_token_ms: u32,
    /// Milliseconds for each token after it. A token is four bytes.
    #[schemars(range(max = 10_000))]
    pub(crate) per_token_ms: u32,
}

/// A gate: its name alone, or with how many tokens go out before it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum GateFile {
    /// Nothing goes out before it opens.
    Name(GateName),
    /// Some of a streamed answer goes out before it opens.
    Within(GateWithin),
}

/// Letters, digits, `-`, `_` and `.`, so that it fits into a path.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct GateName(#[schemars(regex(pattern = r"^[A-Za-z0-9._-]+$"))] pub String);

/// A gate in the middle of an answer.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct GateWithin {
    /// Name of the gate.
    pub(crate) name: GateName,
    /// Tokens of a streamed answer that go out before. With 0 the response's head does.
    pub(crate) after_tokens: u32,
}

/// What goes wrong. Each kind takes only the fields that are named with it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct FaultFile {
    /// What kind.
    pub(crate) kind: FaultKind,
    /// It happens to the first so many matching requests of each conversation, then the rule's reply is given; without
    /// a reply, the rule then matches no more.
    #[schemars(range(min = 1))]
    pub(crate) times: Option<u32>,
    /// Seconds in the `retry-after` header: rate_limited, overloaded, server_error.
    pub(crate) retry_after: Option<u32>,
    /// HTTP status: server_error, 500 when left out.
    #[schemars(range(min = 500, max = 599))]
    pub(crate) status: Option<u16>,
    /// Tokens that go out before: cut_stream, malformed_frame, error_frame (0 when left out), stall, hold (when left
    /// out, not even the response's head goes out).
    pub(crate) after_tokens: Option<u32>,
    /// Milliseconds: stall.
    #[schemars(range(max = 600_000))]
    pub(crate) ms: Option<u32>,
    /// Tokens told: wrong_usage, 0 when left out.
    pub(crate) input_tokens: Option<u32>,
    /// Tokens told: wrong_usage, 0 when left out.
    pub(crate) output_tokens: Option<u32>,
}

/// The faults that providers show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// 429.
    RateLimited,
    /// 529 with the Anthropic API, 503 with the OpenAI API.
    Overloaded,
    /// A 5xx.
    ServerError,
    /// 200 with a web page for a body.
    Garbage,
    /// The connection ends in the middle of the answer.
    CutStream,
    /// A frame, or a body, that is no JSON.
    MalformedFrame,
    /// An error in the middle of the stream; an overloaded error when not streamed.
    ErrorFrame,
    /// No usage is told.
    MissingUsage,
    /// A wrong usage is told.
    WrongUsage,
    /// Nothing comes for a while, then the rest.
    Stall,
    /// Nothing comes any more until the client gives up.
    Hold,
}

/// An answer.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ReplyFile {
    /// What the model thinks before it speaks; told by the Anthropic API only.
    pub(crate) thinking: Option<String>,
    /// What it says.
    pub(crate) text: Option<String>,
    /// The tools it calls, at once when there are several.
    pub(crate) tools: Vec<ToolCallFile>,
    /// Why it ends, when not for the usual reason.
    pub(crate) stop: Option<StopFile>,
    /// What it counts, where not by the rule of a quarter of the bytes.
    pub(crate) usage: Option<UsageFile>,
}

/// A tool call.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ToolCallFile {
    /// The tool.
    #[schemars(regex(pattern = r"^[a-zA-Z0-9_-]{1,128}$"))]
    pub(crate) name: String,
    /// Its arguments. Placeholders in strings are replaced.
    #[serde(default)]
    pub(crate) arguments: Map<String, Value>,
}

/// Why an answer ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StopFile {
    /// All was said, though tools may have been called.
    EndTurn,
    /// The most tokens wanted were reached.
    MaxTokens,
    /// The model would not answer.
    Refusal,
}

/// Figures that take the place of the counted ones, in tokens.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct UsageFile {
    /// Input that no cache had.
    pub(crate) input: Option<u32>,
    /// Output.
    pub(crate) output: Option<u32>,
    /// Input read from the cache, 0 when left out.
    pub(crate) cache_read: Option<u32>,
    /// Input written to the cache, 0 when left out.
    pub(crate) cache_write: Option<u32>,
}

#[cfg(test)]
mod tests {
    use super::ScenarioFile;

    /// The published schema is what editors complete scenario files from: `UPDATE_SCHEMA=1 cargo test` rewrites it.
    #[test]
    fn the_published_schema_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scenario.schema.json");
        let schema = kit::yaml::schema::<ScenarioFile>();
        let generated = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if std::env::var_os("UPDATE_SCHEMA").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();

        assert!(published == generated, "scenario.schema.json differs from the types: run with UPDATE_SCHEMA=1");
    }
}

//! A request in the words of neither API: what scenarios are matched against.
//!
//! Both APIs are parsed into this, so a scenario is written once and plays on both. It knows nothing of HTTP, of JSON
//! shapes or of rules.

use std::sync::LazyLock;

use regex::Regex;
use serde::Serialize;

use crate::digest::Digest;
use crate::tokens;

/// The API that a request came in by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Api {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions.
    Openai,
}

/// Who speaks in a turn. Tool results are the user's, as in the Messages API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// A person, another agent, or the results of tools.
    User,
    /// The model.
    Assistant,
}

/// One piece of a turn.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    /// Plain text.
    Text(String),
    /// Text the model thought and did not say.
    Thinking(String),
    /// A tool that the model called.
    Call {
        /// The id that its result has to name.
        id: String,
        /// The tool.
        name: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
    /// What a tool answered.
    Result(ToolResult),
    /// An image, a document or a sound: accepted and counted, never looked into.
    Attachment,
}

/// What a tool answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ToolResult {
    /// The id of the call it answers.
    pub(crate) call_id: String,
    /// Its text.
    pub(crate) content: String,
    /// Whether the tool failed. The OpenAI API can not say so: there a result whose text begins with "error", in any
    /// case and after an optional bracket, counts as one.
    pub(crate) is_error: bool,
    /// Attachments within the result.
    pub(crate) attachments: u32,
}

/// Consecutive messages of one role.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Turn {
    /// Who speaks.
    pub(crate) role: Role,
    /// What, in order.
    pub(crate) parts: Vec<Part>,
}

/// A request for a model's answer.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The API it came in by.
    pub(crate) api: Api,
    /// The model that was asked for.
    pub(crate) model: String,
    /// The system prompt, its blocks joined by a newline.
    pub(crate) system: String,
    /// The conversation so far.
    pub(crate) turns: Vec<Turn>,
    /// Bytes of the tool definitions as compact JSON.
    pub(crate) tools_bytes: usize,
    /// Whether the answer is streamed.
    pub(crate) stream: bool,
    /// Whether a streamed answer tells its usage. Always so with Anthropic.
    pub(crate) include_usage: bool,
    /// The most output tokens wanted.
    pub(crate) max_tokens: Option<u32>,
    /// Digest of the request's bytes: every id in the answer derives from it.
    pub(crate) digest: Digest,
}

/// Why a request is refused before any rule is looked at.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum InvalidRequest {
    /// The body is not what the API asks for.
    #[error("{0}")]
    Shape(String),
    /// There is no message.
    #[error("messages: at least one message is required")]
    Empty,
    /// The conversation begins with the model.
    #[error("messages.0: the first message must be the user's")]
    StartsWithAssistant,
    /// A call was left without a result in the turn that follows.
    #[error("messages: the tool call `{0}` has no result in the message after it")]
    CallWithoutResult(String),
    /// A result answers no call of the turn before.
    #[error("messages: the tool result for `{0}` answers no call of the message before it")]
    ResultWithoutCall(String),
}

static AGENT_LINE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"(?m)^Agent:[ \t]*([A-Za-z0-9_.-]+)[ \t]*\r?$").ok());

impl Request {
    /// Which answer of the conversation is asked for, from 1: the model's turns so far and one.
    pub(crate) fn step(&self) -> u32 {
        let turns = self.turns.iter().filter(|turn| turn.role == Role::Assistant).count();
        u32::try_from(turns).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// The agent that asks: the name in the first line `Agent: NAME` of the system prompt.
    pub(crate) fn agent(&self) -> Option<&str> {
        let line = AGENT_LINE.as_ref()?.captures(&self.system)?;
        line.get(1).map(|name| name.as_str())
    }

    /// What came in since the model spoke last: nothing when the model spoke last.
    pub(crate) fn news(&self) -> &[Part] {
        match self.turns.last() {
            Some(Turn { role: Role::User, parts }) => parts,
            _ => &[],
        }
    }

    /// The text of the latest user turn that has any. Tool results may have come since.
    pub(crate) fn last_user(&self) -> String {
        let texts = |turn: &Turn| turn.parts.iter().filter_map(text_of).collect::<Vec<_>>().join("\n");
        let said = self.turns.iter().rev().filter(|turn| turn.role == Role::User).map(texts);
        said.into_iter().find(|text| !text.is_empty()).unwrap_or_default()
    }

    /// The tool that the call with this id went to.
    pub(crate) fn tool_of(&self, call_id: &str) -> Option<&str> {
        self.turns.iter().rev().flat_map(|turn| &turn.parts).find_map(|part| match part {
            Part::Call { id, name, .. } if id == call_id => Some(name.as_str()),
            _ => None,
        })
    }

    /// What identifies the conversation that this request goes on with: its system prompt and first message. It is the
    /// same over all steps, and over a resume.
    pub(crate) fn conversation(&self) -> Digest {
        let first = self.turns.first().map_or(&[][..], |turn| &turn.parts);
        let mut parts = vec![self.system.as_bytes()];
        parts.extend(first.iter().filter_map(text_of).map(str::as_bytes));
        Digest::of(&parts)
    }

    /// Input tokens: of all text, thinking, calls, results and tool definitions together, and a constant for each
    /// attachment.
    pub(crate) fn input_tokens(&self) -> u32 {
        let mut bytes = self.system.len() + self.tools_bytes;
        let mut attachments = 0;
        for part in self.turns.iter().flat_map(|turn| &turn.parts) {
            match part {
                Part::Text(text) | Part::Thinking(text) => bytes += text.len(),
                Part::Call { name, arguments, .. } => bytes += name.len() + arguments.len(),
                Part::Result(result) => {
                    bytes += result.content.len();
                    attachments += result.attachments;
                }
                Part::Attachment => attachments += 1,
            }
        }
        tokens::of_bytes(bytes).saturating_add(attachments.saturating_mul(tokens::TOKENS_PER_ATTACHMENT))
    }

    /// Adds a message, joining it to the turn before when that is of the same role.
    pub(crate) fn push(turns: &mut Vec<Turn>, role: Role, parts: Vec<Part>) {
        match turns.last_mut() {
            Some(turn) if turn.role == role => turn.parts.extend(parts),
            _ => turns.push(Turn { role, parts }),
        }
    }

    /// Checks what both providers check of a conversation, so that a client's mistake shows here and not first with a
    /// real model.
    ///
    /// # Errors
    /// The first thing that a provider would refuse.
    pub(crate) fn check(&self) -> Result<(), InvalidRequest> {
        match self.turns.first() {
            None => return Err(InvalidRequest::Empty),
            Some(turn) if turn.role == Role::Assistant => {
                return Err(InvalidRequest::StartsWithAssistant);
            }
            Some(_) => {}
        }
        let mut open: Vec<&str> = Vec::new();
        for turn in &self.turns {
            for part in &turn.parts {
                if let Part::Result(result) = part {
                    let index = open.iter().position(|id| *id == result.call_id);
                    let index = index.ok_or_else(|| InvalidRequest::ResultWithoutCall(result.call_id.clone()))?;
                    open.swap_remove(index);
                }
            }
            if let Some(id) = open.first() {
                return Err(InvalidRequest::CallWithoutResult((*id).to_owned()));
            }
            let calls = turn.parts.iter().filter_map(|part| match part {
                Part::Call { id, .. } => Some(id.as_str()),
                _ => None,
            });
            open.extend(calls);
        }
        open.first().map_or(Ok(()), |id| Err(InvalidRequest::CallWithoutResult((*id).to_owned())))
    }
}

fn text_of(part: &Part) -> Option<&str> {
    match part {
        Part::Text(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(turns: Vec<Turn>) -> Request {
        Request {
            api: Api::Anthropic,
            model: "m".into(),
            system: "You are precise.\nAgent: coder\nBe brief.".into(),
            turns,
            tools_bytes: 0,
            stream: false,
            include_usage: true,
            max_tokens: None,
            digest: Digest::of(&[]),
        }
    }

    fn user(parts: Vec<Part>) -> Turn {
        Turn { role: Role::User, parts }
    }

    fn text(text: &str) -> Part {
        Part::Text(text.into())
    }

    fn call(id: &str) -> Turn {
        let part = Part::Call { id: id.into(), name: "read".into(), arguments: "{}".into() };
        Turn { role: Role::Assistant, parts: vec![part] }
    }

    fn result(id: &str) -> Part {
        Part::Result(ToolResult { call_id: id.into(), content: "ok".into(), is_error: false, attachments: 0 })
    }

    #[test]
    fn the_agent_is_the_name_in_its_line() {
        assert_eq!(request(vec![]).agent(), Some("coder"));
    }

    #[test]
    fn the_last_words_of_the_user_stay_the_last_over_tool_results() {
        let request = request(vec![user(vec![text("fix it")]), call("1"), user(vec![result("1")])]);

        assert_eq!(request.step(), 2);
        assert_eq!(request.last_user(), "fix it");
        assert_eq!(request.news(), [result("1")]);
        assert_eq!(request.check(), Ok(()));
    }

    #[test]
    fn a_call_has_its_result_in_the_next_turn_and_a_result_its_call_before() {
        let start = || user(vec![text("a")]);

        let unanswered = request(vec![start(), call("1"), user(vec![text("b")])]);
        assert_eq!(unanswered.check(), Err(InvalidRequest::CallWithoutResult("1".into())));
        let last = request(vec![start(), call("1")]);
        assert_eq!(last.check(), Err(InvalidRequest::CallWithoutResult("1".into())));
        let foreign = request(vec![start(), call("1"), user(vec![result("2")])]);
        assert_eq!(foreign.check(), Err(InvalidRequest::ResultWithoutCall("2".into())));
    }

    #[test]
    fn a_conversation_is_the_same_at_every_step() {
        let first = request(vec![user(vec![text("fix it")])]);
        let second = request(vec![user(vec![text("fix it")]), call("1"), user(vec![result("1")])]);
        let other = request(vec![user(vec![text("break it")])]);

        assert_eq!(first.conversation(), second.conversation());
        assert_ne!(first.conversation(), other.conversation());
    }

    #[test]
    fn an_attachment_costs_a_constant() {
        let request = request(vec![user(vec![text("abcd"), Part::Attachment])]);
        let system = request.system.len();

        assert_eq!(request.input_tokens(), tokens::of_bytes(system + 4) + tokens::TOKENS_PER_ATTACHMENT);
    }
}

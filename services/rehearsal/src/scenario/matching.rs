//! Whether a rule's conditions hold for a request, and how far off they are when they do not.

use std::collections::HashMap;

use regex::{Captures, Regex};

use crate::conversation::{Part, Request, ToolResult};

/// How much of a text is quoted when a request or a condition is explained.
const QUOTED_CHARS: usize = 160;

/// One thing that a rule asks for.
#[derive(Debug, Clone)]
pub(crate) enum Condition {
    /// The agent that asks.
    Agent(String),
    /// Exactly this step.
    Step(u32),
    /// This step or a later one.
    FromStep(u32),
    /// A pattern found in a text of the request.
    Text(Field, Regex),
    /// A tool result among what came in since the model spoke last.
    ToolResult {
        /// Of this tool.
        tool: Option<String>,
        /// With this in its text.
        content: Option<Regex>,
        /// A failure, or not.
        is_error: Option<bool>,
    },
}

/// The texts that patterns are looked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// The model that was asked for.
    Model,
    /// The system prompt.
    System,
    /// The latest text of the user.
    LastUser,
    /// Each text and tool result that came in since the model spoke last.
    LastMessage,
    /// Each text and tool result of the conversation, latest first.
    AnyMessage,
}

impl Field {
    fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::System => "system",
            Self::LastUser => "last_user",
            Self::LastMessage => "last_message",
            Self::AnyMessage => "any_message",
        }
    }
}

/// What of a request is matched, looked up once for all rules.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    request: &'a Request,
    agent: Option<&'a str>,
    step: u32,
    last_user: String,
}

impl<'a> Facts<'a> {
    /// The facts of `request`.
    pub(crate) fn of(request: &'a Request) -> Self {
        Self { request, agent: request.agent(), step: request.step(), last_user: request.last_user() }
    }

    /// The request in one line.
    pub(super) fn describe(&self, request: &Request) -> String {
        let news: Vec<String> = request.news().iter().filter_map(|part| self.describe_part(part)).collect();
        format!(
            "request {} (agent {}, step {}, model {}, last message: {})",
            request.digest.hex(12),
            self.agent.unwrap_or("unknown: no line `Agent: NAME` in the system prompt"),
            self.step,
            request.model,
            if news.is_empty() { "the model's own".to_owned() } else { news.join(", ") },
        )
    }

    fn describe_part(&self, part: &Part) -> Option<String> {
        match part {
            Part::Text(text) => Some(quote(text)),
            Part::Result(result) => Some(self.describe_result(result)),
            Part::Attachment => Some("an attachment".to_owned()),
            Part::Thinking(_) | Part::Call { .. } => None,
        }
    }

    fn describe_result(&self, result: &ToolResult) -> String {
        let tool = self.request.tool_of(&result.call_id).unwrap_or("?");
        let error = if result.is_error { " failed" } else { "" };
        format!("tool `{tool}`{error} {}", quote(&result.content))
    }

    fn results(&self) -> impl Iterator<Item = &'a ToolResult> {
        self.request.news().iter().filter_map(|part| match part {
            Part::Result(result) => Some(result),
            _ => None,
        })
    }

    fn find<'s>(&'s self, field: Field, pattern: &Regex) -> Option<Captures<'s>> {
        match field {
            Field::Model => pattern.captures(&self.request.model),
            Field::System => pattern.captures(&self.request.system),
            Field::LastUser => pattern.captures(&self.last_user),
            Field::LastMessage => self.request.news().iter().find_map(|part| pattern.captures(incoming(part)?)),
            Field::AnyMessage => {
                let parts = self.request.turns.iter().rev().flat_map(|turn| turn.parts.iter().rev());
                parts.into_iter().find_map(|part| pattern.captures(incoming(part)?))
            }
        }
    }
}

fn incoming(part: &Part) -> Option<&str> {
    match part {
        Part::Text(text) => Some(text),
        Part::Result(result) => Some(&result.content),
        _ => None,
    }
}

impl Condition {
    /// The patterns of the condition.
    pub(super) fn patterns(&self) -> Option<&Regex> {
        match self {
            Self::Text(_, pattern) => Some(pattern),
            Self::ToolResult { content, .. } => content.as_ref(),
            _ => None,
        }
    }

    /// Whether it holds. What it captured goes to `captures`.
    fn holds(&self, facts: &Facts<'_>, captures: &mut HashMap<String, String>) -> bool {
        match self {
            Self::Agent(name) => facts.agent == Some(name),
            Self::Step(step) => facts.step == *step,
            Self::FromStep(step) => facts.step >= *step,
            Self::Text(field, pattern) => match facts.find(*field, pattern) {
                Some(found) => keep(pattern, &found, captures),
                None => false,
            },
            Self::ToolResult { tool, content, is_error } => facts.results().any(|result| {
                let of_tool = tool.as_deref().is_none_or(|tool| facts.request.tool_of(&result.call_id) == Some(tool));
                let as_told = is_error.is_none_or(|wanted| wanted == result.is_error);
                of_tool
                    && as_told
                    && content.as_ref().is_none_or(|pattern| match pattern.captures(&result.content) {
                        Some(found) => keep(pattern, &found, captures),
                        None => false,
                    })
            }),
        }
    }

    /// Why it does not hold.
    pub(super) fn explain(&self, facts: &Facts<'_>) -> String {
        match self {
            Self::Agent(name) => format!("it wants agent {name} and not {}", facts.agent.unwrap_or("an unknown one")),
            Self::Step(step) => format!("it wants step {step} and not {}", facts.step),
            Self::FromStep(step) => format!("it wants step {step} or later and not {}", facts.step),
            Self::Text(field, pattern) => format!("its {} /{pattern}/ is not found", field.name()),
            Self::ToolResult { tool, content, is_error } => {
                let tool = tool.as_deref().map_or(String::new(), |tool| format!(" of `{tool}`"));
                let content = content.as_ref().map_or(String::new(), |pattern| format!(" with /{pattern}/"));
                let error = match is_error {
                    Some(true) => " that failed",
                    Some(false) => " that did not fail",
                    None => "",
                };
                format!("it wants a tool result{tool}{content}{error}")
            }
        }
    }

    /// A rule for somebody else is farther off than one for another step or text.
    fn weight(&self) -> u32 {
        match self {
            Self::Agent(_) | Self::Text(Field::System | Field::Model, _) => 4,
            _ => 1,
        }
    }
}

fn keep(pattern: &Regex, found: &Captures<'_>, captures: &mut HashMap<String, String>) -> bool {
    for name in pattern.capture_names().flatten() {
        if let Some(group) = found.name(name) {
            captures.insert(name.to_owned(), group.as_str().to_owned());
        }
    }
    true
}

fn quote(text: &str) -> String {
    let shown: String = text.chars().take(QUOTED_CHARS).collect();
    let more = if shown.len() < text.len() { "..." } else { "" };
    format!("{shown:?}{more}")
}

/// What the conditions capture when all of them hold.
pub(super) fn captures(conditions: &[Condition], facts: &Facts<'_>) -> Option<HashMap<String, String>> {
    let mut captures = HashMap::new();
    conditions.iter().all(|condition| condition.holds(facts, &mut captures)).then_some(captures)
}

/// The conditions that do not hold.
pub(super) fn unmet<'c>(conditions: &'c [Condition], facts: &Facts<'_>) -> Vec<&'c Condition> {
    conditions.iter().filter(|condition| !condition.holds(facts, &mut HashMap::new())).collect()
}

/// How far off a rule is, to be compared with others: what it misses first, then what it has.
pub(super) fn distance(all: &[Condition], unmet: &[&Condition]) -> (u32, usize) {
    let missed = unmet.iter().map(|condition| condition.weight()).sum();
    (missed, usize::MAX - (all.len() - unmet.len()))
}

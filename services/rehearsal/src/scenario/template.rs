//! Placeholders in answers: `{{capture.path}}`, `{{call_id}}`, `{{agent}}`, `{{model}}`, `{{step}}`.
//!
//! Only a plain name between two braces is a placeholder, so code and JSON in an answer stay as they are. An unknown
//! name is found when the scenario is loaded.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// What placeholders stand for. `{{call_id}}` is handed in apart: in a tool call's arguments it is unique to the call,
/// elsewhere to the answer.
#[derive(Debug)]
pub(crate) struct Vars<'a> {
    /// Named groups of the rule's patterns.
    pub(crate) captures: &'a HashMap<String, String>,
    /// The agent that asks, or nothing.
    pub(crate) agent: &'a str,
    /// The model that was asked for.
    pub(crate) model: &'a str,
    /// The step of the conversation.
    pub(crate) step: u32,
}

impl Vars<'_> {
    fn value(&self, name: &str, call_id: &str) -> Option<String> {
        match name {
            "call_id" => Some(call_id.to_owned()),
            "agent" => Some(self.agent.to_owned()),
            "model" => Some(self.model.to_owned()),
            "step" => Some(self.step.to_string()),
            // A group that took no part in the match stands for nothing.
            _ => name.strip_prefix("capture.").map(|group| self.captures.get(group).cloned().unwrap_or_default()),
        }
    }
}

/// Whether something answers to the placeholder `name`, given the names of the rule's groups.
pub(super) fn is_known(name: &str, groups: &[String]) -> bool {
    match name.strip_prefix("capture.") {
        Some(group) => groups.iter().any(|known| known == group),
        None => matches!(name, "call_id" | "agent" | "model" | "step"),
    }
}

/// A text with its placeholders replaced.
pub(crate) fn render(text: &str, vars: &Vars<'_>, call_id: &str) -> String {
    let mut rendered = String::with_capacity(text.len());
    for piece in parse(text) {
        match piece {
            Piece::Text(text) => rendered.push_str(text),
            Piece::Placeholder { name, whole } => match vars.value(name, call_id) {
                Some(value) => rendered.push_str(&value),
                None => rendered.push_str(whole),
            },
        }
    }
    rendered
}

/// Arguments with the placeholders in all their strings replaced.
pub(crate) fn render_map(map: &Map<String, Value>, vars: &Vars<'_>, call_id: &str) -> Map<String, Value> {
    map.iter().map(|(key, value)| (key.clone(), render_value(value, vars, call_id))).collect()
}

fn render_value(value: &Value, vars: &Vars<'_>, call_id: &str) -> Value {
    match value {
        Value::String(text) => Value::String(render(text, vars, call_id)),
        Value::Array(items) => items.iter().map(|item| render_value(item, vars, call_id)).collect(),
        Value::Object(map) => Value::Object(render_map(map, vars, call_id)),
        other => other.clone(),
    }
}

/// The names of the placeholders in `text`.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    parse(text).into_iter().filter_map(|piece| match piece {
        Piece::Placeholder { name, .. } => Some(name),
        Piece::Text(_) => None,
    })
}

enum Piece<'a> {
    Text(&'a str),
    Placeholder { name: &'a str, whole: &'a str },
}

fn parse(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut searched = 0;
    while let Some(open) = rest[searched..].find("{{").map(|at| at + searched) {
        let inner = &rest[open + 2..];
        match inner.find("}}").filter(|close| is_name(inner[..*close].trim())) {
            Some(close) => {
                let end = open + 2 + close + 2;
                pieces.push(Piece::Text(&rest[..open]));
                pieces.push(Piece::Placeholder { name: inner[..close].trim(), whole: &rest[open..end] });
                rest = &rest[end..];
                searched = 0;
            }
            None => searched = open + 1,
        }
    }
    pieces.push(Piece::Text(rest));
    pieces
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(text: &str) -> String {
        let captures = HashMap::from([("path".to_owned(), "a/b.py".to_owned())]);
        let vars = Vars { captures: &captures, agent: "coder", model: "m", step: 3 };
        render(text, &vars, "c1")
    }

    #[test]
    fn placeholders_are_replaced_and_all_else_stays() {
        assert_eq!(rendered("{{capture.path}} by {{ agent }}, {{step}}: {{call_id}}"), "a/b.py by coder, 3: c1");
        assert_eq!(rendered("{{capture.other}}|"), "|");
        assert_eq!(rendered("f'{{x + 1}}' {{"), "f'{{x + 1}}' {{");
        assert_eq!(rendered("{{{step}}}"), "{3}");
        assert_eq!(rendered("日{{step}}本"), "日3本");
    }
}

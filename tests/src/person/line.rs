//! What a person reads in a room.

use std::collections::BTreeMap;

use matrix_sdk::{deserialized_responses::TimelineEvent, ruma::serde::Raw};
use serde_json::Value;

/// One message of a room, as a person reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The event's id.
    pub event_id: String,
    /// Who wrote it.
    pub sender: String,
    /// The message that roots its thread.
    pub thread: Option<String>,
    /// What is read, with the newest edit applied; nothing when it was taken back.
    pub text: String,
    /// The kind of message, such as `m.text`, `m.notice` or `m.file`; `undecryptable` when its key is missing.
    pub kind: String,
    /// The whole content.
    pub content: Value,
}

/// A room as text.
pub fn transcript(lines: &[Line]) -> String {
    let mut text = String::new();
    for line in lines {
        let indent = if line.thread.is_some() { "    " } else { "" };
        let body = line.text.replace('\n', &format!("\n{indent}  "));
        text.extend([indent, &line.sender, ": ", &body, "\n"]);
    }
    text
}

/// The messages among `events`, oldest first, with edits applied to what they replace.
pub(super) fn lines(events: &[TimelineEvent]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    let mut edits: BTreeMap<String, Value> = BTreeMap::new();
    for event in events {
        let Some(line) = line(event) else { continue };
        let relation = &line.content["m.relates_to"];
        match (relation["rel_type"].as_str(), relation["event_id"].as_str()) {
            (Some("m.replace"), Some(of)) => {
                edits.insert(of.to_owned(), line.content["m.new_content"].clone());
            }
            _ => lines.push(line),
        }
    }
    for line in &mut lines {
        if let Some(text) = edits.get(&line.event_id).and_then(|content| content["body"].as_str()) {
            text.clone_into(&mut line.text);
        }
    }
    lines
}

fn line(event: &TimelineEvent) -> Option<Line> {
    let raw: &Raw<_> = event.raw();
    let kind: String = raw.get_field("type").ok()??;
    if kind != "m.room.message" && !event.kind.is_utd() {
        return None;
    }
    let content: Value = raw.get_field("content").ok()??;
    let relation = &content["m.relates_to"];
    let thread = (relation["rel_type"] == "m.thread").then(|| relation["event_id"].as_str()).flatten();
    let kind = if event.kind.is_utd() { "undecryptable" } else { content["msgtype"].as_str().unwrap_or_default() };
    Some(Line {
        event_id: event.event_id()?.to_string(),
        sender: event.sender()?.to_string(),
        thread: thread.map(ToOwned::to_owned),
        text: content["body"].as_str().unwrap_or_default().to_owned(),
        kind: kind.to_owned(),
        content,
    })
}

//! The run explained: what `nightcrew timeline RUN --json` prints, held against its published schema, without a gap, and
//! with everything in it that a run has.

use std::collections::BTreeSet;

use anyhow::{Context as _, bail};
use jsonschema::Validator;
use schemas::timeline::{Source, Timeline};
use serde_json::Value;

/// The schema as it is published.
const SCHEMA: &str = include_str!("../../../schemas/json/timeline.schema.json");

/// What the demo's runs have done, by source and kind: a timeline that lacks one of these does not explain them.
const KINDS: [(Source, &str); 12] = [
    (Source::Journal, "requested"),
    (Source::Journal, "started"),
    (Source::Journal, "model_called"),
    (Source::Journal, "model_replied"),
    (Source::Journal, "tool_called"),
    (Source::Journal, "tool_returned"),
    (Source::Journal, "file_changed"),
    (Source::Journal, "handed_off"),
    (Source::Journal, "message_sent"),
    (Source::Journal, "finished"),
    (Source::Signal, "delivered"),
    (Source::Call, "model_call"),
];

/// Reads a timeline that was printed. An error says all that is not as published.
pub(crate) fn read(printed: &str) -> anyhow::Result<Timeline> {
    let schema: Value = serde_json::from_str(SCHEMA).context("the published schema is no JSON")?;
    let validator = jsonschema::options().should_validate_formats(true).build(&schema);
    let validator = validator.context("the published schema is none")?;
    let printed: Value = serde_json::from_str(printed).context("the timeline is no JSON")?;
    agrees(&validator, &printed)?;
    Ok(serde_json::from_value(printed)?)
}

fn agrees(validator: &Validator, printed: &Value) -> anyhow::Result<()> {
    let breaches: Vec<String> =
        validator.iter_errors(printed).map(|error| format!("{}: {error}", error.instance_path())).collect();
    if breaches.is_empty() {
        return Ok(());
    }
    bail!("the timeline is not as its schema says:\n  {}", breaches.join("\n  "))
}

/// What is missing in a tree: its gaps, and whatever of a run it does not tell.
pub(crate) fn missing(tree: &Timeline) -> Vec<String> {
    let mut missing: Vec<String> = Vec::new();
    let mut told = BTreeSet::new();
    walk(tree, &mut |timeline| {
        let run = timeline.summary.run_id.short();
        missing.extend(timeline.gaps.iter().map(|gap| format!("run {run}: {gap}")));
        for entry in &timeline.entries {
            told.insert((entry.source, entry.kind.clone()));
        }
        if !timeline.entries.iter().any(|entry| entry.source == Source::Log) {
            missing.push(format!("run {run}: no log line"));
        }
    });
    let lacks = |(source, kind): &&(Source, &str)| !told.contains(&(*source, (*kind).to_owned()));
    missing.extend(KINDS.iter().filter(lacks).map(|(_, kind)| format!("nothing tells of {kind}")));
    missing
}

/// How many runs a tree has, and how many entries.
pub(crate) fn size(tree: &Timeline) -> (usize, usize) {
    let (mut runs, mut entries) = (0, 0);
    walk(tree, &mut |timeline| {
        runs += 1;
        entries += timeline.entries.len();
    });
    (runs, entries)
}

fn walk(timeline: &Timeline, look: &mut impl FnMut(&Timeline)) {
    look(timeline);
    for child in &timeline.children {
        walk(child, look);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_no_timeline_is_told_with_its_place() {
        let told = read(&json!({ "version": "one", "entries": [{ "at": "yesterday" }] }).to_string());
        let told = told.expect_err("it is none").to_string();
        for wanted in ["/version", "/entries/0/at", "gaps", "summary"] {
            assert!(told.contains(wanted), "{wanted}: {told}");
        }
        assert!(read("timeline").is_err());
    }
}

//! A timeline made of what was read of a run.
//!
//! Messages of the log keep the order of their sequences, because one stream holds them all. Log lines stand where their
//! time puts them, and gaps where they were noticed.

use jiff::Timestamp;
use schemas::{
    RunId,
    summary::RunSummary,
    timeline::{Entry, Source, TIMELINE_VERSION, Timeline},
};
use serde::Serialize;
use serde_json::Value;

use super::evidence::Evidence;
use super::gaps::{self, Found};
use super::happenings;
use super::journal_lines::Teller;
use super::text::{QUOTE_CHARS, one_line};

/// The timeline that `evidence` gives at `now`, without children.
pub fn timeline(summary: RunSummary, evidence: &Evidence, now: Timestamp) -> Timeline {
    let run = summary.run_id;
    let found = gaps::check(run, evidence, now);
    let mut entries = of_the_log(run, evidence);
    place_gaps(&mut entries, &found);
    Timeline {
        version: TIMELINE_VERSION,
        summary,
        entries: with_log_lines(entries, evidence),
        gaps: found.into_iter().map(|found| found.gap).collect(),
        children: Vec::new(),
    }
}

/// The entries of all messages, in order of their sequences.
pub fn of_the_log(run: RunId, evidence: &Evidence) -> Vec<Entry> {
    let mut entries = journal(evidence);
    entries.extend(evidence.signals.iter().map(|told| Entry {
        at: told.time,
        source: Source::Signal,
        sequence: Some(told.sequence),
        id: Some(told.id.clone()),
        kind: told.body.kind().to_owned(),
        line: happenings::signal(told),
        detail: detail(&told.body),
    }));
    entries.extend(evidence.calls.iter().map(|told| Entry {
        at: told.time,
        source: Source::Call,
        sequence: Some(told.sequence),
        id: Some(told.id.clone()),
        kind: "model_call".to_owned(),
        line: happenings::call(run, &told.body),
        detail: detail(&told.body),
    }));
    // Stable: the events of one decision keep their order.
    entries.sort_by_key(|entry| entry.sequence);
    entries
}

fn journal(evidence: &Evidence) -> Vec<Entry> {
    let mut teller = Teller::default();
    let mut entries = Vec::new();
    for message in &evidence.journal {
        for (n, event) in message.decision.events.iter().enumerate() {
            entries.push(Entry {
                at: message.time,
                source: Source::Journal,
                sequence: Some(message.sequence),
                id: Some(message.id.nth(n)),
                kind: event.kind().to_owned(),
                line: teller.tell(event),
                detail: detail(event),
            });
        }
    }
    entries
}

/// Puts each gap behind the message after which it was noticed: from the last on, so that those placed before stand behind.
fn place_gaps(entries: &mut Vec<Entry>, found: &[Found]) {
    for found in found.iter().rev() {
        let is_before = |entry: &Entry| entry.sequence.is_some_and(|sequence| sequence <= found.after);
        let place = entries.partition_point(is_before);
        entries.insert(place, gap(found));
    }
}

fn gap(found: &Found) -> Entry {
    Entry {
        at: found.at,
        source: Source::Gap,
        sequence: None,
        id: None,
        kind: found.gap.name().to_owned(),
        line: one_line(&found.gap.to_string(), 2 * QUOTE_CHARS),
        detail: detail(&found.gap),
    }
}

/// Merges the log lines in by time.
fn with_log_lines(entries: Vec<Entry>, evidence: &Evidence) -> Vec<Entry> {
    if evidence.lines.is_empty() {
        return entries;
    }
    let mut merged = Vec::with_capacity(entries.len() + evidence.lines.len());
    let mut lines = evidence.lines.iter().peekable();
    for entry in entries {
        while let Some(line) = lines.next_if(|line| line.time < entry.at) {
            merged.push(log(line));
        }
        merged.push(entry);
    }
    merged.extend(lines.map(log));
    merged
}

/// The entry of a log line.
pub fn log(line: &kit::logs::LogLine) -> Entry {
    let (kind, text) = happenings::log(line);
    Entry { at: line.time, source: Source::Log, sequence: None, id: None, kind, line: text, detail: detail(line) }
}

/// These types have no map with other keys than strings and no failing serializer.
fn detail<T: Serialize>(of: &T) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

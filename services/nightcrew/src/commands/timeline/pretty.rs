//! A timeline as a person reads it.
//!
//! ```text
//! run 8c7e…  lead  finished
//!   woken by  ada on terminal
//!   ...
//! Saturday 2026-11-21 (UTC)
//! 03:17:05.123  requested          ada on terminal asks: "find the failing test"
//! 03:17:05.311  handed_off         hands off to scout (…): "find it"
//!   │ run 2f…  scout  finished
//!   │ 03:17:05.313  requested      …
//! 03:17:09.020  GAP                …
//! ```

use std::collections::HashMap;

use jiff::tz::TimeZone;
use schemas::{
    RunId,
    event::Outcome,
    summary::{RunState, RunSummary},
    timeline::{Entry, Source, Timeline},
};

use crate::{
    commands::show,
    output::{Output, PrintError, Tone},
    visible,
};

/// Width of the column of kinds: that of the longest of them.
const KIND_WIDTH: usize = 18;

/// Width of the column of agents, when several are shown. A longer name moves its line.
const AGENT_WIDTH: usize = 8;

/// What stands before the lines of a child.
const INDENT: &str = "  │ ";

/// Prints a timeline with the children in it.
pub(super) fn print(timeline: &Timeline, zone: &TimeZone, out: &Output) -> Result<(), PrintError> {
    Page { zone, out }.timeline(timeline, "")
}

/// Where lines are printed, and in which zone.
struct Page<'a> {
    zone: &'a TimeZone,
    out: &'a Output,
}

impl Page<'_> {
    fn timeline(&self, timeline: &Timeline, indent: &str) -> Result<(), PrintError> {
        self.head(&timeline.summary, indent)?;
        let mut children: HashMap<RunId, &Timeline> =
            timeline.children.iter().map(|child| (child.summary.run_id, child)).collect();
        let below = format!("{indent}{INDENT}");
        let mut day = None;
        for entry in &timeline.entries {
            let today = entry.at.to_zoned(self.zone.clone()).date();
            if day.replace(today) != Some(today) {
                let day = show::day(entry.at, self.zone);
                self.line(indent, &self.out.tone(Tone::Strong, &day))?;
            }
            self.line(indent, &self::entry(entry, None, self.zone, self.out))?;
            if let Some(child) = handed_to(entry).and_then(|child| children.remove(&child)) {
                self.timeline(child, &below)?;
            }
        }
        for child in timeline.children.iter().filter(|child| children.contains_key(&child.summary.run_id)) {
            self.timeline(child, &below)?;
        }
        self.line(indent, &verdict(timeline, self.out))
    }

    fn head(&self, summary: &RunSummary, indent: &str) -> Result<(), PrintError> {
        for line in head(summary, self.out) {
            self.line(indent, &line)?;
        }
        Ok(())
    }

    fn line(&self, indent: &str, line: &str) -> Result<(), PrintError> {
        self.out.line(&format!("{}{line}", self.out.tone(Tone::Quiet, indent)))
    }
}

/// The run at a glance.
pub(super) fn head(summary: &RunSummary, out: &Output) -> Vec<String> {
    let (tone, state) = show::state(summary);
    let name = format!("{}  {}", show::run(summary.run_id), summary.agent);
    let mut lines = vec![format!("{}  {}", out.tone(Tone::Strong, &name), out.tone(tone, state))];
    let mut fact = |name: &str, value: &str| {
        let name = out.tone(Tone::Quiet, &format!("{name:<10}"));
        lines.push(format!("  {name}{}", visible::line(value)));
    };
    fact("woken by", &show::trigger(&summary.trigger));
    fact("task", &summary.prompt);
    if summary.state == RunState::Ended {
        let what = if summary.outcome == Some(Outcome::Finished) { "answer" } else { "why" };
        fact(what, &summary.answer);
    }
    if summary.attempts > 1 {
        fact("taken", &format!("{} times", summary.attempts));
    }
    if summary.archived {
        fact("archived", "its messages are in an archive");
    }
    fact("used", &format!("{}, {}", show::length(summary.totals.millis), show::totals(&summary.totals)));
    lines
}

/// One entry on one line; with the agent's name when entries of several are mixed.
pub(super) fn entry(entry: &Entry, agent: Option<&str>, zone: &TimeZone, out: &Output) -> String {
    let (tone, kind) = kind(entry);
    let at = out.tone(Tone::Quiet, &show::clock(entry.at, zone));
    let agent = agent.map(|agent| format!("{agent:<AGENT_WIDTH$}  ")).unwrap_or_default();
    let kind = out.tone(tone, &format!("{:<KIND_WIDTH$}", visible::line(&kind)));
    let line = visible::line(&entry.line);
    let line = if matches!(tone, Tone::Bad | Tone::Quiet) { out.tone(tone, &line) } else { line.into_owned() };
    format!("{at}  {agent}{kind}  {line}")
}

fn kind(entry: &Entry) -> (Tone, String) {
    match entry.source {
        Source::Journal => (tone_of(&entry.kind), entry.kind.clone()),
        Source::Signal => (Tone::Plain, format!("signal {}", entry.kind)),
        Source::Call => (Tone::Plain, entry.kind.clone()),
        Source::Log => (Tone::Quiet, format!("log {}", entry.kind)),
        Source::Gap => (Tone::Bad, "GAP".to_owned()),
    }
}

fn tone_of(kind: &str) -> Tone {
    match kind {
        "finished" => Tone::Good,
        "failed" | "killed" | "model_failed" => Tone::Bad,
        "cancelled" | "resumed" | "waiting" | "approval_requested" => Tone::Warning,
        "requested" | "handed_off" | "message_sent" | "code_committed" => Tone::Strong,
        _ => Tone::Plain,
    }
}

/// The child that an entry hands work to.
fn handed_to(entry: &Entry) -> Option<RunId> {
    if entry.source != Source::Journal || entry.kind != "handed_off" {
        return None;
    }
    entry.detail.get("child_run_id")?.as_str()?.parse().ok()
}

/// Whether everything of the run is there.
pub(super) fn verdict(timeline: &Timeline, out: &Output) -> String {
    match timeline.gaps.len() {
        0 => out.tone(Tone::Good, "nothing is missing"),
        gaps => {
            let gaps = show::counted(gaps as u64, "gap");
            out.tone(Tone::Bad, &format!("{gaps}: what is marked GAP should be there and is not"))
        }
    }
}

//! The summary of a run: a fold of its journal.
//!
//! The summary is its own state: what is kept in KV `runs` is enough to go on from. A message that was seen before changes
//! nothing, and one that does not follow what was seen is not applied, so that replicas which share a consumer, and
//! deliveries out of order, can not fold over a hole.

use jiff::Timestamp;
use schemas::{
    RunEvent, RunId,
    event::{Outcome, Requested, Totals},
    summary::{RunState, RunSummary},
};

use super::evidence::Link;
use super::text::one_line;

/// Characters kept of a task and of an answer: what a line of a list shows, and its tooltip.
const EXCERPT_CHARS: usize = 240;

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Folded {
    /// It is in the summary now.
    Applied,
    /// It was in the summary before.
    Old,
    /// Messages between the summary and it were not seen.
    Hole,
}

/// The summary after a run's first message; none when that message is not the run's `requested`.
pub fn begin(run: RunId, first: Link<'_>) -> Option<RunSummary> {
    let events = &first.decision?.events;
    let requested = events.iter().find_map(|event| match event {
        RunEvent::Requested(requested) => Some(requested),
        _ => None,
    })?;
    let mut summary = from_request(run, requested, first);
    take(&mut summary, first);
    Some(summary)
}

fn from_request(run: RunId, requested: &Requested, first: Link<'_>) -> RunSummary {
    RunSummary {
        run_id: run,
        project: requested.project.clone(),
        agent: requested.agent.clone(),
        trigger: requested.trigger.clone(),
        parent_run_id: requested.parent_run_id,
        root_run_id: requested.root_run_id,
        first_sequence: first.sequence,
        last_sequence: first.sequence,
        requested_at: first.time,
        updated_at: first.time,
        state: RunState::Requested,
        outcome: None,
        fail_reason: None,
        prompt: excerpt(requested.prompt.preview()),
        answer: String::new(),
        attempts: 0,
        totals: Totals::default(),
        archived: false,
    }
}

/// The summary of a whole journal; none when its first message is not there or can not be read.
pub fn fold(run: RunId, links: &[Link<'_>]) -> Option<RunSummary> {
    let (first, rest) = links.split_first()?;
    let mut summary = begin(run, *first)?;
    for link in rest {
        go_on(&mut summary, *link);
    }
    Some(summary)
}

/// Takes the next message into `summary`, when it is the next.
pub fn apply(summary: &mut RunSummary, link: Link<'_>) -> Folded {
    if link.sequence <= summary.last_sequence {
        return Folded::Old;
    }
    if link.after.is_some_and(|after| after > summary.last_sequence) {
        return Folded::Hole;
    }
    take(summary, link);
    Folded::Applied
}

/// Takes a message that was read from the log right after what is in `summary`. What is missing between them, if anything,
/// is missing in the log, and a matter for [`super::gaps`].
pub fn go_on(summary: &mut RunSummary, link: Link<'_>) -> Folded {
    if link.sequence <= summary.last_sequence {
        return Folded::Old;
    }
    take(summary, link);
    Folded::Applied
}

fn take(summary: &mut RunSummary, link: Link<'_>) {
    let archived = summary.archived;
    summary.last_sequence = link.sequence;
    for event in link.decision.iter().flat_map(|decision| &decision.events) {
        take_event(summary, event);
    }
    // An archive is made long after the run; it tells nothing about the run itself.
    if archived == summary.archived {
        summary.updated_at = link.time;
    }
    if summary.outcome.is_none() {
        summary.totals.millis = millis(summary.requested_at, link.time);
    }
}

fn take_event(summary: &mut RunSummary, event: &RunEvent) {
    match event {
        RunEvent::Started(_) | RunEvent::Resumed(_) => {
            summary.attempts += 1;
            summary.state = RunState::Running;
        }
        RunEvent::Waiting(waiting) => summary.state = RunState::Waiting(waiting.reason),
        RunEvent::ModelReplied(reply) => summary.totals.add_reply(reply),
        RunEvent::ModelFailed(failed) => summary.totals.add_failure(failed),
        RunEvent::ToolReturned(_) => summary.totals.tool_calls += 1,
        RunEvent::ChildEnded(child) => summary.totals.add_child(&child.totals),
        RunEvent::Finished(finished) => {
            let answer = finished.answer.preview();
            end(summary, Outcome::Finished, finished.totals, answer);
        }
        RunEvent::Failed(failed) => {
            summary.fail_reason = Some(failed.reason);
            end(summary, Outcome::Failed, failed.totals, &failed.message);
        }
        RunEvent::Killed(killed) => {
            let why = format!("{}: {}", killed.by, killed.reason);
            end(summary, Outcome::Killed, killed.totals, &why);
        }
        RunEvent::Cancelled(cancelled) => {
            let why = format!("{}: {}", cancelled.by, cancelled.reason);
            end(summary, Outcome::Cancelled, cancelled.totals, &why);
        }
        RunEvent::Archived(archive) => {
            summary.archived = true;
            summary.first_sequence = archive.first_sequence;
        }
        _ => {}
    }
}

fn end(summary: &mut RunSummary, outcome: Outcome, totals: Totals, answer: &str) {
    summary.state = RunState::Ended;
    summary.outcome = Some(outcome);
    summary.totals = totals;
    summary.answer = excerpt(answer);
}

fn excerpt(text: &str) -> String {
    one_line(text, EXCERPT_CHARS)
}

fn millis(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

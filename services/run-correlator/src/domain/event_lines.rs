//! One line for people for what needs no memory of what was told before.

use std::fmt::Write as _;

use schemas::{
    Block, RunEvent, Trigger,
    event::{ContextLoaded, FileChange, FileChanged, ModelReplied, Requested, StopReason, Totals, WaitReason, Waiting},
};

use super::text::{QUOTE_CHARS, cost, count, counted, duration, name, one_line, quote, run, size, usage, words};

pub(super) fn requested(requested: &Requested) -> String {
    let agent = &requested.agent;
    let who = match &requested.trigger {
        Trigger::Chat { channel, room, sender, .. } => {
            format!("{} asks {agent} in {} of {}", name(sender), name(room), name(channel))
        }
        Trigger::Command { by, .. } => format!("{} asks {agent}", name(by)),
        Trigger::Schedule { schedule, slot, .. } => {
            format!("schedule {} wakes {agent} for {slot}", name(schedule))
        }
        Trigger::PullRequest { repository, number, action, .. } => {
            format!("pull request {}#{number}, {}, wakes {agent}", name(repository), name(action))
        }
        Trigger::Forge { repository, forge_id } => format!("{} of {} wakes {agent}", name(forge_id), name(repository)),
        Trigger::Event { event_id } => format!("event {} wakes {agent}", name(event_id.as_str())),
        Trigger::Handoff { parent_run_id, .. } => format!("{} asks {agent}", run(*parent_run_id)),
        Trigger::Retry { of, by, .. } => format!("{} retries {} of {agent}", name(by), run(*of)),
    };
    let from = if requested.state.is_some() { ", to go on from a saved state" } else { "" };
    format!("{who}{from}: {}", quote(requested.prompt.preview()))
}

pub(super) fn context_loaded(context: &ContextLoaded) -> String {
    let tools: Vec<_> = context.tools.iter().map(|tool| name(tool)).collect();
    format!(
        "knows its persona, model {} with a window of {} tokens, and {}: {}",
        name(&context.model),
        count(context.context_window),
        counted(context.tools.len() as u64, "tool"),
        one_line(&tools.join(", "), QUOTE_CHARS)
    )
}

pub(super) fn model_replied(reply: &ModelReplied) -> String {
    let mut line = format!(
        "{} answers step {} after {}, {}, {}",
        name(&reply.model),
        reply.step,
        duration(reply.millis),
        usage(&reply.usage),
        cost(reply.cost)
    );
    line.push_str(upper_estimate(reply.estimated));
    match reply.stop {
        StopReason::EndTurn | StopReason::ToolUse => {}
        stop => {
            let _ = write!(line, ", stopped by {}", words(&stop));
        }
    }
    let wanted = reply.content.iter().filter_map(|block| match block {
        Block::ToolUse { name: tool, .. } => Some(name(tool)),
        _ => None,
    });
    let wanted: Vec<_> = wanted.collect();
    let said = reply.content.iter().find_map(|block| match block {
        Block::Text { text } => Some(quote(text)),
        _ => None,
    });
    if let Some(said) = said.filter(|said| !said.is_empty()) {
        let _ = write!(line, ": {said}");
    }
    if !wanted.is_empty() {
        let _ = write!(line, "; wants {}", wanted.join(", "));
    }
    line
}

/// What stands after figures that were not reported.
pub(super) const fn upper_estimate(estimated: bool) -> &'static str {
    if estimated { " (an upper estimate, for no tokens were reported)" } else { "" }
}

pub(super) fn file_changed(changed: &FileChanged) -> String {
    let what = match changed.change {
        FileChange::Added => "adds",
        FileChange::Modified => "changes",
        FileChange::Deleted => "deletes",
    };
    format!("{what} {} (+{} −{})", one_line(&changed.path, QUOTE_CHARS), count(changed.added), count(changed.removed))
}

pub(super) fn waiting(waiting: &Waiting) -> String {
    let mut line = match waiting.reason {
        WaitReason::Child => "waits for what it handed off".to_owned(),
        WaitReason::Approval => "waits for an approval".to_owned(),
        WaitReason::Pause => "is paused".to_owned(),
    };
    line.push_str(", held by nobody");
    if let Some(until) = waiting.until {
        let _ = write!(line, ", until {until:.0} at the latest");
    }
    line
}

/// The events that need no memory.
pub(super) fn plain(event: &RunEvent) -> String {
    match event {
        RunEvent::MessageReceived(message) => {
            format!("{} says: {}", name(&message.from), quote(message.text.preview()))
        }
        RunEvent::ApprovalRequested(asked) => {
            format!("asks for approval {} until {:.0}", name(&asked.approval_id), asked.expires_at)
        }
        RunEvent::ApprovalDecided(decided) => format!(
            "{} {} approval {}",
            name(&decided.by),
            if decided.granted { "grants" } else { "denies" },
            name(&decided.approval_id)
        ),
        RunEvent::SignalTaken(taken) => format!("has read the signal {}", name(&taken.name)),
        RunEvent::MessageSent(sent) => {
            format!("says in {} of {}: {}", name(&sent.to.room), name(&sent.to.channel), quote(sent.text.preview()))
        }
        RunEvent::Finished(end) => format!("finishes, {}: {}", totals(&end.totals), quote(end.answer.preview())),
        RunEvent::Archived(archived) => format!(
            "{} went into an archive of {}",
            counted(archived.messages.values().sum(), "message"),
            size(archived.archive.bytes)
        ),
        other => format!("an event of the kind {}, which this version does not know", name(other.kind())),
    }
}

pub(super) fn totals(totals: &Totals) -> String {
    let mut line = format!(
        "{} in all, {}, {}, {} tokens, {}",
        duration(totals.millis),
        counted(totals.model_calls.into(), "model call"),
        counted(totals.tool_calls.into(), "tool call"),
        count(totals.usage.total()),
        totals.cost
    );
    if totals.unpriced_calls > 0 {
        let calls = counted(totals.unpriced_calls.into(), "call");
        let _ = write!(line, " without {calls} that have no price");
    }
    if totals.estimated_calls > 0 {
        let _ = write!(line, ", with an upper estimate for {}", counted(totals.estimated_calls.into(), "model call"));
    }
    line
}

/// The end of a runner's id: its beginning is a time that several share.
pub(super) fn runner(id: &str) -> String {
    const SHORT: usize = 8;
    let id: Vec<_> = name(id).chars().collect();
    id[id.len().saturating_sub(SHORT)..].iter().collect()
}

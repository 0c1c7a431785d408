//! Figures, times and states as people read them.

use jiff::{Timestamp, tz::TimeZone};
use schemas::{
    MicroUsd, RunId, Trigger,
    event::{Outcome, Totals, WaitReason},
    summary::{RunState, RunSummary},
};

use crate::output::Tone;

/// Where a run stands, in a word, and how that is meant.
pub(crate) fn state(summary: &RunSummary) -> (Tone, &'static str) {
    match (summary.state, summary.outcome) {
        (RunState::Ended, Some(outcome)) => self::outcome(outcome),
        (RunState::Ended, None) => (Tone::Plain, "ended"),
        (RunState::Requested, _) => (Tone::Quiet, "requested"),
        (RunState::Running, _) => (Tone::Strong, "running"),
        (RunState::Waiting(WaitReason::Child), _) => (Tone::Plain, "waits: child"),
        (RunState::Waiting(WaitReason::Approval), _) => (Tone::Warning, "waits: approval"),
        (RunState::Waiting(WaitReason::Pause), _) => (Tone::Warning, "waits: pause"),
    }
}

/// An end, in a word, and how that is meant.
pub(crate) const fn outcome(outcome: Outcome) -> (Tone, &'static str) {
    match outcome {
        Outcome::Finished => (Tone::Good, "finished"),
        Outcome::Failed => (Tone::Bad, "failed"),
        Outcome::Killed => (Tone::Bad, "killed"),
        Outcome::Cancelled => (Tone::Warning, "cancelled"),
    }
}

/// What woke a run.
pub(crate) fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Chat { channel, sender, .. } => format!("{sender} on {channel}"),
        Trigger::Command { by, .. } => format!("a command of {by}"),
        Trigger::Schedule { schedule, slot, .. } => format!("schedule {schedule}, slot {slot}"),
        Trigger::PullRequest { repository, number, action, .. } => format!("{repository}#{number}: {action}"),
        Trigger::Forge { repository, .. } => format!("something on {repository}"),
        Trigger::Event { event_id } => format!("event {event_id}"),
        Trigger::Handoff { parent_run_id, .. } => format!("a handoff of run {parent_run_id}"),
        Trigger::Retry { of, by, .. } => format!("a retry of run {of} by {by}"),
    }
}

/// A time of day, to the millisecond.
pub(crate) fn clock(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%H:%M:%S%.3f").to_string()
}

/// A day and its zone.
pub(crate) fn day(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%A %Y-%m-%d (%Z)").to_string()
}

/// Day and time, to the second.
pub(crate) fn moment(at: Timestamp, zone: &TimeZone) -> String {
    at.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string()
}

/// A length of time in at most two units.
pub(crate) fn length(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// Money to a hundredth of a cent; calls without a price are told apart from free ones, upper estimates from counts.
pub(crate) fn money(totals: &Totals) -> String {
    let unpriced = totals.unpriced_calls > 0;
    let at_most = if totals.estimated_calls > 0 { "<= " } else { "" };
    match (totals.cost, unpriced) {
        (MicroUsd(0), true) => "no price".to_owned(),
        (cost, true) => format!("{at_most}{} +?", dollars(cost)),
        (cost, false) => format!("{at_most}{}", dollars(cost)),
    }
}

/// To a hundredth of a cent, as the footers of answers have it.
fn dollars(MicroUsd(micros): MicroUsd) -> String {
    match micros {
        0 => "$0".to_owned(),
        1..100 => "< $0.0001".to_owned(),
        _ => {
            let rounded = micros.saturating_add(50) / 100;
            format!("${}.{:04}", rounded / 10_000, rounded % 10_000)
        }
    }
}

/// A number with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `3 runs`, `1 run`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// What a run used, on one line.
pub(crate) fn totals(totals: &Totals) -> String {
    format!(
        "{}, {}, {}, {}",
        counted(totals.usage.total(), "token"),
        money(totals),
        counted(u64::from(totals.model_calls), "model call"),
        counted(u64::from(totals.tool_calls), "tool call"),
    )
}

/// The beginning of a text of one line.
pub(crate) fn excerpt(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(most.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// `run <id>`, for lines.
pub(crate) fn run(run: RunId) -> String {
    format!("run {run}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_the_unit_that_fits() {
        let lengths = [12, 1_999, 61_000, 3_660_000, 90_000_000].map(length);
        assert_eq!(lengths, ["12 ms", "1.9 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }

    #[test]
    fn money_never_claims_more_than_is_known() {
        let of = |cost, unpriced_calls| money(&Totals { cost: MicroUsd(cost), unpriced_calls, ..Totals::default() });
        assert_eq!(
            [of(0, 0), of(1, 0), of(1_234_567, 0), of(500, 1), of(0, 2)].map(String::from),
            ["$0", "< $0.0001", "$1.2346", "$0.0005 +?", "no price"]
        );
    }

    #[test]
    fn money_that_is_an_upper_estimate_is_marked() {
        let totals = Totals { cost: MicroUsd(1_234_567), estimated_calls: 1, ..Totals::default() };
        assert_eq!(money(&totals), "<= $1.2346");
        assert_eq!(money(&Totals { unpriced_calls: 1, ..totals }), "<= $1.2346 +?");
    }

    #[test]
    fn numbers_and_excerpts() {
        assert_eq!(counted(1_234_567, "token"), "1,234,567 tokens");
        assert_eq!(counted(1, "token"), "1 token");
        assert_eq!(excerpt("grün und blau", 6), "grün …");
        assert_eq!(excerpt("grün", 6), "grün");
    }
}

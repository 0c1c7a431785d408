//! The audit room: one line a run, when it ends.

use schemas::{
    RunEvent, RunId, Trigger,
    event::{Requested, Totals},
};

use super::footer;

/// Characters of the task that are shown.
const TASK_CHARS: usize = 80;

/// The line about a run that ended with `end`; nothing when `end` is no end.
pub fn line(run: RunId, requested: &Requested, end: &RunEvent) -> Option<String> {
    let (mark, how, totals) = outcome(end)?;
    let [duration, tokens, cost] = footer::usage(&totals);
    let parent = match &requested.trigger {
        Trigger::Handoff { parent_run_id, .. } => format!(" · child of {}", parent_run_id.short()),
        Trigger::Retry { of, .. } => format!(" · retry of {}", of.short()),
        _ => String::new(),
    };
    Some(format!(
        "{mark} **{}** {how} · {duration} · {tokens} · {cost} · {}{parent} · run `{run}`",
        requested.agent,
        excerpt(requested.prompt.preview()),
    ))
}

/// The line about a run of which only the archive is left.
pub fn archived(run: RunId) -> String {
    format!("… a run ended and was archived before I could tell of it: `nightcrew timeline {run}` shows it.")
}

fn outcome(end: &RunEvent) -> Option<(&'static str, String, Totals)> {
    match end {
        RunEvent::Finished(end) => Some(("✓", "finished".to_owned(), end.totals)),
        RunEvent::Failed(end) => Some(("✗", format!("failed: {}", one_line(&end.message)), end.totals)),
        RunEvent::Killed(end) => {
            Some(("■", format!("was killed by {}: {}", end.by, one_line(&end.reason)), end.totals))
        }
        RunEvent::Cancelled(end) => {
            Some(("□", format!("was cancelled by {}: {}", end.by, one_line(&end.reason)), end.totals))
        }
        _ => None,
    }
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The beginning of a task as inert text: no mention or markup of it takes effect again.
fn excerpt(task: &str) -> String {
    let line = one_line(task).replace('`', "'");
    let mut short: String = line.chars().take(TASK_CHARS).collect();
    if short.len() < line.len() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use schemas::{
        AgentName, Class, ProjectId, Trigger,
        event::{FailReason, Failed, Finished},
    };

    use super::*;

    fn requested(prompt: &str) -> Requested {
        let run: RunId = "00000000-0000-0000-0000-0000deadbeef".parse().unwrap();
        Requested {
            project: ProjectId::try_new("p").unwrap(),
            agent: AgentName::try_new("lead").unwrap(),
            class: Class::Resident,
            trigger: Trigger::Command { by: "ada".to_owned(), key: "k".to_owned() },
            rule: "chat".to_owned(),
            prompt: prompt.into(),
            context: None,
            reply_to: None,
            parent_run_id: None,
            root_run_id: run,
            depth: 0,
            deadline: jiff::Timestamp::UNIX_EPOCH,
            work: None,
            state: None,
        }
    }

    #[test]
    fn an_end_is_one_line() {
        let task = requested("fix\nthe `test`");
        let end = RunEvent::Finished(Finished { answer: "done".into(), totals: Totals::default() });
        let line = line(task.root_run_id, &task, &end).unwrap();
        assert_eq!(
            line,
            "✓ **lead** finished · 0.0 s · 0 tokens · $0 · `fix the 'test'` · run `00000000-0000-0000-0000-0000deadbeef`"
        );
    }

    #[test]
    fn a_child_and_a_retry_name_where_they_come_from() {
        let run: RunId = "00000000-0000-0000-0000-0000deadbeef".parse().unwrap();
        let of: RunId = "00000000-0000-0000-0000-00000000cafe".parse().unwrap();
        let line = |trigger| {
            let task = Requested { trigger, parent_run_id: Some(of), ..requested("fix") };
            let end = RunEvent::Finished(Finished { answer: "done".into(), totals: Totals::default() });
            super::line(run, &task, &end).unwrap()
        };
        let handoff = Trigger::Handoff {
            parent_run_id: of,
            decision_id: schemas::EventId::new("d"),
            index: 0,
            call_id: "c".to_owned(),
        };
        let child = line(handoff);
        assert!(child.contains(&format!(" · child of {} · ", of.short())), "{child}");
        let retry = line(Trigger::Retry { of, by: "ada".to_owned(), key: "k".to_owned() });
        assert!(retry.contains(&format!(" · retry of {} · ", of.short())), "{retry}");
    }

    #[test]
    fn a_failure_says_why_and_stays_one_line() {
        let task = requested(&"long ".repeat(100));
        let end = RunEvent::Failed(Failed {
            reason: FailReason::Deadline,
            message: "too\nlate".to_owned(),
            totals: Totals::default(),
        });
        let line = line(task.root_run_id, &task, &end).unwrap();
        assert!(line.starts_with("✗ **lead** failed: too late · "), "{line}");
        assert!(!line.contains('\n') && line.contains('…'), "{line}");
    }
}

//! One line for people for what happened around a run: signals, model calls on the wire, log lines.

use std::fmt::Write as _;

use kit::logs::{LogLine, Stream};
use schemas::{
    RunId, Signal,
    call::{CallOutcome, ModelCall},
    signal::Delivered,
};

use super::evidence::Told;
use super::text::{QUOTE_CHARS, cost, duration, name, one_line, quote, run, usage, words};

/// The line of a signal.
pub(super) fn signal(told: &Told<Signal>) -> String {
    match &told.body {
        Signal::Delivered(delivered) if delivered.external_id == Delivered::UNATTENDED => format!(
            "nobody was there to see what it said, in {} of {}",
            name(&delivered.room),
            name(&delivered.channel)
        ),
        Signal::Delivered(delivered) => format!(
            "{} has what it said, in {} as {}",
            name(&delivered.channel),
            name(&delivered.room),
            name(&delivered.external_id)
        ),
        Signal::Undelivered(refused) => format!(
            "{} does not take what it said, in {}: {}",
            name(&refused.channel),
            name(&refused.room),
            quote(&refused.reason)
        ),
        Signal::EffectDone(done) => {
            format!("{} did what it wanted, as {}", name(&done.system), name(&done.external_id))
        }
        Signal::ApprovalDecided(decided) => format!(
            "{} {} approval {}",
            name(&decided.by),
            if decided.granted { "grants" } else { "denies" },
            name(&decided.approval_id)
        ),
        Signal::ChildEnded(child) => {
            let (id, outcome) = (run(child.child_run_id), words(&child.outcome));
            format!("{id}, which it waits for, has {outcome}")
        }
        Signal::Deadline(deadline) => format!("its time is up: {:.0}", deadline.at),
        Signal::Unpaused(by) => with_reason("lets it go on", &by.by, &by.reason),
        Signal::Cancel(by) => with_reason("calls it off", &by.by, &by.reason),
        Signal::Message(message) => format!("{} says: {}", name(&message.from), quote(message.text.preview())),
        Signal::JobExited(exited) => {
            let mut line = format!("its job {} is gone", name(&exited.job));
            if let Some(code) = exited.exit_code {
                let _ = write!(line, " with exit code {code}");
            }
            let _ = write!(line, ": {}", quote(&exited.reason));
            line
        }
        Signal::Unknown(unknown) => {
            format!("a signal of the kind {}, which this version does not know", name(&unknown.kind))
        }
    }
}

fn with_reason(what: &str, by: &str, reason: &str) -> String {
    let reason = quote(reason);
    if reason.is_empty() {
        return format!("{} {what}", name(by));
    }
    format!("{} {what}: {reason}", name(by))
}

/// The line of a model call as the wire saw it.
pub(super) fn call(of: RunId, call: &ModelCall) -> String {
    let mut line = String::from("on the wire");
    if let Some(step) = step(of, call) {
        let _ = write!(line, ", step {step}");
    }
    let _ = write!(line, ": {} ", name(&call.model));
    line.push_str(match call.outcome {
        CallOutcome::Completed => "answered",
        CallOutcome::UpstreamError => "failed",
        CallOutcome::UpstreamCut => "broke off",
        CallOutcome::CallerGone => "answered, although the runner was gone,",
        CallOutcome::LimitCut => "was cut off by a limit",
        CallOutcome::ProxyCut => "was cut off because the proxy ended",
    });
    if let Some(status) = call.status.filter(|status| *status != 200) {
        let _ = write!(line, " with HTTP {status}");
    }
    let _ = write!(line, " after {}", duration(call.total_ms));
    if let Some(first) = call.first_byte_ms {
        let _ = write!(line, " (first byte after {})", duration(first));
    }
    let _ = write!(line, ", {}, {}", usage(&call.usage), cost(call.cost));
    if call.usage_estimated {
        line.push_str("; the tokens are an upper estimate because none were reported");
    }
    if call.rehearsal {
        line.push_str("; a rehearsal, no model");
    }
    line
}

/// The step of the run that a call was made for.
fn step(of: RunId, call: &ModelCall) -> Option<&str> {
    let (run, step) = call.idempotency_key.split_once('/')?;
    let is_step = run == of.to_string() && step.bytes().all(|byte| byte.is_ascii_digit());
    is_step.then_some(step)
}

/// The line of a log line, and its kind.
pub(super) fn log(line: &LogLine) -> (String, String) {
    let kind = match line.stream {
        Some(Stream::Stdout) => "stdout".to_owned(),
        Some(Stream::Stderr) => "stderr".to_owned(),
        None => line.level.name().to_lowercase(),
    };
    let who = match line.stream {
        Some(_) => name(&line.target),
        None => name(&line.service),
    };
    let mut text = format!("{who}: {}", one_line(&line.message, QUOTE_CHARS));
    for (field, value) in &line.fields {
        let value = match value {
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        let _ = write!(text, " {}={}", name(field), name(&value));
    }
    (kind, text)
}

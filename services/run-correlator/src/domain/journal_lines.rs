//! One line for people for each event of a journal.
//!
//! A line explains itself: a retry says what it repeats, a takeover says what its predecessor left open, an uncertain call
//! says what that means. For that the [`Teller`] remembers what it told before.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use schemas::{
    AgentName, RunEvent, RunId,
    event::{
        ChildEnded, ModelCalled, ModelErrorClass, ModelFailed, ResumeCause, Resumed, ToolCalled, ToolOutcome,
        ToolReturned, Totals,
    },
};

use super::event_lines::{self, runner, totals};
use super::text::{call, commit, cost, count, counted, duration, name, quote, run, size, usage, words};

/// Tells events in order.
#[derive(Debug, Default)]
pub(super) struct Teller {
    model: Option<OpenModelCall>,
    tools: BTreeMap<String, ToolCalled>,
    open: Vec<String>,
    children: BTreeMap<RunId, AgentName>,
}

#[derive(Debug)]
struct OpenModelCall {
    step: u32,
    failed: Option<ModelErrorClass>,
}

impl Teller {
    /// The line of the next event.
    pub(super) fn tell(&mut self, event: &RunEvent) -> String {
        match event {
            RunEvent::Requested(requested) => event_lines::requested(requested),
            RunEvent::Started(started) => {
                format!("runner {} takes the run, with the {} harness", runner(&started.runner), name(&started.harness))
            }
            RunEvent::Resumed(resumed) => self.resumed(resumed),
            RunEvent::ContextLoaded(context) => event_lines::context_loaded(context),
            RunEvent::ModelCalled(called) => self.model_called(called),
            RunEvent::ModelReplied(reply) => {
                self.model = None;
                event_lines::model_replied(reply)
            }
            RunEvent::ModelFailed(failed) => self.model_failed(failed),
            RunEvent::ToolCalled(called) => self.tool_called(called),
            RunEvent::ToolReturned(returned) => self.tool_returned(returned),
            RunEvent::FileChanged(changed) => event_lines::file_changed(changed),
            RunEvent::WorktreeSaved(saved) => format!(
                "saves the worktree of {} ({}) as {}",
                name(&saved.repository),
                size(saved.bundle.bytes),
                commit(&saved.snapshot)
            ),
            RunEvent::CodeCommitted(committed) => format!(
                "commits {} on {} of {}: {}",
                commit(&committed.work.commit),
                name(&committed.work.branch),
                name(&committed.work.repository),
                quote(&committed.subject)
            ),
            RunEvent::HandedOff(handed) => {
                let (child, agent) = (handed.child_run_id, &handed.agent);
                self.children.insert(child, agent.clone());
                let task = quote(handed.task.preview());
                format!("hands off to {agent} ({}): {task}", run(child))
            }
            RunEvent::ChildEnded(child) => self.child_ended(child),
            RunEvent::Waiting(waiting) => event_lines::waiting(waiting),
            RunEvent::Cancelled(end) => {
                let end = (&*end.by, &*end.reason, &end.totals);
                self.cut_off("called off", end)
            }
            RunEvent::Killed(end) => {
                let end = (&*end.by, &*end.reason, &end.totals);
                self.cut_off("killed", end)
            }
            RunEvent::Failed(end) => {
                let mut line = format!("fails ({}): {}", words(&end.reason), quote(&end.message));
                self.tell_open(&mut line, "cut off by that");
                let _ = write!(line, "; {}", totals(&end.totals));
                line
            }
            other => event_lines::plain(other),
        }
    }

    fn resumed(&mut self, resumed: &Resumed) -> String {
        let runner = runner(&resumed.runner);
        let mut line = match resumed.cause {
            ResumeCause::Signal => format!("runner {runner} goes on after the wait"),
            ResumeCause::HolderLost => format!("runner {runner} takes over from a lost one"),
        };
        let _ = write!(line, ", attempt {}", resumed.attempt);
        if resumed.cause == ResumeCause::HolderLost {
            self.tell_open(&mut line, "left open by it");
        }
        line
    }

    /// What has no answer yet, with `what` became of it.
    fn tell_open(&self, line: &mut String, what: &str) {
        let mut open = Vec::new();
        if let Some(model) = self.model.as_ref().filter(|model| model.failed.is_none()) {
            open.push(format!("the model call of step {}", model.step));
        }
        open.extend(self.open.iter().map(|call_id| self.call_of(call_id)));
        if !open.is_empty() {
            let _ = write!(line, "; {what}: {}", open.join(", "));
        }
    }

    fn model_called(&mut self, called: &ModelCalled) -> String {
        let mut line = format!("asks {}, step {}", name(&called.model), called.step);
        if called.attempt > 1 {
            let _ = write!(line, ", attempt {}", called.attempt);
            match self.model.as_ref().and_then(|open| open.failed) {
                Some(failed) => {
                    let _ = write!(line, " (the last one: {})", words(&failed));
                }
                None => {
                    line.push_str(" because its runner was lost; an answer that was given already is not paid again");
                }
            }
        }
        let tokens = count(called.input_estimate);
        let _ = write!(line, ", at most about {tokens} tokens in");
        if called.dropped_messages > 0 {
            let dropped = counted(called.dropped_messages.into(), "oldest message");
            let _ = write!(line, ", without the {dropped} to fit the window");
        }
        self.model = Some(OpenModelCall { step: called.step, failed: None });
        line
    }

    fn model_failed(&mut self, failed: &ModelFailed) -> String {
        if let Some(open) = &mut self.model {
            open.failed = Some(failed.class);
        }
        let (step, attempt) = (failed.step, failed.attempt);
        let mut line = format!("step {step}, attempt {attempt}: the model call fails, {}", words(&failed.class));
        if let Some(status) = failed.status {
            let _ = write!(line, " (HTTP {status})");
        }
        let _ = write!(line, ": {}", quote(&failed.message));
        if let Some(billed) = failed.billed.filter(|billed| billed.usage.total() > 0) {
            let _ = write!(line, "; billed all the same: {}, {}", usage(&billed.usage), cost(billed.cost));
            line.push_str(event_lines::upper_estimate(billed.estimated));
        }
        match failed.retry_after_ms {
            Some(pause) => {
                let _ = write!(line, "; to be tried again after {}", duration(pause));
            }
            None if matches!(failed.class, ModelErrorClass::Refused | ModelErrorClass::Budget) => {
                line.push_str("; trying again would not help");
            }
            None => {}
        }
        line
    }

    fn tool_called(&mut self, called: &ToolCalled) -> String {
        let again = self.open.contains(&called.call_id);
        let mut line = format!("calls {}", call(&called.tool, &called.arguments));
        if again {
            line.push_str(" again: its runner was lost while it ran, and it may be repeated without harm");
        } else {
            self.open.push(called.call_id.clone());
        }
        self.tools.insert(called.call_id.clone(), called.clone());
        line
    }

    fn tool_returned(&mut self, returned: &ToolReturned) -> String {
        self.open.retain(|open| *open != returned.call_id);
        let tool = self.tools.get(&returned.call_id);
        let tool = tool.map_or_else(|| name(&returned.call_id), |called| name(&called.tool));
        let (took, output) = (duration(returned.millis), quote(returned.output.preview()));
        let told = match returned.outcome {
            ToolOutcome::Ok => format!("{tool} returns after {took}"),
            ToolOutcome::Error => format!("{tool} fails after {took}"),
            ToolOutcome::Refused => format!("{tool} is refused"),
            ToolOutcome::Uncertain => {
                return format!(
                    "{tool} is uncertain: its runner was lost while it ran, so it may have acted or \
                     not; it is not run again, and the model is told to look"
                );
            }
        };
        if output.is_empty() {
            return told;
        }
        format!("{told}: {output}")
    }

    fn child_ended(&self, child: &ChildEnded) -> String {
        let agent = self.children.get(&child.child_run_id);
        let agent = agent.map_or_else(|| "the child".to_owned(), ToString::to_string);
        let (id, outcome) = (run(child.child_run_id), words(&child.outcome));
        let (totals, answer) = (totals(&child.totals), quote(child.answer.preview()));
        format!("{agent} ({id}) {outcome}, {totals}: {answer}")
    }

    fn cut_off(&self, how: &str, (by, reason, used): (&str, &str, &Totals)) -> String {
        let mut line = format!("{how} by {}", name(by));
        let reason = quote(reason);
        if !reason.is_empty() {
            let _ = write!(line, ": {reason}");
        }
        self.tell_open(&mut line, "cut off by that");
        let _ = write!(line, "; {}", totals(used));
        line
    }

    fn call_of(&self, call_id: &str) -> String {
        match self.tools.get(call_id) {
            Some(called) => call(&called.tool, &called.arguments),
            None => name(call_id),
        }
    }
}

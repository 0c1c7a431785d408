//! Turns a command into events, or refuses it. What was decided is then applied by the same fold that recovery uses.

use jiff::Timestamp;
use schemas::{
    EventId, RunEvent, Text,
    event::{
        Cancelled, ChildEnded, CodeCommitted, ContextLoaded, FailReason, Failed, FileChanged, Finished, Footer,
        HandedOff, Killed, MessageReceived, MessageSent, ModelCalled, ModelFailed, ModelReplied, ResumeCause, Resumed,
        SignalTaken, Started, ToolCalled, ToolOutcome, ToolReturned, WaitReason, Waiting, WorktreeSaved,
    },
    signal::{ByWhom, Message},
};

use super::{
    next::Asked,
    state::{Corrupt, Phase, RunState},
};

/// What the holder of a run reports or wants.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Take the run.
    Take {
        /// This runner's instance.
        runner: String,
        /// The harness that will drive it.
        harness: String,
    },
    /// The context is gathered.
    LoadContext(ContextLoaded),
    /// Call the model.
    CallModel(ModelCalled),
    /// The model answered.
    Reply(ModelReplied),
    /// The model did not answer.
    ModelFail(ModelFailed),
    /// Make a tool call.
    CallTool {
        /// What the model asked for.
        asked: Asked,
        /// Whether the tool's manifest says that it may run twice.
        idempotent: bool,
    },
    /// A tool returned.
    ReturnTool(Box<Returned>),
    /// Give a task to another agent.
    HandOff(HandedOff),
    /// A child ended.
    EndChild(EventId, ChildEnded),
    /// Somebody said something.
    Hear(EventId, Message),
    /// A signal that changes nothing but must be acknowledged.
    Note(EventId, String),
    /// Release the run.
    Wait(WaitReason, Option<Timestamp>),
    /// End the run.
    End(End, Timestamp),
}

/// What a tool call led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Returned {
    /// Result for the model.
    pub result: ToolReturned,
    /// Files that it changed.
    pub changes: Vec<FileChanged>,
    /// The worktree after it, when it changed.
    pub saved: Option<WorktreeSaved>,
    /// The commit that it made.
    pub committed: Option<CodeCommitted>,
}

/// How a run is to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With its answer.
    Finish(Text),
    /// With a reason.
    Fail(FailReason, String),
    /// At once.
    Kill(ByWhom),
    /// Called off.
    Cancel(ByWhom),
}

/// A command that the state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Illegal {
    /// The events that it would lead to are not possible.
    #[error("the command is not possible here")]
    Corrupt(#[source] Corrupt),
    /// The signal was taken before.
    #[error("signal {0} was taken before")]
    TakenBefore(EventId),
}

/// The events that `command` leads to. They are checked by applying them to a copy of nothing: the fold itself is the
/// one place that knows what is legal.
pub fn decide(state: &RunState, command: Command) -> Result<(RunState, Vec<RunEvent>), Illegal> {
    let events = events_of(state, command)?;
    let mut after = state.clone();
    for event in &events {
        after.apply(event).map_err(Illegal::Corrupt)?;
    }
    Ok((after, events))
}

fn events_of(state: &RunState, command: Command) -> Result<Vec<RunEvent>, Illegal> {
    Ok(match command {
        Command::Take { runner, harness } => vec![take(state, runner, harness)],
        Command::LoadContext(context) => vec![RunEvent::ContextLoaded(context)],
        Command::CallModel(call) => vec![RunEvent::ModelCalled(call)],
        Command::Reply(reply) => vec![RunEvent::ModelReplied(reply)],
        Command::ModelFail(failed) => vec![RunEvent::ModelFailed(failed)],
        Command::CallTool { asked, idempotent } => vec![RunEvent::ToolCalled(ToolCalled {
            call_id: asked.call_id,
            step: state.step(),
            tool: asked.tool,
            arguments: asked.arguments,
            idempotent,
        })],
        Command::ReturnTool(returned) => return_tool(*returned),
        Command::HandOff(handed) => vec![RunEvent::HandedOff(handed)],
        Command::EndChild(signal_id, ended) => end_child(state, signal_id, ended)?,
        Command::Hear(signal_id, message) => vec![
            taken(state, signal_id, "message")?,
            RunEvent::MessageReceived(MessageReceived { from: message.from, text: message.text }),
        ],
        Command::Note(signal_id, name) => vec![taken(state, signal_id, &name)?],
        Command::Wait(reason, until) => vec![RunEvent::Waiting(Waiting { reason, until })],
        Command::End(end, now) => end_run(state, end, now),
    })
}

fn take(state: &RunState, runner: String, harness: String) -> RunEvent {
    let cause = match state.phase() {
        Phase::Requested => return RunEvent::Started(Started { runner, harness }),
        Phase::Waiting(_) => ResumeCause::Signal,
        Phase::Held | Phase::Ended(_) => ResumeCause::HolderLost,
    };
    RunEvent::Resumed(Resumed { runner, attempt: state.epoch() + 1, cause })
}

fn return_tool(returned: Returned) -> Vec<RunEvent> {
    let changes = returned.changes.into_iter().map(RunEvent::FileChanged);
    let saved = returned.saved.map(RunEvent::WorktreeSaved);
    let committed = returned.committed.map(RunEvent::CodeCommitted);
    changes.chain(saved).chain(committed).chain([RunEvent::ToolReturned(returned.result)]).collect()
}

fn taken(state: &RunState, signal_id: EventId, name: &str) -> Result<RunEvent, Illegal> {
    if state.has_taken(&signal_id) {
        return Err(Illegal::TakenBefore(signal_id));
    }
    Ok(RunEvent::SignalTaken(SignalTaken { signal_id, name: name.to_owned() }))
}

/// A child's end is the return of the handoff that started it.
fn end_child(state: &RunState, signal_id: EventId, ended: ChildEnded) -> Result<Vec<RunEvent>, Illegal> {
    let taken = taken(state, signal_id, "child_ended")?;
    let outcome = match ended.outcome {
        schemas::event::Outcome::Finished => ToolOutcome::Ok,
        _ => ToolOutcome::Error,
    };
    let returned = ToolReturned {
        call_id: ended.call_id.clone(),
        outcome,
        output: ended.answer.clone(),
        millis: ended.totals.millis,
    };
    Ok(vec![taken, RunEvent::ChildEnded(ended), RunEvent::ToolReturned(returned)])
}

/// The end of a run, and before it what the room is told, in one decision.
fn end_run(state: &RunState, end: End, now: Timestamp) -> Vec<RunEvent> {
    let totals = state.totals_at(now);
    let (text, event) = match end {
        End::Finish(answer) => (answer.clone(), RunEvent::Finished(Finished { answer, totals })),
        End::Fail(reason, message) => {
            let text = format!("I could not go on: {message}");
            (text.into(), RunEvent::Failed(Failed { reason, message, totals }))
        }
        End::Kill(ByWhom { by, reason }) => {
            (format!("Ended at once by {by}. {reason}").into(), RunEvent::Killed(Killed { by, reason, totals }))
        }
        End::Cancel(ByWhom { by, reason }) => {
            (format!("Called off by {by}. {reason}").into(), RunEvent::Cancelled(Cancelled { by, reason, totals }))
        }
    };
    let said = state.request().reply_to.clone().map(|to| {
        let footer = Footer {
            agent: state.request().agent.clone(),
            run_id: state.run_id(),
            totals,
            rehearsal: state.rehearsal(),
        };
        RunEvent::MessageSent(MessageSent { to, text, footer })
    });
    said.into_iter().chain([event]).collect()
}

//! The tools that every agent may be given: read, list, search, edit, write, shell and git, and the offer of handoff.
//!
//! A tool takes arguments as JSON and answers with text for a model. What a model can mend (wrong arguments, a file that is not
//! there, a command that fails) is an answer marked as an error that says how; so is a sandbox that can not be had, because the
//! run may go on without it. Nothing here decides who may call what: that is the gate's part, before.
//!
//! Reading tools and those that only change files run in this process, on files opened beneath the worktree. Whatever runs a
//! program runs it in the sandbox. Calls of one worktree may be made at once: those that change it wait for each other and
//! for those that read it.
//!
//! Which calls may be made again when their runner was lost: all but `edit`, whose text is gone the second time, and `shell`,
//! which may do anything. A `write` ends in the same content, and git knows a commit that it has.

mod edit;
mod git;
mod list;
mod output;
mod read;
mod schema;
mod search;
mod shell;
mod text;
mod write;

use std::{
    future::Future,
    sync::{Arc, LazyLock},
};

use jiff::Timestamp;
use kit::{
    clock,
    logs::{LogLine, LogSink, Stream},
};
use schemas::{AgentName, RunId};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::{
    sandbox::{self, LineSink, Sandbox},
    worktree::Worktree,
};

pub use output::{Committed, ToolOutput, Truncated};
pub use schema::Handoff;

/// Who signs tool output among the log lines.
const SERVICE: &str = "agent-runner";

/// A tool, as a model is told of it.
#[derive(Debug, Clone)]
pub struct ToolSpec {
    /// Its name.
    pub name: &'static str,
    /// What it does and when to use it, for a model.
    pub description: &'static str,
    /// JSON Schema of its arguments: an object that takes nothing that it does not name.
    pub input_schema: Value,
    /// Whether a call that was in flight when its runner was lost may be made again.
    pub idempotent: bool,
    /// Whether a call may change the worktree.
    pub mutates_worktree: bool,
    /// Who acts on a call.
    pub handled_by: HandledBy,
}

/// Who acts on a call of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HandledBy {
    /// [`call`].
    Tools,
    /// The runner, by a decision in the journal.
    Runner,
}

/// All tools, in the order in which a model is told of them.
pub fn builtin() -> &'static [ToolSpec] {
    static ALL: LazyLock<Vec<ToolSpec>> = LazyLock::new(|| {
        vec![
            read::spec(),
            list::spec(),
            search::spec(),
            edit::spec(),
            write::spec(),
            shell::spec(),
            git::spec(),
            schema::handoff(),
        ]
    });
    &ALL
}

/// For whom and where a call is made.
#[derive(Clone)]
pub struct ToolContext {
    /// The run.
    pub run_id: RunId,
    /// The agent: who commits.
    pub agent: AgentName,
    /// Where it works.
    pub worktree: Arc<Worktree>,
    /// Where its commands run.
    pub sandbox: Arc<dyn Sandbox>,
    /// Whether nothing of the worktree may change: commands see it read-only, and what would change it is refused.
    pub read_only: bool,
    /// The time of the call: that of a commit.
    pub at: Timestamp,
    /// Ends the call.
    pub cancel: CancellationToken,
    /// Where output is kept, line by line.
    pub logs: Option<LogSink>,
}

/// Makes a call.
///
/// Idempotency: as its [`ToolSpec`] says. On failure: the answer is an error, and says what may have happened.
pub async fn call(context: &ToolContext, name: &str, arguments: Value) -> ToolOutput {
    let Some(spec) = builtin().iter().find(|spec| spec.name == name) else {
        let names: Vec<&str> = builtin().iter().map(|spec| spec.name).collect();
        return ToolOutput::error(format!("There is no tool {name:?}. There are: {}.", names.join(", ")));
    };
    let output = match name {
        "read" => with(spec, arguments, |arguments| read::call(context, arguments)).await,
        "list" => with(spec, arguments, |arguments| list::call(context, arguments)).await,
        "search" => with(spec, arguments, |arguments| search::call(context, arguments)).await,
        "edit" => with(spec, arguments, |arguments| edit::call(context, arguments)).await,
        "write" => with(spec, arguments, |arguments| write::call(context, arguments)).await,
        "shell" => with(spec, arguments, |arguments| shell::call(context, arguments)).await,
        "git" => with(spec, arguments, |arguments| git::call(context, arguments)).await,
        _ => ToolOutput::error(format!("{name} is not called here: the runner acts on it.")),
    };
    context.log_summary(name, &output);
    output
}

/// Parses the arguments, or says how they must be.
async fn with<A: DeserializeOwned, F: Future<Output = ToolOutput>>(
    spec: &ToolSpec,
    arguments: Value,
    call: impl FnOnce(A) -> F,
) -> ToolOutput {
    // Some models send nothing where everything has a default.
    let arguments = if arguments.is_null() { Value::Object(serde_json::Map::new()) } else { arguments };
    match serde_json::from_value(arguments) {
        Ok(arguments) => call(arguments).await,
        Err(error) => ToolOutput::error(format!(
            "The arguments of {} are not right: {error}. They must be one JSON object that matches this schema: {}",
            spec.name, spec.input_schema
        )),
    }
}

impl ToolContext {
    /// Takes the output of a command into the log.
    fn line_sink(&self, tool: &'static str) -> Option<LineSink> {
        let (logs, run_id) = (self.logs.clone()?, self.run_id);
        Some(Arc::new(move |stream, line: &[u8]| {
            let stream = match stream {
                sandbox::Stream::Stdout => Stream::Stdout,
                sandbox::Stream::Stderr => Stream::Stderr,
            };
            let text = String::from_utf8_lossy(line);
            logs.try_append(LogLine::tool_output(clock::now(), SERVICE, run_id, tool, stream, &text));
        }))
    }

    /// The whole answer is in the journal; in the log one line shows when it came.
    fn log_summary(&self, tool: &str, output: &ToolOutput) {
        let Some(logs) = &self.logs else { return };
        let (stream, how) = if output.is_error { (Stream::Stderr, "error") } else { (Stream::Stdout, "ok") };
        let first = output.content.lines().next().unwrap_or_default();
        let text = format!("{how}, {} bytes: {first}", output.content.len());
        logs.try_append(LogLine::tool_output(clock::now(), SERVICE, self.run_id, tool, stream, &text));
    }

    /// Says why not, when nothing may be changed.
    fn refuse_changes(&self) -> Option<ToolOutput> {
        let refusal =
            "You may only read: this would change the worktree. Hand the change to an agent that may make it.";
        self.read_only.then(|| ToolOutput::error(refusal))
    }
}

/// Runs work that waits for the disk where that is allowed.
async fn blocking(work: impl FnOnce() -> ToolOutput + Send + 'static) -> ToolOutput {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| ToolOutput::failure("The call was interrupted", &error))
}

//! `shell`: a command, in the sandbox.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema};
use crate::{
    sandbox::{Access, Exit, Keep, Limits, SandboxCommand, SandboxOutput},
    worktree::WORKTREE,
};

/// How long a command may take unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a command may take at most.
const MAX_TIMEOUT: Duration = Duration::from_mins(10);

/// Longest command: the kernel takes 128 KiB as one argument. What is longer belongs into a file.
const MAX_COMMAND_BYTES: usize = 64 * 1024;

/// What is kept of the output: what was run is said first, what went wrong last.
const KEEP: Keep = Keep::HeadAndTail { head: 10 * 1024, tail: 22 * 1024 };

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// The command, for bash, in the root of the worktree.
    command: String,
    /// Seconds after which it is ended; 120 when absent, at most 600.
    #[serde(default)]
    #[schemars(range(min = 1, max = 600))]
    timeout_s: Option<u64>,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "shell",
        description: "Runs a bash command in the worktree (/work), in a sandbox: no network, only the worktree, /tmp and the home \
                      folder are writable, and the latter two are empty in each call. Every process ends with the call. git can be read \
                      here (log, blame, show, diff); use the git tool to commit.",
        input_schema: schema::of::<Arguments>(),
        idempotent: false,
        mutates_worktree: true,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    let Arguments { command, timeout_s } = arguments;
    if command.trim().is_empty() || command.contains('\0') || command.len() > MAX_COMMAND_BYTES {
        let limit = MAX_COMMAND_BYTES / 1024;
        return ToolOutput::error(format!(
            "The command must be text of at most {limit} KiB; write longer scripts to a file."
        ));
    }
    let wall = timeout_s.map_or(DEFAULT_TIMEOUT, Duration::from_secs).clamp(Duration::from_secs(1), MAX_TIMEOUT);
    let mut mounts = context.worktree.mounts();
    if context.read_only {
        for mount in &mut mounts {
            mount.access = Access::ReadOnly;
        }
    }
    let command = SandboxCommand {
        mounts,
        cwd: WORKTREE.into(),
        merge_stderr: true,
        keep: KEEP,
        limits: Limits { wall, ..Limits::default() },
        cancel: context.cancel.clone(),
        on_output: context.line_sink("shell"),
        keeps: Some(context.worktree.keep()),
        ..SandboxCommand::new(context.run_id, ["bash", "-c", &command])
    };
    let _alone = context.worktree.exclusive().await;
    match context.sandbox.run(command).await {
        Ok(output) => answer(&output, wall),
        Err(error) => ToolOutput::failure("The command was not run, or its result is lost", &error),
    }
}

fn answer(output: &SandboxOutput, wall: Duration) -> ToolOutput {
    let mut content = output.stdout.text();
    if !content.is_empty() && !content.ends_with('\n') {
        content.push('\n');
    }
    let ending = match output.exit {
        Exit::Code(0) if content.is_empty() => "[no output]".to_owned(),
        Exit::Code(0) => String::new(),
        Exit::Code(code) => format!("[exit code {code}]"),
        Exit::TimedOut => format!("[ended after {} s, with all its processes]", wall.as_secs()),
        Exit::Cancelled => "[cancelled]".to_owned(),
    };
    content.push_str(&ending);
    let kept = output.stdout.total - output.stdout.cut();
    let answer = if output.exit.success() { ToolOutput::ok(content) } else { ToolOutput::error(content) };
    answer.truncated(kept, output.stdout.total)
}

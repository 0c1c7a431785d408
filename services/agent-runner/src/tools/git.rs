//! `git`: the state of the run's branch, and commits on it.

use std::fmt::Write as _;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema, text};
use crate::worktree::{
    Author, Changes, Commit, CommitError, From, GitError, HistoryError, SnapshotError, Worktree, WorktreePath,
};

/// Commits that a log shows unless told otherwise.
const DEFAULT_LOG: usize = 20;

/// Most commits that a log shows.
const MAX_LOG: usize = 200;

/// How much of a diff is answered.
const MAX_DIFF_BYTES: usize = 32 * 1024;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// What to do: `status` (branch and changed files), `diff` (what changed, new files included), `log`, `show` (one commit), `commit`
    /// (everything that changed and is not ignored).
    operation: Operation,
    /// The message, for `commit`: a subject line, then an empty line and the reason.
    #[serde(default)]
    message: Option<String>,
    /// Only this file or folder, for `diff`, `log` and `show`.
    #[serde(default)]
    path: Option<String>,
    /// The commit, for `show`: a hash, a branch, or HEAD~1 and the like; HEAD when absent.
    #[serde(default)]
    revision: Option<String>,
    /// What `diff` compares with: `head` (the last commit, when absent) or `base` (where the run's branch started).
    #[serde(default)]
    from: Option<Since>,
    /// How many commits `log` shows; 20 when absent, at most 200.
    #[serde(default)]
    #[schemars(range(min = 1, max = 200))]
    max: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Operation {
    Status,
    Diff,
    Log,
    Show,
    Commit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Since {
    Head,
    Base,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "git",
        description: "Works with the run's own branch: status, diff, log, show, commit. A commit takes everything that changed and \
                      is not ignored, and is published on the branch. Other branches are not changed.",
        input_schema: schema::of::<Arguments>(),
        idempotent: true,
        mutates_worktree: true,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    let worktree = &context.worktree;
    let path = match arguments.fits().and_then(|()| arguments.path()) {
        Ok(path) => path,
        Err(refusal) => return refusal,
    };
    match arguments.operation {
        Operation::Status => status(worktree).await.unwrap_or_else(of_history),
        Operation::Diff => {
            let from = if arguments.from == Some(Since::Base) { From::Base } else { From::Head };
            let changes = worktree.diff(from, path.as_ref()).await;
            changes.map_or_else(of_history, |changes| diff(&changes))
        }
        Operation::Log => {
            let max = arguments.max.unwrap_or(DEFAULT_LOG).clamp(1, MAX_LOG);
            worktree.log(max, path.as_ref()).await.map_or_else(|error| of_git(&error), ToolOutput::ok)
        }
        Operation::Show => {
            let revision = arguments.revision.as_deref().unwrap_or("HEAD");
            worktree.show(revision, path.as_ref()).await.map_or_else(of_history, ToolOutput::ok)
        }
        Operation::Commit => match context.refuse_changes() {
            Some(refusal) => refusal,
            None => commit(context, arguments.message.as_deref().unwrap_or_default()).await,
        },
    }
}

impl Arguments {
    /// Refuses an argument that its operation does not look at: it shows that something else was meant.
    fn fits(&self) -> Result<(), ToolOutput> {
        use Operation::{Commit, Diff, Log, Show};
        let given: [(&str, bool, &[Operation]); 5] = [
            ("message", self.message.is_some(), &[Commit]),
            ("path", self.path.is_some(), &[Diff, Log, Show]),
            ("revision", self.revision.is_some(), &[Show]),
            ("from", self.from.is_some(), &[Diff]),
            ("max", self.max.is_some(), &[Log]),
        ];
        match given.into_iter().find(|(_, given, operations)| *given && !operations.contains(&self.operation)) {
            Some((name, ..)) => Err(ToolOutput::error(format!(
                "`{name}` means nothing to {:?}: leave it out. (commit: message; diff: path, from; log: path, max; show: revision, path)",
                self.operation
            ))),
            None => Ok(()),
        }
    }

    fn path(&self) -> Result<Option<WorktreePath>, ToolOutput> {
        self.path.as_deref().map(text::path).transpose().map_err(|error| ToolOutput::of_file(&error))
    }
}

async fn status(worktree: &Worktree) -> Result<ToolOutput, HistoryError> {
    let changes = worktree.diff(From::Head, None).await?;
    let (head, ahead) = (worktree.head().await?, worktree.ahead().await?);
    let mut content = format!(
        "Branch {} at {}, {} ahead of {} ({}).\n",
        worktree.branch(),
        head.short(),
        text::count(usize::try_from(ahead).unwrap_or(usize::MAX), "commit"),
        worktree.repository().base(),
        worktree.base().short(),
    );
    content.push_str(&if changes.is_empty() { "Nothing to commit.\n".into() } else { summary(&changes) });
    Ok(ToolOutput::ok(content))
}

fn diff(changes: &Changes) -> ToolOutput {
    if changes.is_empty() {
        return ToolOutput::ok("[no difference]");
    }
    let mut content = summary(changes);
    let all: usize = changes.files.iter().map(|file| file.diff.len()).sum();
    let mut shown = 0;
    for file in &changes.files {
        if shown + file.diff.len() > MAX_DIFF_BYTES {
            writeln!(content, "\n[diff of {} and what follows left out; name a path]", file.path).ok();
            break;
        }
        shown += file.diff.len();
        content.push('\n');
        content.push_str(&file.diff);
    }
    ToolOutput::ok(content).truncated(shown as u64, all as u64)
}

fn summary(changes: &Changes) -> String {
    use schemas::event::FileChange::{Added, Deleted, Modified};
    let mut text = String::new();
    for file in &changes.files {
        let what = match file.change {
            Added => "added",
            Modified => "changed",
            Deleted => "deleted",
        };
        let size = if file.binary { "binary".to_owned() } else { format!("+{} -{}", file.added, file.removed) };
        writeln!(text, "{what:<8}{}  {size}", file.path).ok();
    }
    if changes.more > 0 {
        writeln!(text, "[{} more files]", changes.more).ok();
    }
    text
}

async fn commit(context: &ToolContext, message: &str) -> ToolOutput {
    let author = Author { agent: context.agent.clone(), at: context.at };
    let subject = message.trim().lines().next().unwrap_or_default().trim().to_owned();
    let branch = context.worktree.branch();
    let (commit, how) = match context.worktree.commit(message, &author).await {
        Ok(Commit::Made(commit)) => (commit, "Committed"),
        Ok(Commit::Again(commit)) => (commit, "Already committed"),
        Ok(Commit::Nothing { head }) => {
            return ToolOutput::ok(format!("There is nothing to commit: {branch} is at {}.", head.short()));
        }
        Err(error) => return of_commit(error),
    };
    let said = ToolOutput::ok(format!("{how} {} on {branch}: {subject}", commit.short()));
    ToolOutput { commit: Some(super::Committed { commit, subject }), ..said }
}

fn of_commit(error: CommitError) -> ToolOutput {
    match error {
        CommitError::Worktree(error) => of_worktree(&error),
        CommitError::Git(error) => of_git(&error),
        error => ToolOutput::error(format!("It is not committed: {error}.")),
    }
}

fn of_history(error: HistoryError) -> ToolOutput {
    match error {
        HistoryError::Worktree(error) => of_worktree(&error),
        HistoryError::Git(error) => of_git(&error),
        error @ HistoryError::NoRevision { .. } => ToolOutput::error(format!("{error}.")),
    }
}

fn of_worktree(error: &SnapshotError) -> ToolOutput {
    if error.is_for_the_agent() {
        return ToolOutput::error(format!("git can not take the worktree: {error}."));
    }
    ToolOutput::failure("git can not take the worktree", error)
}

fn of_git(error: &GitError) -> ToolOutput {
    ToolOutput::failure("git failed", error)
}

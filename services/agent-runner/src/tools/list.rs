//! `list`: what files there are.

use std::{fmt::Write as _, path::Path};

use globset::GlobMatcher;
use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema, text};
use crate::worktree::{Files, Found, Kind, Walk, WorktreePath};

/// Entries that are answered.
const MAX_LISTED: usize = 1000;

/// Entries that are looked at.
const MAX_SEEN: usize = 200_000;

/// How deep is looked unless told otherwise; with a pattern there is no such bound.
const DEFAULT_DEPTH: usize = 3;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Folder to list, from the root of the worktree; the root when absent.
    #[serde(default)]
    path: Option<String>,
    /// Only what matches, like `*.rs` (in any folder) or `src/**/*.rs`.
    #[serde(default)]
    glob: Option<String>,
    /// How many folders deep; 3 when absent, unbounded with glob.
    #[serde(default)]
    #[schemars(range(min = 1))]
    depth: Option<usize>,
    /// Whether to show what .gitignore names as well.
    #[serde(default)]
    ignored: bool,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "list",
        description: "Lists files and folders of the worktree with their sizes. What .gitignore names is left out.",
        input_schema: schema::of::<Arguments>(),
        idempotent: true,
        mutates_worktree: false,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    let start = match text::path(arguments.path.as_deref().unwrap_or_default()) {
        Ok(start) => start,
        Err(error) => return ToolOutput::of_file(&error),
    };
    let glob = match arguments.glob.as_deref().map(glob).transpose() {
        Ok(glob) => glob,
        Err(error) => return error,
    };
    let depth = arguments.depth.unwrap_or(if glob.is_some() { usize::MAX } else { DEFAULT_DEPTH });
    let walk = Walk { start, depth: depth.max(1), ignored: arguments.ignored, max: MAX_SEEN };
    let _reading = context.worktree.shared().await;
    let files = context.worktree.files().clone();
    super::blocking(move || list(&files, &walk, glob.as_ref())).await
}

fn list(files: &Files, walk: &Walk, glob: Option<&GlobMatcher>) -> ToolOutput {
    let walked = match files.walk(walk) {
        Ok(walked) => walked,
        Err(error) => return ToolOutput::of_file(&error),
    };
    let matches = |found: &&Found| glob.is_none_or(|glob| glob.is_match(&found.path) && found.kind != Kind::Folder);
    let found: Vec<&Found> = walked.found.iter().filter(matches).collect();
    let mut content: String = found.iter().take(MAX_LISTED).map(|found| entry(found)).collect();
    if found.is_empty() {
        content.push_str("[nothing]");
    }
    if found.len() > MAX_LISTED {
        write!(content, "[{} more; name a folder or a glob]", found.len() - MAX_LISTED).ok();
    }
    if !walked.complete {
        write!(content, "[only the first {MAX_SEEN} entries were looked at; name a folder]").ok();
    }
    ToolOutput::ok(content).truncated(found.len().min(MAX_LISTED) as u64, found.len() as u64)
}

fn entry(found: &Found) -> String {
    let path = found.path.display();
    match found.kind {
        Kind::Folder => format!("{path}/\n"),
        Kind::File { bytes } => format!("{path}  {bytes}\n"),
        Kind::Link => format!("{path}  [link]\n"),
        Kind::Locked => format!("{path}  [not readable]\n"),
        Kind::Odd => format!("{path}  [special]\n"),
    }
}

/// A pattern for paths from the root of the worktree; without a slash it is one for names.
pub(super) fn glob(pattern: &str) -> Result<GlobMatcher, ToolOutput> {
    let pattern = pattern.strip_prefix("./").unwrap_or(pattern);
    let anywhere = if pattern.contains('/') { pattern.to_owned() } else { format!("**/{pattern}") };
    let built = globset::GlobBuilder::new(anywhere.trim_start_matches('/')).literal_separator(true).build();
    built
        .map(|glob| glob.compile_matcher())
        .map_err(|error| ToolOutput::error(format!("The glob is not right: {error}.")))
}

/// Whether a walk from here would be one of a folder.
pub(super) fn is_root(path: &WorktreePath) -> bool {
    path.as_path() == Path::new("")
}

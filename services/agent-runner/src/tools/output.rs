//! What a tool answers.

use std::fmt::Write as _;

use crate::worktree::{CommitId, FileError};

/// Longest answer, in bytes. A model reads some 10,000 tokens of it; with several calls in a step all of them still fit.
pub(super) const MAX_CONTENT_BYTES: usize = 40 * 1024;

/// What a tool answers a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutput {
    /// The text.
    pub content: String,
    /// Whether it did not do what was asked.
    pub is_error: bool,
    /// What was left out of the text, when something was. The text says so too.
    pub truncated: Option<Truncated>,
    /// The commit that the call made, or found made already.
    pub commit: Option<Committed>,
}

/// How much of an answer is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Truncated {
    /// Bytes, or entries of a list, that are in the text.
    pub kept: u64,
    /// How many there were; at least, when counting them all was too much.
    pub of: u64,
}

/// A commit on the run's branch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Its name.
    pub commit: CommitId,
    /// The first line of its message.
    pub subject: String,
}

impl ToolOutput {
    /// An answer that did what was asked.
    pub fn ok(content: impl Into<String>) -> Self {
        Self { content: bounded(content.into()), is_error: false, truncated: None, commit: None }
    }

    /// An answer that says what went wrong, and how to mend it.
    pub fn error(content: impl Into<String>) -> Self {
        Self { is_error: true, ..Self::ok(content) }
    }

    /// An error with all of its causes. It is none that a model can mend, so people are told as well.
    pub(super) fn failure(what: &str, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut text = what.to_owned();
        let mut cause = Some(error);
        while let Some(error) = cause {
            // Writing to a string does not fail.
            write!(text, ": {error}").ok();
            cause = error.source();
        }
        tracing::warn!(error = text, "a tool could not do its work");
        Self::error(text)
    }

    /// The answer to a path that can not be used.
    pub(super) fn of_file(error: &FileError) -> Self {
        match error {
            FileError::Io { .. } => Self::failure("The file can not be used", error),
            FileError::NotFound { .. } => Self::error(format!("{error}. Use list or search to find what there is.")),
            FileError::IsFolder { .. } => Self::error(format!("{error}. Use list to see what is in it.")),
            _ => Self::error(format!("{error}.")),
        }
    }

    pub(super) fn truncated(mut self, kept: u64, of: u64) -> Self {
        self.truncated = (kept < of).then_some(Truncated { kept, of });
        self
    }
}

/// The last line of defence: each tool bounds its answer in its own terms before.
fn bounded(mut content: String) -> String {
    if content.len() > MAX_CONTENT_BYTES {
        let cut = content.len() - MAX_CONTENT_BYTES;
        content.truncate(content.floor_char_boundary(MAX_CONTENT_BYTES));
        write!(content, "\n[... {cut} more bytes cut ...]").ok();
    }
    content
}

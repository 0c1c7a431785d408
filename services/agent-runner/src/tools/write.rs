//! `write`: a file with new content.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema, text};

/// Largest content. A model writes no more than this in one call; what is larger is generated, by a command.
const MAX_CONTENT_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Path from the root of the worktree; folders are made as needed.
    path: String,
    /// The whole content of the file.
    content: String,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "write",
        description: "Writes a file: makes a new one or replaces all of an old one. To change a part of a file use edit.",
        input_schema: schema::of::<Arguments>(),
        idempotent: true,
        mutates_worktree: true,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    if let Some(refusal) = context.refuse_changes() {
        return refusal;
    }
    let Arguments { path, content } = arguments;
    if content.len() > MAX_CONTENT_BYTES {
        return ToolOutput::error(format!("The content has {} bytes; {MAX_CONTENT_BYTES} are allowed.", content.len()));
    }
    let path = match text::path(&path) {
        Ok(path) => path,
        Err(error) => return ToolOutput::of_file(&error),
    };
    let _writing = context.worktree.exclusive().await;
    let files = context.worktree.files().clone();
    super::blocking(move || {
        let size = format!("{}, {} bytes", text::count(content.lines().count(), "line"), content.len());
        let shown = path.as_path().display();
        match files.replace(&path, content.as_bytes()) {
            Ok(true) => ToolOutput::ok(format!("Replaced {shown} ({size}).")),
            Ok(false) => ToolOutput::ok(format!("Wrote new file {shown} ({size}).")),
            Err(error) => ToolOutput::of_file(&error),
        }
    })
    .await
}

//! `read`: a file, or some of its lines.

use std::{
    fmt::Write as _,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
};

use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema, text};

/// Lines that are read unless told otherwise.
const DEFAULT_LINES: usize = 1000;

/// How much of a file's text is answered. A model that needs more asks for the next lines.
const MAX_TEXT_BYTES: usize = 32 * 1024;

/// Longest line that is shown whole; minified code has longer ones, and nobody reads them.
const MAX_LINE_BYTES: usize = 2000;

/// How far into a file is looked for lines.
const MAX_SCAN_BYTES: u64 = 64 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Path from the root of the worktree.
    path: String,
    /// First line to read; the first of the file is 1.
    #[serde(default)]
    #[schemars(range(min = 1))]
    offset: Option<usize>,
    /// How many lines to read at most.
    #[serde(default)]
    #[schemars(range(min = 1))]
    limit: Option<usize>,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "read",
        description: "Reads a text file of the worktree, with line numbers. Long files come in parts: ask for the next with \
                      offset.",
        input_schema: schema::of::<Arguments>(),
        idempotent: true,
        mutates_worktree: false,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    let path = match text::path(&arguments.path) {
        Ok(path) => path,
        Err(error) => return ToolOutput::of_file(&error),
    };
    let _reading = context.worktree.shared().await;
    let files = context.worktree.files().clone();
    super::blocking(move || match files.read(&path) {
        Ok(file) => {
            let (first, limit) = (arguments.offset.unwrap_or(1), arguments.limit.unwrap_or(DEFAULT_LINES));
            let part = Part::of(file, first.max(1), limit.max(1));
            part.map_or_else(|error| ToolOutput::failure("The file can not be read", &error), Part::answer)
        }
        Err(error) => ToolOutput::of_file(&error),
    })
    .await
}

/// Some lines of a file.
#[derive(Debug, Default)]
struct Part {
    first: usize,
    shown: usize,
    text: String,
    /// How many lines the file has, as far as it was looked at.
    lines: usize,
    whole: bool,
    bytes: u64,
    is_binary: bool,
}

impl Part {
    fn of(file: File, first: usize, limit: usize) -> io::Result<Self> {
        let bytes = file.metadata()?.len();
        let mut part = Self { first, bytes, whole: true, ..Self::default() };
        let mut reader = BufReader::with_capacity(64 * 1024, file.take(MAX_SCAN_BYTES));
        part.is_binary = text::is_binary(reader.fill_buf()?);
        if part.is_binary {
            return Ok(part);
        }
        let mut line = Vec::new();
        while next_line(&mut reader, &mut line)? {
            part.lines += 1;
            if part.lines < first || part.shown == limit || !part.whole {
                continue;
            }
            let numbered = text::numbered(part.lines, &text::line(&line, MAX_LINE_BYTES));
            if part.text.len() + numbered.len() > MAX_TEXT_BYTES {
                part.whole = false;
                continue;
            }
            part.text.push_str(&numbered);
            part.shown += 1;
        }
        Ok(part)
    }

    fn answer(self) -> ToolOutput {
        if self.is_binary {
            return ToolOutput::error(format!(
                "The file is not text ({} bytes). Use shell to look into it.",
                self.bytes
            ));
        }
        if self.lines == 0 {
            return ToolOutput::ok("[the file is empty]");
        }
        if self.shown == 0 {
            let lines = text::count(self.lines, "line");
            return ToolOutput::error(format!("The file has only {lines}: offset {} is behind its end.", self.first));
        }
        let last = self.first + self.shown - 1;
        let mut content = self.text;
        if self.shown < self.lines {
            let (first, all) = (self.first, self.lines);
            let rest = if last < all {
                format!(" of {all}; go on with offset {}", last + 1)
            } else {
                ", the end of the file".into()
            };
            write!(content, "[lines {first} to {last}{rest}]").ok();
        }
        ToolOutput::ok(content).truncated(self.shown as u64, self.lines as u64)
    }
}

/// Reads a line, of which no more is kept than can be shown.
fn next_line(reader: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    // One byte more than is shown, so that it is seen to be cut.
    let kept = MAX_LINE_BYTES as u64 + 2;
    if reader.by_ref().take(kept).read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if !line.ends_with(b"\n") && line.len() as u64 == kept {
        let rest = reader.skip_until(b'\n')?;
        // Only its length counts from here.
        line.resize(line.len() + rest, b'.');
    }
    Ok(true)
}

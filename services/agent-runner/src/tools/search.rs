//! `search`: lines of files that match a regular expression.

use std::{collections::BTreeSet, fmt::Write as _, fs::File, path::Path, time::Duration};

use globset::GlobMatcher;
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, list, schema, text};
use crate::worktree::{FileError, Files, Kind, Walk, WorktreePath};

/// Lines that match, and are answered.
const MAX_MATCHES: usize = 200;

/// Most lines of context on each side.
const MAX_CONTEXT: usize = 10;

/// How much is answered.
const MAX_TEXT_BYTES: usize = 32 * 1024;

/// Longest line that is shown whole.
const MAX_LINE_BYTES: usize = 300;

/// Largest file that is searched; larger ones are generated.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Entries that are looked at.
const MAX_SEEN: usize = 200_000;

/// How long a search may take. Expressions can not blow up, but a worktree can be large.
const MAX_TIME: Duration = Duration::from_secs(20);

/// Memory of a compiled expression.
const MAX_EXPRESSION_BYTES: usize = 4 << 20;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Regular expression, matched against each line. No look-around and no back-references.
    pattern: String,
    /// File or folder to search, from the root of the worktree; all of it when absent.
    #[serde(default)]
    path: Option<String>,
    /// Only files that match, like `*.rs` (in any folder) or `src/**/*.rs`.
    #[serde(default)]
    glob: Option<String>,
    /// Whether upper and lower case are the same.
    #[serde(default)]
    ignore_case: bool,
    /// Lines to show before and after each match; 0 when absent, at most 10.
    #[serde(default)]
    #[schemars(range(max = 10))]
    context: usize,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "search",
        description: "Searches the files of the worktree for lines that match a regular expression. Answers path, line number and \
                      line. What .gitignore names is left out, as are binary files.",
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
    let glob = match arguments.glob.as_deref().map(list::glob).transpose() {
        Ok(glob) => glob,
        Err(error) => return error,
    };
    let expression = RegexBuilder::new(&arguments.pattern)
        .case_insensitive(arguments.ignore_case)
        .size_limit(MAX_EXPRESSION_BYTES)
        .build();
    let expression = match expression {
        Ok(expression) => expression,
        Err(error) => {
            return ToolOutput::error(format!("The pattern is no regular expression that can be used: {error}"));
        }
    };
    let mut search = Search {
        files: context.worktree.files().clone(),
        expression,
        glob,
        around: arguments.context.min(MAX_CONTEXT),
        until: Instant::now() + MAX_TIME,
        cancel: context.cancel.clone(),
        seen: Seen::default(),
    };
    let _reading = context.worktree.shared().await;
    super::blocking(move || match search.all(&start) {
        Ok(()) => search.seen.answer(),
        Err(error) => ToolOutput::of_file(&error),
    })
    .await
}

struct Search {
    files: std::sync::Arc<Files>,
    expression: Regex,
    glob: Option<GlobMatcher>,
    around: usize,
    until: Instant,
    cancel: CancellationToken,
    seen: Seen,
}

/// What a search came to.
#[derive(Default)]
struct Seen {
    text: String,
    matches: usize,
    files: usize,
    skipped: usize,
    /// Why it ended early.
    stopped: Option<&'static str>,
}

impl Search {
    fn all(&mut self, start: &WorktreePath) -> Result<(), FileError> {
        if !list::is_root(start) {
            match self.files.read(start) {
                Ok(file) => {
                    self.file(start.as_path(), file);
                    return Ok(());
                }
                Err(FileError::IsFolder { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let walk = Walk { start: start.clone(), depth: usize::MAX, ignored: false, max: MAX_SEEN };
        let walked = self.files.walk(&walk)?;
        if !walked.complete {
            self.seen.stopped = Some("there are too many files: name a folder");
        }
        for found in walked.found {
            let Kind::File { bytes } = found.kind else {
                continue;
            };
            if self.glob.as_ref().is_some_and(|glob| !glob.is_match(&found.path)) {
                continue;
            }
            if self.cancel.is_cancelled() || Instant::now() > self.until {
                self.seen.stopped = Some("it took too long: name a folder or a glob");
                break;
            }
            // A file that is gone or locked by now is one that is not searched.
            match self.files.read_found(&found.path) {
                Ok(file) if bytes <= MAX_FILE_BYTES => self.file(&found.path, file),
                _ => self.seen.skipped += 1,
            }
            if self.seen.is_full() {
                break;
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path, mut file: File) {
        let content = match text::content(&mut file, MAX_FILE_BYTES) {
            Ok(Some(content)) if !text::is_binary(&content) => content,
            _ => return self.seen.skipped += 1,
        };
        let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
        let mut hits = BTreeSet::new();
        for (n, line) in lines.iter().enumerate() {
            let line = line.strip_suffix(b"\n").unwrap_or(line);
            if self.expression.is_match(line.strip_suffix(b"\r").unwrap_or(line)) {
                self.seen.matches += 1;
                if self.seen.matches > MAX_MATCHES {
                    self.seen.stopped = Some("there are more matches: make the pattern or the path narrower");
                    break;
                }
                hits.insert(n);
            }
        }
        self.seen.files += usize::from(!hits.is_empty());
        self.seen.show(path, &lines, &hits, self.around);
    }
}

impl Seen {
    fn is_full(&self) -> bool {
        self.stopped.is_some()
    }

    fn show(&mut self, path: &Path, lines: &[&[u8]], hits: &BTreeSet<usize>, around: usize) {
        let shown: BTreeSet<usize> =
            hits.iter().flat_map(|hit| hit.saturating_sub(around)..(hit + around + 1).min(lines.len())).collect();
        let mut last = None;
        for n in shown {
            if around > 0 && last.is_some_and(|last| last + 1 < n) {
                self.text.push_str("--\n");
            }
            last = Some(n);
            let mark = if hits.contains(&n) { ':' } else { '-' };
            let line = text::line(lines[n], MAX_LINE_BYTES);
            let line = format!("{}{mark}{}{mark} {line}\n", path.display(), n + 1);
            if self.text.len() + line.len() > MAX_TEXT_BYTES {
                self.stopped = Some("there is more: make the pattern or the path narrower");
                return;
            }
            self.text.push_str(&line);
        }
    }

    fn answer(self) -> ToolOutput {
        let mut content = self.text;
        if self.matches == 0 {
            content.push_str("[no line matches]\n");
        } else {
            let (lines, files) =
                (text::count(self.matches.min(MAX_MATCHES), "matching line"), text::count(self.files, "file"));
            writeln!(content, "[{lines} in {files}]").ok();
        }
        if let Some(why) = self.stopped {
            writeln!(content, "[not all was searched or shown: {why}]").ok();
        }
        if self.skipped > 0 {
            writeln!(
                content,
                "[{} not searched: binary, too large or not readable]",
                text::count(self.skipped, "file")
            )
            .ok();
        }
        let shown = self.matches.min(MAX_MATCHES) as u64;
        let more = u64::from(self.stopped.is_some());
        ToolOutput::ok(content).truncated(shown, shown + more)
    }
}

//! What changed between two states: files, counts of lines, and a bounded diff of each.

use std::path::Path;

use schemas::event::FileChange;

use super::git::{Call, Git, GitError};
use crate::sandbox::Keep;

/// How many changed files are told; of the others only the number.
const MAX_FILES: usize = 500;

/// How much of one file's diff is told.
const MAX_DIFF_BYTES: usize = 16 * 1024;

/// How much of all diffs is told.
const MAX_DIFFS_BYTES: usize = 512 * 1024;

/// What changed between two states.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// The files, by path.
    pub files: Vec<ChangedFile>,
    /// How many more files changed.
    pub more: usize,
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.more == 0
    }
}

/// A file that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangedFile {
    /// Its path from the root of the worktree.
    pub path: String,
    /// What happened to it. A renamed file is one deleted and one added.
    pub change: FileChange,
    /// Lines added; 0 for a binary file.
    pub added: u64,
    /// Lines removed; 0 for a binary file.
    pub removed: u64,
    /// Whether it is not text.
    pub binary: bool,
    /// The unified diff; what was cut from it is said at its end.
    pub diff: String,
}

impl Git {
    /// What changed from one commit or tree to another, in all files or below `path`.
    pub(super) async fn changes(&self, from: &str, to: &str, path: Option<&Path>) -> Result<Changes, GitError> {
        let doing = "compare";
        let call = |form: &[&str]| {
            let mut args: Vec<_> = ["diff-tree", "-r", "--no-renames", "--no-ext-diff", "--no-textconv"].into();
            args.extend(form);
            args.extend([from, to, "--"]);
            let args = args.into_iter().map(Into::into);
            Call::git(doing, args.chain(path.map(|path| path.as_os_str().to_owned())))
        };
        let summary = self.run(call(&["-z", "--raw", "--numstat"]));
        let diffs = self.run(call(&["-p", "--no-color"]).keep(Keep::HeadAndTail { head: MAX_DIFFS_BYTES, tail: 0 }));
        let (summary, diffs) = tokio::try_join!(summary, diffs)?;
        let summary = parse_summary(&summary.into_bytes());
        let mut files = summary.ok_or_else(|| GitError::Answer { doing, answer: "an unknown summary".into() })?;
        let cut = diffs.cut() > 0;
        attach(&mut files, &String::from_utf8_lossy(&diffs.into_bytes()), cut);
        let more = files.len().saturating_sub(MAX_FILES);
        files.truncate(MAX_FILES);
        Ok(Changes { files: files.into_iter().map(|(file, _)| file).collect(), more })
    }
}

/// Reads `--raw --numstat -z`: all of the one, then all of the other. With each file comes how many patches it has.
fn parse_summary(output: &[u8]) -> Option<Vec<(ChangedFile, usize)>> {
    let mut files = Vec::new();
    let mut fields = output.split(|byte| *byte == 0).peekable();
    while let Some(raw) = fields.next_if(|field| field.starts_with(b":")) {
        let path = String::from_utf8_lossy(fields.next()?).into_owned();
        let (change, patches) = match raw.last()? {
            b'A' => (FileChange::Added, 1),
            b'D' => (FileChange::Deleted, 1),
            // A file that became a link, say: git shows one going and one coming.
            b'T' => (FileChange::Modified, 2),
            _ => (FileChange::Modified, 1),
        };
        files.push((ChangedFile { path, change, added: 0, removed: 0, binary: false, diff: String::new() }, patches));
    }
    for (file, _) in &mut files {
        let field = String::from_utf8_lossy(fields.next()?).into_owned();
        let mut counts = field.splitn(3, '\t');
        let (added, removed) = (counts.next()?, counts.next()?);
        file.binary = added == "-";
        (file.added, file.removed) = (added.parse().unwrap_or(0), removed.parse().unwrap_or(0));
    }
    Some(files)
}

/// Gives each file its part of the patch. A line of content never begins with `diff`: it has a sign before it.
fn attach(files: &mut [(ChangedFile, usize)], patch: &str, cut: bool) {
    let mut parts: Vec<&str> = Vec::new();
    let mut rest = patch;
    while let Some(next) = rest.get(1..).and_then(|inner| inner.find("\ndiff --git ")).map(|at| at + 2) {
        let (part, later) = rest.split_at(next);
        parts.push(part);
        rest = later;
    }
    parts.extend((!rest.is_empty()).then_some(rest));
    let last = parts.len().saturating_sub(1);
    let mut parts = parts.into_iter().enumerate();
    for (file, patches) in files {
        let mut whole = false;
        for (n, part) in parts.by_ref().take(*patches) {
            file.diff.push_str(part);
            whole = !(cut && n == last);
        }
        if file.diff.len() > MAX_DIFF_BYTES {
            file.diff.truncate(file.diff.floor_char_boundary(MAX_DIFF_BYTES));
            whole = false;
        }
        if !whole {
            let said = if file.diff.is_empty() { "[diff left out]\n" } else { "\n[... rest of the diff cut ...]\n" };
            file.diff.push_str(said);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &[u8] = b":000000 100644 0 1 A\0new\0:100644 000000 1 0 D\0old\0:100644 120000 1 2 T\0was file\0\
                         2\t0\tnew\x000\t3\told\0-\t-\twas file\0";

    #[test]
    fn each_file_gets_its_counts_and_its_patches() {
        let mut files = parse_summary(RAW).unwrap();
        let patch = "diff --git a/new b/new\n+diff --git in content\n+x\ndiff --git a/old b/old\n-y\n\
                     diff --git a/was b/was\n-file\ndiff --git a/was b/was\n+link\n";
        attach(&mut files, patch, false);
        let seen: Vec<_> = files.iter().map(|(file, _)| (file.change, file.added, file.removed, file.binary)).collect();
        let expected =
            [(FileChange::Added, 2, 0, false), (FileChange::Deleted, 0, 3, false), (FileChange::Modified, 0, 0, true)];
        assert_eq!(seen, expected);
        assert_eq!(files[0].0.diff, "diff --git a/new b/new\n+diff --git in content\n+x\n");
        assert!(files[2].0.diff.ends_with("+link\n") && files[2].0.diff.contains("-file\n"));
    }

    #[test]
    fn what_is_cut_is_said() {
        let mut files = parse_summary(RAW).unwrap();
        let long = format!("diff --git a/new b/new\n+{}\ndiff --git a/old b/old\n-y", "x".repeat(MAX_DIFF_BYTES));
        attach(&mut files, &long, true);
        assert!(files[0].0.diff.len() < MAX_DIFF_BYTES + 64 && files[0].0.diff.contains("rest of the diff cut"));
        assert!(files[1].0.diff.contains("rest of the diff cut"));
        assert_eq!(files[2].0.diff, "[diff left out]\n");
    }

    #[test]
    fn an_unknown_summary_is_none() {
        assert!(parse_summary(b":100644 100644 1 2 M\0a\0").is_none());
        assert_eq!(parse_summary(b""), Some(vec![]));
    }
}

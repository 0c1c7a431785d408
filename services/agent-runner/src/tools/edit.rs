//! `edit`: a text in a file replaced by another.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{HandledBy, ToolContext, ToolOutput, ToolSpec, schema, text};
use crate::worktree::{Files, WorktreePath};

/// Largest file that is edited.
const MAX_FILE_BYTES: u64 = 4 << 20;

/// Lines shown before and after an edit.
const SHOWN_AROUND: usize = 3;

/// Most lines of an edit that are shown.
const MAX_SHOWN: usize = 40;

/// Longest line that is shown whole.
const MAX_LINE_BYTES: usize = 300;

/// How many places are named when a text is found several times.
const MAX_PLACES: usize = 10;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Arguments {
    /// Path from the root of the worktree.
    path: String,
    /// The text to replace, exactly as it is in the file, without line numbers. It must be there once, unless replace_all is true.
    old: String,
    /// The text to put there.
    new: String,
    /// Whether every occurrence is replaced.
    #[serde(default)]
    replace_all: bool,
}

pub(super) fn spec() -> ToolSpec {
    ToolSpec {
        name: "edit",
        description: "Replaces a text in a file. The old text must match exactly, white space included, and be unique; add lines \
                      around it until it is. Read the file first.",
        input_schema: schema::of::<Arguments>(),
        // The second time the old text is not there any more, or is there once more.
        idempotent: false,
        mutates_worktree: true,
        handled_by: HandledBy::Tools,
    }
}

pub(super) async fn call(context: &ToolContext, arguments: Arguments) -> ToolOutput {
    if let Some(refusal) = context.refuse_changes() {
        return refusal;
    }
    let path = match text::path(&arguments.path) {
        Ok(path) => path,
        Err(error) => return ToolOutput::of_file(&error),
    };
    let _writing = context.worktree.exclusive().await;
    let files = context.worktree.files().clone();
    super::blocking(move || edit(&files, &path, &arguments).unwrap_or_else(|refusal| refusal)).await
}

fn edit(files: &Files, path: &WorktreePath, arguments: &Arguments) -> Result<ToolOutput, ToolOutput> {
    let mut file = files.read(path).map_err(|error| ToolOutput::of_file(&error))?;
    let content = text::content(&mut file, MAX_FILE_BYTES)
        .map_err(|error| ToolOutput::failure("The file can not be read", &error))?
        .ok_or_else(|| {
            ToolOutput::error(format!("The file has more than {MAX_FILE_BYTES} bytes: use shell to change it."))
        })?;
    let content = String::from_utf8(content)
        .map_err(|_| ToolOutput::error("The file is not UTF-8 text: use shell to change it."))?;
    let (edited, places) = replace(&content, arguments).map_err(ToolOutput::error)?;
    files.replace(path, edited.as_bytes()).map_err(|error| ToolOutput::of_file(&error))?;
    let shown = path.as_path().display();
    let around = show(&edited, places.first().copied().unwrap_or(1), arguments.new.lines().count());
    let at = if places.len() == 1 { String::new() } else { format!(" in {} places; the first", places.len()) };
    Ok(ToolOutput::ok(format!("Changed {shown}{at}:\n{around}")))
}

/// The edited content and the lines that were changed, or why not.
fn replace(content: &str, arguments: &Arguments) -> Result<(String, Vec<usize>), String> {
    let Arguments { old, new, replace_all, .. } = arguments;
    if old.is_empty() {
        return Err("The old text is empty: use write to make a file, or name a text to replace.".into());
    }
    if old == new {
        return Err("The old and the new text are the same: there is nothing to change.".into());
    }
    let line_at = |offset: usize| content[..offset].matches('\n').count() + 1;
    let places: Vec<usize> = content.match_indices(old.as_str()).map(|(offset, _)| line_at(offset)).collect();
    match places.as_slice() {
        [] => Err(format!("The old text is not in the file. {}", hint(content, old))),
        [_] => Ok((content.replacen(old.as_str(), new, 1), places)),
        _ if *replace_all => Ok((content.replace(old.as_str(), new), places)),
        _ => {
            let lines: Vec<String> = places.iter().take(MAX_PLACES).map(ToString::to_string).collect();
            Err(format!(
                "The old text is {} times in the file (lines {}{}). Add lines around it until it is unique, or set replace_all.",
                places.len(),
                lines.join(", "),
                if places.len() > MAX_PLACES { ", ..." } else { "" },
            ))
        }
    }
}

/// What was probably meant.
fn hint(content: &str, old: &str) -> String {
    if content.contains("\r\n") && !old.contains('\r') && content.replace("\r\n", "\n").contains(old) {
        return "The file has Windows line ends: write \\r\\n in both texts.".into();
    }
    let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let wanted = squeezed(old);
    if !wanted.is_empty() && squeezed(content).contains(&wanted) {
        return "It is there with other white space: read the file again and copy it exactly.".into();
    }
    let first = old.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    match content.lines().position(|line| line.trim() == first) {
        Some(at) if !first.is_empty() => format!("Its first line is there, in line {}, but not what follows.", at + 1),
        _ => "Read the file and copy the text exactly as it is, without line numbers.".into(),
    }
}

fn show(content: &str, first: usize, lines: usize) -> String {
    let from = first.saturating_sub(SHOWN_AROUND).max(1);
    let count = (first - from + lines + SHOWN_AROUND).min(MAX_SHOWN);
    let shown = content.lines().enumerate().skip(from - 1).take(count);
    shown.map(|(n, line)| text::numbered(n + 1, &text::line(line.as_bytes(), MAX_LINE_BYTES))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replaced(content: &str, old: &str, new: &str, replace_all: bool) -> Result<(String, Vec<usize>), String> {
        replace(content, &Arguments { path: "f".into(), old: old.into(), new: new.into(), replace_all })
    }

    #[test]
    fn one_match_is_replaced_and_several_only_when_told() {
        assert_eq!(replaced("a\nb\nc", "b", "x", false), Ok(("a\nx\nc".into(), vec![2])));
        assert_eq!(replaced("a\nb\na", "a", "x", true), Ok(("x\nb\nx".into(), vec![1, 3])));
        let refused = replaced("a\nb\na", "a", "x", false).unwrap_err();
        assert!(refused.contains("lines 1, 3"), "{refused}");
    }

    #[test]
    fn a_refusal_says_what_was_probably_meant() {
        for (content, old, hint) in [
            ("a", "", "empty"),
            ("fn a() {\n    b\n}", "fn a() {\n  b\n}", "white space"),
            ("a\r\nb\r\n", "a\nb", "Windows line ends"),
            ("one\ntwo\nthree", "two\nfour", "line 2"),
            ("one", "two", "without line numbers"),
        ] {
            let refused = replaced(content, old, "new", false).unwrap_err();
            assert!(refused.contains(hint), "{old:?}: {refused}");
        }
        assert!(replaced("a", "a", "a", false).is_err());
    }
}

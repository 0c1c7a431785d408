//! Text for models: paths in arguments, numbered lines, lines that are not too long.

use std::{
    fs::File,
    io::{self, Read as _},
};

use crate::worktree::{FileError, WorktreePath};

/// How much of a file is looked at to tell text from other content; as git does.
const PROBE_BYTES: usize = 8 * 1024;

/// The path in an argument.
pub(super) fn path(text: &str) -> Result<WorktreePath, FileError> {
    WorktreePath::try_new(text)
}

/// Whether content that begins like this is not text.
pub(super) fn is_binary(content: &[u8]) -> bool {
    content[..content.len().min(PROBE_BYTES)].contains(&0)
}

/// A file's content, up to `max` bytes; `None` when it has more.
pub(super) fn content(file: &mut File, max: u64) -> io::Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    file.take(max + 1).read_to_end(&mut content)?;
    Ok((content.len() as u64 <= max).then_some(content))
}

/// A line as text, without its end, cut to `max` bytes.
pub(super) fn line(line: &[u8], max: usize) -> String {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() <= max {
        return String::from_utf8_lossy(line).into_owned();
    }
    let text = String::from_utf8_lossy(&line[..max]);
    format!("{}[... {} bytes cut]", text.trim_end_matches('\u{fffd}'), line.len() - max)
}

/// A line with its number, as `read` and `edit` show it.
pub(super) fn numbered(number: usize, text: &str) -> String {
    format!("{number:>6}\t{text}\n")
}

/// "1 line", "2 lines".
pub(super) fn count(n: usize, what: &str) -> String {
    if n == 1 { format!("1 {what}") } else { format!("{n} {what}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_cut_between_characters_and_say_so() {
        assert_eq!(line("aäöü\r\n".as_bytes(), 100), "aäöü");
        assert_eq!(line("aäöü".as_bytes(), 4), "aä[... 3 bytes cut]");
    }

    #[test]
    fn text_in_other_encodings_is_binary_only_with_zeros() {
        assert!(is_binary(b"a\0b"));
        assert!(!is_binary("\u{e4}".as_bytes()) && !is_binary(b"\xe4") && !is_binary(b""));
    }
}

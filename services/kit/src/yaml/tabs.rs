//! Finds tabs outside of values and comments. YAML admits some of them, depending on where; a person sees none of them.

use std::ops::Range;

use super::document::Mark;

/// The first tab of each line up to `last_line` that is in no scalar (`scalars`, in characters) and in no comment.
pub(super) fn find(text: &str, scalars: &[Range<usize>], last_line: usize) -> Vec<Mark> {
    if !text.contains('\t') {
        return Vec::new();
    }
    let mut found = Vec::new();
    let mut index = 0;
    let mut next_scalar = 0;
    for (number, line) in text.split('\n').enumerate().take(last_line) {
        let mut blank_before = true;
        let mut done = false;
        for (column, character) in line.chars().enumerate() {
            while scalars.get(next_scalar).is_some_and(|scalar| scalar.end <= index) {
                next_scalar += 1;
            }
            let content = scalars.get(next_scalar).is_some_and(|scalar| scalar.contains(&index));
            if character == '#' && blank_before && !content {
                done = true;
            }
            if character == '\t' && !content && !done && !line.trim().is_empty() {
                found.push(Mark { line: number + 1, column: column + 1 });
                done = true;
            }
            blank_before = character.is_whitespace();
            index += 1;
        }
        index += 1;
    }
    found
}

/// The first and last line on which a tab may be why the parser gave up at `line` with `reason`.
///
/// It blames the beginning of what it was reading, so a tab that it names may stand some lines further down.
pub(super) fn suspects(text: &str, line: usize, reason: &str) -> (usize, usize) {
    if !reason.contains("tab") {
        return (line, line);
    }
    let indented = |text: &str| text.trim_start_matches(' ').starts_with('\t');
    let later = text.split('\n').enumerate().skip(line.saturating_sub(1)).find(|(_, text)| indented(text));
    (line, later.map_or(line, |(index, _)| index + 1))
}

//! Long answers: in several messages up to a bound, as a file beyond that.
//!
//! A cut is made where a reader would make it: between paragraphs, else between lines, else between words. A code
//! block that must be cut is closed in one part and opened again, with its language, in the next, so that each part is
//! Markdown of its own.

/// Longest part in bytes. A Matrix event holds 64 KiB; text, its HTML and base64 of the encryption need about four
/// times this, and a phone shows no more at once anyway.
pub const PART_BYTES: usize = 8 * 1024;

/// More parts than this flood a thread: the answer becomes a file.
pub const MAX_PARTS: usize = 4;

/// How much of an attached answer is shown above the file.
const TEASER_BYTES: usize = 1024;

/// Room kept in a part for closing a code block that is cut.
const FENCE_RESERVE: usize = 8;

/// How an answer is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One message or several, in order.
    Parts(Vec<String>),
    /// The beginning as a message, the whole as a file.
    Attached {
        /// The beginning.
        teaser: String,
        /// The whole.
        file: String,
    },
}

/// Lays `text` out in parts of at most [`PART_BYTES`].
pub fn layout(text: &str) -> Layout {
    let parts = split(text, PART_BYTES);
    if parts.len() <= MAX_PARTS {
        return Layout::Parts(parts);
    }
    let teaser = split(text, TEASER_BYTES).into_iter().next().unwrap_or_default();
    Layout::Attached { teaser: format!("{teaser}\n\n…"), file: text.to_owned() }
}

/// Cuts `text` into parts of at most `bound` bytes; at least one, which is empty when the text is.
fn split(text: &str, bound: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim_end().to_owned();
    while rest.len() > bound {
        let cut = cut_at(&rest, bound - FENCE_RESERVE);
        let (head, tail) = rest.split_at(cut);
        let tail = tail.trim_start_matches('\n');
        match open_fence(head) {
            // Opening the block again must leave less than there was, or this would not end.
            Some(fence) if fence.len() + 1 + tail.len() < rest.len() && fence.len() < bound / 4 => {
                parts.push(format!("{}\n{}", head.trim_end(), &fence[..3]));
                rest = format!("{fence}\n{tail}");
            }
            _ => {
                parts.push(head.trim_end().to_owned());
                rest = String::from(tail);
            }
        }
    }
    parts.push(rest);
    parts
}

/// Where to cut so that at most `bound` bytes come first. Never zero.
fn cut_at(text: &str, bound: usize) -> usize {
    let window = &text[..text.floor_char_boundary(bound)];
    // A cut in the first half would make parts needlessly small.
    let half = window.len() / 2;
    let paragraph = window.rfind("\n\n").filter(|at| *at > half && open_fence(&window[..*at]).is_none());
    let line = || window.rfind('\n').filter(|at| *at > half);
    let word = || window.rfind(' ').filter(|at| *at > half).map(|at| at + 1);
    paragraph.or_else(line).or_else(word).unwrap_or(window.len())
}

/// The line that opened the code block in which `text` ends, if it ends in one.
fn open_fence(text: &str) -> Option<String> {
    text.lines().fold(None, |open: Option<String>, line| {
        let start = line.trim_start();
        let mark = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (open, mark) {
            (None, Some(_)) => Some(start.trim_end().to_owned()),
            (Some(fence), Some(mark)) if fence.starts_with(mark) => None,
            (open, _) => open,
        }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_short_text_is_one_part() {
        assert_eq!(layout("hello"), Layout::Parts(vec!["hello".to_owned()]));
        assert_eq!(layout(""), Layout::Parts(vec![String::new()]));
    }

    #[test]
    fn paragraphs_stay_together() {
        let text = format!("{}\n\n{}", "a".repeat(60), "b".repeat(60));
        assert_eq!(split(&text, 100), ["a".repeat(60), "b".repeat(60)]);
    }

    #[test]
    fn a_cut_code_block_is_closed_and_opened_again() {
        let code = (0..20).map(|n| format!("let x{n} = {n};")).collect::<Vec<_>>().join("\n");
        let parts = split(&format!("```rust\n{code}\n```"), 120);
        assert!(parts.len() > 1);
        for part in &parts {
            assert!(part.starts_with("```rust\n"), "{part}");
            assert!(part.ends_with("```"), "{part}");
        }
    }

    #[test]
    fn a_very_long_text_is_attached() {
        let text = "word ".repeat(PART_BYTES);
        let Layout::Attached { teaser, file } = layout(&text) else { panic!("not attached") };
        assert!(teaser.len() <= TEASER_BYTES + 8 && teaser.ends_with('…'));
        assert_eq!(file, text);
    }

    fn letters(text: &str) -> String {
        text.chars().filter(|c| c.is_alphanumeric()).collect()
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_part_is_too_long(text in "(([a-zé ]{0,40}\n{0,3})|(```\n)){0,60}", bound in 64usize..300) {
            let parts = split(&text, bound);
            prop_assert!(parts.iter().all(|part| part.len() <= bound));
            prop_assert_eq!(letters(&parts.concat()), letters(&text));
        }

        #[test]
        fn every_part_but_the_last_closes_its_blocks(text in "(([a-z ]{0,40}\n{1,3})|(```\n)){0,60}", bound in 64usize..300) {
            let mut parts = split(&text, bound);
            parts.pop();
            prop_assert!(parts.iter().all(|part| open_fence(part).is_none()));
        }
    }
}

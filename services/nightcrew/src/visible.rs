//! Hostile text made visible: what agents, tools and strangers say must not act on the terminal that shows it.
//!
//! A character that a terminal obeys, or that a reader can not see, is shown by its code instead, such as `\u{1b}`. Nothing
//! is left out: what stands there is what was said.

use std::{borrow::Cow, fmt::Write as _};

/// `text` on one line, line breaks made visible as well.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    shown(text, |c| !acts(c))
}

/// `text` as it is, of several lines if it has them.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    shown(text, |c| matches!(c, '\n' | '\t') || !acts(c))
}

/// JSON in which such characters are escaped: they can stand in strings only.
pub(crate) fn json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && acts(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(escaped, "\\u{unit:04x}");
            }
        } else {
            escaped.push(c);
        }
    }
    escaped
}

fn shown(text: &str, harmless: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(&harmless) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if harmless(c) {
            shown.push(c);
        } else {
            shown.extend(c.escape_default());
        }
    }
    Cow::Owned(shown)
}

/// Whether a terminal obeys a character or a reader can not see it: control characters, overrides of direction, line
/// separators, zero-width characters, tags.
fn acts(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown_by_its_code() {
        assert_eq!(line("red \u{1b}[31m\u{7}"), "red \\u{1b}[31m\\u{7}");
        assert_eq!(line("a\nb\tc\r"), "a\\nb\\tc\\r");
        assert_eq!(text("a\nb\tc\rd"), "a\nb\tc\\rd");
        assert_eq!(line("C1 \u{9b}2J"), "C1 \\u{9b}2J");
        assert_eq!(line("txt.\u{202e}exe"), "txt.\\u{202e}exe");
    }

    #[test]
    fn ordinary_text_is_untouched() {
        assert!(matches!(line("Grüße, 世界 – ok…"), Cow::Borrowed(_)));
    }

    #[test]
    fn escaped_json_says_the_same() {
        let said = serde_json::json!({ "said": "\u{9b}2J \u{e0041} \u{202e} \u{1b} ü \n" });
        let escaped = json(&serde_json::to_string_pretty(&said).unwrap());
        assert!(!escaped.chars().any(|c| c != '\n' && acts(c)), "{escaped}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), said);
    }
}

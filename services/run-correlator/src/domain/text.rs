//! Text for people: short, on one line, and harmless to a terminal.
//!
//! What agents, tools and strangers say is quoted in timelines and lists. It must not be able to move a cursor, hide what
//! stands beside it or pretend to be another line, so nothing that a terminal would act on is let through.

use std::fmt::Write as _;

use schemas::{MicroUsd, RunId, Usage};
use serde::Serialize;
use serde_json::Value;

/// Characters of a quoted prompt, answer or output: about two lines of a terminal.
pub const QUOTE_CHARS: usize = 160;

/// Characters of one argument of a tool call.
const ARGUMENT_CHARS: usize = 60;

/// Characters of all arguments together.
const ARGUMENTS_CHARS: usize = 140;

/// `text` on one line of at most `most` characters. Sequences that colour a terminal are left out, other control characters
/// become visible, characters that are invisible or change the direction of writing are left out.
pub fn one_line(text: &str, most: usize) -> String {
    let mut line = String::new();
    let (mut length, mut space) = (0, false);
    let mut rest = text.chars();
    while let Some(next) = rest.next() {
        if next == '\u{1b}'
            && let Some(after) = after_csi(rest.as_str())
        {
            rest = after.chars();
            continue;
        }
        if next.is_whitespace() {
            space = true;
            continue;
        }
        let Some(shown) = shown(next) else { continue };
        let wanted = 1 + usize::from(space && length > 0);
        if length + wanted > most {
            line.push('…');
            return line;
        }
        if space && length > 0 {
            line.push(' ');
        }
        line.push(shown);
        length += wanted;
        space = false;
    }
    line
}

/// What follows a CSI sequence whose escape character was read, such as `[31m`.
fn after_csi(text: &str) -> Option<&str> {
    let text = text.strip_prefix('[')?;
    let text = text.trim_start_matches(|c| matches!(c, '0'..='?'));
    let text = text.trim_start_matches(|c| matches!(c, ' '..='/'));
    text.strip_prefix(|c| matches!(c, '@'..='~'))
}

/// How a character is shown; none for one that must not be.
fn shown(c: char) -> Option<char> {
    match c {
        // The picture of a control character.
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(c)),
        '\u{7f}' => Some('\u{2421}'),
        c if c.is_control() => Some(char::REPLACEMENT_CHARACTER),
        // Soft hyphen, marks and overrides of direction, zero-width characters, tags, and their like.
        '\u{ad}'
        | '\u{61c}'
        | '\u{180e}'
        | '\u{200b}'..='\u{200f}'
        | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}'
        | '\u{feff}'
        | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}' => None,
        c => Some(c),
    }
}

/// `text` as a quotation; nothing for an empty one.
pub fn quote(text: &str) -> String {
    let line = one_line(text, QUOTE_CHARS);
    if line.is_empty() {
        return line;
    }
    format!("“{line}”")
}

/// A name that somebody else gave: one line, short.
pub fn name(text: &str) -> String {
    one_line(text, ARGUMENT_CHARS)
}

/// The wire name of a value of a closed list, such as `rate_limited`, as words.
pub fn words<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(Value::String(name)) => name.replace('_', " "),
        _ => String::new(),
    }
}

/// A call as people write one: `shell(command: "cargo test")`.
pub fn call(tool: &str, arguments: &Value) -> String {
    let tool = name(tool);
    let Value::Object(fields) = arguments else {
        return match arguments {
            Value::Null => format!("{tool}()"),
            other => format!("{tool}({})", value(other)),
        };
    };
    let mut inner = String::new();
    for (index, (field, argument)) in fields.iter().enumerate() {
        let part = format!("{}: {}", name(field), value(argument));
        if index > 0 && inner.chars().count() + part.chars().count() > ARGUMENTS_CHARS {
            inner.push_str(", …");
            break;
        }
        if index > 0 {
            inner.push_str(", ");
        }
        inner.push_str(&part);
    }
    format!("{tool}({inner})")
}

fn value(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{}\"", one_line(text, ARGUMENT_CHARS)),
        other => one_line(&other.to_string(), ARGUMENT_CHARS),
    }
}

/// A count with its thousands apart: `12,345`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count and what is counted, with a plural by `s`.
pub fn counted(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A duration of that many milliseconds, to two units at most.
pub fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0 => format!("{millis} ms"),
        1..60 => format!("{seconds}.{} s", millis % 1000 / 100),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", count(seconds / 3600), seconds % 3600 / 60),
    }
}

/// A size in bytes, to one decimal place.
pub fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    let tenths = |unit: u64| {
        let tenths = bytes.saturating_mul(10) / unit;
        format!("{}.{}", count(tenths / 10), tenths % 10)
    };
    match bytes {
        0..KIB => counted(bytes, "byte"),
        bytes if bytes < KIB * KIB => format!("{} KiB", tenths(KIB)),
        _ => format!("{} MiB", tenths(KIB * KIB)),
    }
}

/// The tokens of a call.
pub fn usage(usage: &Usage) -> String {
    let mut text = format!("{} tokens in, {} out", count(usage.input_tokens), count(usage.output_tokens));
    if usage.cache_read_tokens > 0 {
        let _ = write!(text, ", {} from the cache", count(usage.cache_read_tokens));
    }
    if usage.cache_write_tokens > 0 {
        let _ = write!(text, ", {} into the cache", count(usage.cache_write_tokens));
    }
    text
}

/// What a call cost.
pub fn cost(cost: Option<MicroUsd>) -> String {
    cost.map_or_else(|| "no price known".to_owned(), |cost| cost.to_string())
}

/// A run as people name it.
pub fn run(run: RunId) -> String {
    format!("run {}", run.short())
}

/// The beginning of a git object's name.
pub fn commit(sha: &str) -> String {
    const SHORT: usize = 8;
    one_line(sha, usize::MAX).chars().take(SHORT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn colours_go_and_other_control_characters_are_seen() {
        assert_eq!(one_line("\u{1b}[1;31mFAILED\u{1b}[0m  tests\n", 80), "FAILED tests");
        assert_eq!(one_line("a\u{1b}]0;title\u{7}b", 80), "a\u{241b}]0;title\u{2407}b");
        assert_eq!(one_line("x\u{9b}31m", 80), "x\u{fffd}31m");
        assert_eq!(one_line("\u{1b}[", 80), "\u{241b}[");
    }

    #[test]
    fn nothing_changes_the_direction_of_writing() {
        assert_eq!(one_line("user\u{202e}txt.exe\u{200b}", 80), "usertxt.exe");
    }

    #[test]
    fn long_text_is_cut_between_characters() {
        assert_eq!(one_line("äöü", 3), "äöü");
        assert_eq!(one_line("äöüß", 3), "äöü…");
        assert_eq!(one_line("a  b  c", 3), "a b…");
    }

    #[test]
    fn a_call_shows_its_arguments_shortened() {
        assert_eq!(call("shell", &json!({"command": "cargo test"})), r#"shell(command: "cargo test")"#);
        assert_eq!(call("list", &json!({})), "list()");
        assert_eq!(call("list", &Value::Null), "list()");
        let long = json!({"a": "x".repeat(70), "b": "y".repeat(70), "c": "z".repeat(70)});
        let shown = call("edit", &long);
        assert!(shown.ends_with(", …)"), "{shown}");
        assert!(shown.chars().count() < 200, "{shown}");
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!([count(0), count(999), count(1_000)], ["0", "999", "1,000"]);
        assert_eq!(count(1_234_567), "1,234,567");
        let times = [999, 1_290, 60_000, 3_725_000].map(duration);
        assert_eq!(times, ["999 ms", "1.2 s", "1 min 0 s", "1 h 2 min"]);
        let sizes = [1, 1023, 1536, 3 * 1024 * 1024].map(size);
        assert_eq!(sizes, ["1 byte", "1,023 bytes", "1.5 KiB", "3.0 MiB"]);
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_of_bounded_length(text in ".{0,300}", most in 1usize..200) {
            let line = one_line(&text, most);
            prop_assert!(line.chars().count() <= most + 1);
            prop_assert!(!line.chars().any(char::is_control), "{line:?}");
        }
    }
}

//! How this model counts tokens: a quarter of the UTF-8 bytes, rounded up.
//!
//! The rule is crude on purpose. A test, a bench or a reader with a pocket calculator gets the same figure, and the
//! same request always costs the same.

/// Bytes of UTF-8 that make one token: close to what the real tokenizers give for English text and code.
pub(crate) const BYTES_PER_TOKEN: usize = 4;

/// Tokens of an image or a document, whatever its size: what a provider charges for an image of common size. Counting
/// the base64 text would make a screenshot cost more than a book.
pub(crate) const TOKENS_PER_ATTACHMENT: u32 = 1_600;

/// Tokens of that many bytes.
pub(crate) fn of_bytes(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX)
}

/// Cuts `text` into the pieces that are streamed, each with the tokens that it carries.
///
/// The tokens of the pieces add up to `of_bytes(text.len())`. A piece ends where a character ends, so one that falls
/// into the middle of a character carries the tokens of both.
pub(crate) fn pieces(text: &str) -> Vec<(&str, u32)> {
    let mut pieces = Vec::with_capacity(text.len().div_ceil(BYTES_PER_TOKEN));
    let (mut start, mut told) = (0, 0);
    while start < text.len() {
        let end = text.ceil_char_boundary(start + BYTES_PER_TOKEN);
        let total = of_bytes(end);
        pieces.push((&text[start..end], total - told));
        (start, told) = (end, total);
    }
    pieces
}

/// The longest beginning of `text` that has at most `tokens` tokens.
pub(crate) fn cut(text: &str, tokens: u32) -> &str {
    let bytes = usize::try_from(tokens).unwrap_or(usize::MAX).saturating_mul(BYTES_PER_TOKEN);
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_bytes_rounded_up() {
        assert_eq!([0, 1, 4, 5, 8].map(of_bytes), [0, 1, 1, 2, 2]);
    }

    #[test]
    fn pieces_add_up_to_the_text_and_to_its_tokens() {
        for text in ["", "abc", "four", "a longer text, with commas", "日本語のテキスト", "a日b🦀c"] {
            let pieces = pieces(text);
            assert_eq!(pieces.iter().map(|(piece, _)| *piece).collect::<String>(), text);
            assert_eq!(pieces.iter().map(|(_, tokens)| tokens).sum::<u32>(), of_bytes(text.len()), "{text}");
        }
    }

    #[test]
    fn a_cut_never_splits_a_character() {
        assert_eq!(cut("日本語", 1), "日");
        assert_eq!(cut("abcdefgh", 1), "abcd");
        assert_eq!(cut("abc", 9), "abc");
    }
}

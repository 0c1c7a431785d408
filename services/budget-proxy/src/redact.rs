//! Takes a provider's key out of what it answers, as gateways tell it that show what they were sent. Pure.
//!
//! An answer keeps its length: a key is overwritten with asterisks. One that is told in two pieces is found as well, for
//! an end that may be the beginning of a key waits for what follows.

use std::borrow::Cow;

/// Takes one key out of the bytes that pass through it.
pub struct Redactor {
    key: Vec<u8>,
    /// The end of what came, as far as it may be the beginning of a key.
    waiting: Vec<u8>,
}

impl Redactor {
    /// One that takes `key` out; without a key everything passes.
    pub fn new(key: Option<&str>) -> Self {
        Self { key: key.unwrap_or_default().as_bytes().to_vec(), waiting: Vec::new() }
    }

    /// Takes the next bytes and gives what may be told.
    pub fn pass<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.key.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut told = std::mem::take(&mut self.waiting);
        told.extend_from_slice(bytes);
        let mut from = 0;
        while let Some(at) = find(&told[from..], &self.key) {
            told[from + at..from + at + self.key.len()].fill(b'*');
            from += at + self.key.len();
        }
        let most = (told.len() - from).min(self.key.len() - 1);
        let ends = |n: &usize| told.ends_with(&self.key[..*n]);
        let kept = (1..=most).rev().find(ends).unwrap_or(0);
        self.waiting = told.split_off(told.len() - kept);
        Cow::Owned(told)
    }

    /// What still waits, once nothing follows.
    pub fn finish(self) -> Vec<u8> {
        self.waiting
    }
}

fn find(bytes: &[u8], key: &[u8]) -> Option<usize> {
    bytes.windows(key.len()).position(|window| window == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passed(key: Option<&str>, pieces: &[&[u8]]) -> String {
        let mut redactor = Redactor::new(key);
        let mut told: Vec<u8> = pieces.iter().flat_map(|piece| redactor.pass(piece).into_owned()).collect();
        told.extend(redactor.finish());
        String::from_utf8(told).unwrap()
    }

    #[test]
    fn a_key_is_taken_out_wherever_it_stands() {
        assert_eq!(passed(Some("sk-1"), &[b"sk-1 and sk-1sk-1, not sk-2"]), "**** and ********, not sk-2");
        assert_eq!(passed(Some(""), &[b"all"]), "all");
        assert_eq!(passed(None, &[b"all"]), "all");
        assert_eq!(passed(Some("sk-1"), &[b""]), "");
    }

    #[test]
    fn a_key_is_found_wherever_the_bytes_are_cut() {
        let (text, wanted) = (b"sk-sk-sk-1 sk-sk-1sk-1sk", "sk-sk-**** sk-********sk");
        for first in 0..=text.len() {
            for second in first..=text.len() {
                let pieces = [&text[..first], &text[first..second], &text[second..]];
                assert_eq!(passed(Some("sk-1"), &pieces), wanted, "{first} {second}");
            }
        }
    }

    #[test]
    fn only_what_may_be_a_key_waits() {
        let mut redactor = Redactor::new(Some("sk-1"));
        for (piece, told) in [("data: x\n\n", "data: x\n\n"), ("as", "a"), ("ky", "sky")] {
            assert_eq!(redactor.pass(piece.as_bytes()), told.as_bytes());
        }
    }
}

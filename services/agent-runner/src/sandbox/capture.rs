//! Bounded memory of a stream: its head and its tail, how much was cut between them, and its lines for the log.

use std::{borrow::Cow, collections::VecDeque};

use super::{LineSink, SandboxError, Stream};

/// Longest line handed to a log in one piece; longer ones come in several.
const MAX_LINE_BYTES: usize = 8 * 1024;

/// How much of one stream goes to the log. A command that floods its output must not flood the log as well; 4 MiB is
/// some 50,000 lines.
const MAX_LOGGED_BYTES: usize = 4 << 20;

/// How much of a stream is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The first and the last bytes; what is between them is cut.
    HeadAndTail {
        /// Bytes kept from the beginning.
        head: usize,
        /// Bytes kept from the end.
        tail: usize,
    },
    /// Every byte, because half of it is worth nothing; more than this many is an error.
    All(usize),
}

impl Default for Keep {
    /// What a model can read at once: errors tend to be at the end, what was run at the beginning.
    fn default() -> Self {
        Self::HeadAndTail { head: 12 * 1024, tail: 20 * 1024 }
    }
}

/// What was kept of a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Captured {
    /// Its beginning.
    pub head: Vec<u8>,
    /// Its end, after what was cut.
    pub tail: Vec<u8>,
    /// How many bytes came in all.
    pub total: u64,
}

impl Captured {
    /// How many bytes were left out between head and tail.
    pub const fn cut(&self) -> u64 {
        self.total - self.head.len() as u64 - self.tail.len() as u64
    }

    /// All that was kept, without a mark where something was cut.
    pub fn into_bytes(self) -> Vec<u8> {
        let Self { mut head, tail, .. } = self;
        head.extend(tail);
        head
    }

    /// The text, with a line that says what was cut.
    pub fn text(&self) -> String {
        let mut text = lossy(&self.head).into_owned();
        if self.cut() > 0 {
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            let mark = format!("[... {} bytes cut ...]\n", self.cut());
            text.push_str(&mark);
        }
        text.push_str(&lossy(&self.tail));
        text
    }
}

fn lossy(bytes: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(bytes)
}

/// Takes a stream in pieces and keeps what [`Keep`] says.
#[derive(Debug)]
pub(super) struct Recorder {
    keep: Keep,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    total: u64,
}

impl Recorder {
    pub(super) fn new(keep: Keep) -> Self {
        Self { keep, head: Vec::new(), tail: VecDeque::new(), total: 0 }
    }

    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), SandboxError> {
        self.total += piece.len() as u64;
        let (head, tail) = match self.keep {
            Keep::HeadAndTail { head, tail } => (head, tail),
            Keep::All(limit) if self.head.len() + piece.len() > limit => {
                return Err(SandboxError::TooMuchOutput { limit });
            }
            Keep::All(limit) => (limit, 0),
        };
        let (first, rest) = piece.split_at(piece.len().min(head.saturating_sub(self.head.len())));
        self.head.extend_from_slice(first);
        self.tail.extend(&rest[rest.len().saturating_sub(tail)..]);
        self.tail.drain(..self.tail.len().saturating_sub(tail));
        Ok(())
    }

    pub(super) fn finish(self) -> Captured {
        Captured { head: self.head, tail: self.tail.into(), total: self.total }
    }
}

/// Cuts a stream into lines for a [`LineSink`].
pub(super) struct Lines {
    sink: Option<LineSink>,
    stream: Stream,
    open: Vec<u8>,
    logged: usize,
    unlogged: u64,
}

impl Lines {
    pub(super) fn new(sink: Option<LineSink>, stream: Stream) -> Self {
        Self { sink, stream, open: Vec::new(), logged: 0, unlogged: 0 }
    }

    pub(super) fn push(&mut self, piece: &[u8]) {
        if self.sink.is_none() {
            return;
        }
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            match part.strip_suffix(b"\n") {
                Some(line) => {
                    self.extend(line);
                    self.emit();
                }
                None => self.extend(part),
            }
        }
    }

    /// Hands over what is left, and says how much never was.
    pub(super) fn finish(mut self) {
        if !self.open.is_empty() {
            self.emit();
        }
        if let (Some(sink), 1..) = (&self.sink, self.unlogged) {
            sink(self.stream, format!("[... {} more bytes not logged ...]", self.unlogged).as_bytes());
        }
    }

    fn extend(&mut self, mut part: &[u8]) {
        while self.open.len() + part.len() > MAX_LINE_BYTES {
            let (now, later) = part.split_at(MAX_LINE_BYTES - self.open.len());
            self.open.extend_from_slice(now);
            self.emit();
            part = later;
        }
        self.open.extend_from_slice(part);
    }

    fn emit(&mut self) {
        let line = std::mem::take(&mut self.open);
        if self.logged + line.len() > MAX_LOGGED_BYTES {
            self.unlogged += line.len() as u64;
            return;
        }
        // An empty line costs a log entry as well.
        self.logged += line.len().max(1);
        if let Some(sink) = &self.sink {
            sink(self.stream, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn head_and_tail_are_those_of_the_stream(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..20),
            head in 0_usize..50,
            tail in 0_usize..50,
        ) {
            let mut recorder = Recorder::new(Keep::HeadAndTail { head, tail });
            for piece in &pieces {
                recorder.push(piece).unwrap();
            }
            let all: Vec<u8> = pieces.concat();
            let captured = recorder.finish();
            let split = all.len().min(head);
            prop_assert_eq!(&captured.head, &all[..split]);
            let rest = &all[split..];
            prop_assert_eq!(&captured.tail, &rest[rest.len().saturating_sub(tail)..]);
            prop_assert_eq!(captured.total, all.len() as u64);
            prop_assert_eq!(captured.cut(), (rest.len().saturating_sub(tail)) as u64);
        }

        #[test]
        fn lines_do_not_depend_on_how_the_stream_was_cut(text in "[a\n]{0,60}", at in 0_usize..60) {
            let whole = lines_of(&[text.as_bytes()]);
            let (first, second) = text.as_bytes().split_at(at.min(text.len()));
            prop_assert_eq!(whole, lines_of(&[first, second]));
        }
    }

    #[test]
    fn text_says_what_was_cut() {
        let mut recorder = Recorder::new(Keep::HeadAndTail { head: 3, tail: 2 });
        recorder.push(b"abcdefgh").unwrap();
        assert_eq!(recorder.finish().text(), "abc\n[... 3 bytes cut ...]\ngh");
    }

    #[test]
    fn all_means_all_or_an_error() {
        let mut recorder = Recorder::new(Keep::All(4));
        recorder.push(b"abcd").unwrap();
        assert!(matches!(recorder.push(b"e"), Err(SandboxError::TooMuchOutput { limit: 4 })));
    }

    #[test]
    fn a_flood_is_logged_up_to_its_limit_and_said() {
        let line = vec![b'x'; MAX_LINE_BYTES];
        let pieces: Vec<&[u8]> = std::iter::repeat_n(&line[..], 2 * MAX_LOGGED_BYTES / MAX_LINE_BYTES).collect();
        let lines = lines_of(&pieces);
        assert!(lines.iter().map(Vec::len).sum::<usize>() <= MAX_LOGGED_BYTES + 64);
        assert!(String::from_utf8_lossy(lines.last().unwrap()).contains("not logged"));
    }

    fn lines_of(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink: LineSink = {
            let seen = Arc::clone(&seen);
            Arc::new(move |_, line: &[u8]| seen.lock().unwrap().push(line.to_vec()))
        };
        let mut lines = Lines::new(Some(sink), Stream::Stdout);
        for piece in pieces {
            lines.push(piece);
        }
        lines.finish();
        seen.lock().unwrap().clone()
    }
}

//! An answer as it comes in, for everyone who listens: whenever somebody joins, they hear it from the first byte on.
//!
//! One [`Writer`] never waits for anybody: a slow [`Listener`] reads later what the tape holds. Bytes are copied onto the
//! tape, because the small slices that an HTTP client hands out keep its large read buffers alive. A tape consists of
//! pieces of one size, so that a thousand of them take no more room than their answers, and none is ever moved. Some of
//! a tape may be held back: it is written and not heard until it is released.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use tokio::sync::watch;

use crate::failure::Failure;

/// Size of a piece of a tape: that of a page, of which a short answer fills one or two.
const PIECE: usize = 4096;

/// Most that is read at once: it is copied while the writer waits.
const READ_AT_ONCE: usize = 16 * PIECE;

/// What comes before an answer's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// HTTP status.
    pub status: StatusCode,
    /// The headers that are passed on.
    pub headers: HeaderMap,
    /// Whether it is a kept reply.
    pub replayed: bool,
}

/// How an answer ended.
pub type End = Result<(), Failure>;

/// Bytes in pieces, of which all but the last are full.
#[derive(Debug, Default)]
struct Pieces {
    pieces: Vec<Vec<u8>>,
    len: usize,
}

impl Pieces {
    fn append(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len();
        while !bytes.is_empty() {
            match self.pieces.last_mut().filter(|piece| piece.len() < PIECE) {
                None => self.pieces.push(Vec::with_capacity(PIECE)),
                Some(piece) => {
                    let (now, later) = bytes.split_at(bytes.len().min(PIECE - piece.len()));
                    piece.extend_from_slice(now);
                    bytes = later;
                }
            }
        }
    }

    fn copy(&self, from: usize, until: usize) -> Vec<u8> {
        let mut copied = Vec::with_capacity(until - from);
        while from + copied.len() < until {
            let at = from + copied.len();
            let piece = &self.pieces[at / PIECE];
            let begin = at % PIECE;
            let end = piece.len().min(begin + (until - at));
            copied.extend_from_slice(&piece[begin..end]);
        }
        copied
    }
}

#[derive(Debug, Default)]
struct State {
    head: Option<Head>,
    bytes: Pieces,
    /// How many of the bytes may be heard.
    released: usize,
    end: Option<End>,
}

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    moved: watch::Sender<()>,
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.moved.send_replace(());
    }
}

/// A tape, to be joined.
#[derive(Debug, Clone)]
pub struct Tape {
    inner: Arc<Inner>,
}

impl Tape {
    /// An empty tape and its writer.
    pub fn new() -> (Self, Writer) {
        let inner = Arc::new(Inner { state: Mutex::default(), moved: watch::Sender::new(()) });
        let writer = Writer { inner: Arc::clone(&inner) };
        (Self { inner }, writer)
    }

    /// Listens from the first byte on.
    pub fn listen(&self) -> Listener {
        Listener { moved: self.inner.moved.subscribe(), inner: Arc::clone(&self.inner), heard: 0 }
    }
}

/// Writes a tape. Dropped before the end, it tells all listeners that the rest is lost.
#[derive(Debug)]
pub struct Writer {
    inner: Arc<Inner>,
}

impl Writer {
    /// Tells the head. The first one counts.
    pub fn head(&self, head: Head) {
        self.inner.change(|state| {
            state.head.get_or_insert(head);
        });
    }

    /// Takes bytes that are heard at once, after all that was held back.
    pub fn push(&self, bytes: &[u8]) {
        self.inner.change(|state| {
            state.bytes.append(bytes);
            state.released = state.bytes.len;
        });
    }

    /// Takes bytes that are held back.
    pub fn hold(&self, bytes: &[u8]) {
        self.inner.state().bytes.append(bytes);
    }

    /// How many bytes there are.
    pub fn len(&self) -> usize {
        self.inner.state().bytes.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All the bytes, those held back included.
    pub fn copy(&self) -> Vec<u8> {
        let state = self.inner.state();
        state.bytes.copy(0, state.bytes.len)
    }

    /// How many listen.
    pub fn listeners(&self) -> usize {
        self.inner.moved.receiver_count()
    }

    /// Ends the tape. What was held back is released when it ends well.
    pub fn end(self, end: End) {
        self.inner.change(|state| {
            if end.is_ok() {
                state.released = state.bytes.len;
            }
            state.end = Some(end);
        });
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.inner.change(|state| {
            state.end.get_or_insert(Err(Failure::Lost));
        });
    }
}

/// Hears a tape.
#[derive(Debug)]
pub struct Listener {
    inner: Arc<Inner>,
    moved: watch::Receiver<()>,
    heard: usize,
}

impl Listener {
    /// Waits for the head.
    pub async fn head(&mut self) -> Result<Head, Failure> {
        self.until(|state, _| match (&state.head, state.end) {
            (Some(head), _) => Some(Ok(head.clone())),
            (None, Some(end)) => Some(Err(end.err().unwrap_or(Failure::Lost))),
            (None, None) => None,
        })
        .await
    }

    /// Waits for the next bytes; none at a good end.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        let read: Result<Option<Bytes>, Failure> = self
            .until(|state, heard| {
                let until = state.released.min(heard.saturating_add(READ_AT_ONCE));
                match state.end {
                    _ if heard < until => Some(Ok(Some(state.bytes.copy(heard, until).into()))),
                    Some(end) => Some(end.map(|()| None)),
                    None => None,
                }
            })
            .await;
        if let Ok(Some(bytes)) = &read {
            self.heard += bytes.len();
        }
        read
    }

    /// Looks until there is something. Marked before it looks, so that no change is missed in between.
    async fn until<T>(&mut self, look: impl Fn(&State, usize) -> Option<Result<T, Failure>>) -> Result<T, Failure> {
        loop {
            self.moved.mark_unchanged();
            let seen = look(&self.inner.state(), self.heard);
            if let Some(seen) = seen {
                return seen;
            }
            if self.moved.changed().await.is_err() {
                return Err(Failure::Lost);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn head() -> Head {
        Head { status: StatusCode::OK, headers: HeaderMap::new(), replayed: false }
    }

    async fn all(mut listener: Listener) -> (Vec<u8>, End) {
        let mut heard = Vec::new();
        loop {
            match listener.read().await {
                Ok(Some(bytes)) => heard.extend_from_slice(&bytes),
                Ok(None) => return (heard, Ok(())),
                Err(failure) => return (heard, Err(failure)),
            }
        }
    }

    #[test]
    fn pieces_hold_what_was_appended_wherever_it_is_read() {
        let bytes: Vec<u8> = (0..3 * PIECE + 7).map(|n| u8::try_from(n % 251).expect("below 251")).collect();
        let mut pieces = Pieces::default();
        let mut rest = bytes.as_slice();
        for size in [0, 1, PIECE - 1, PIECE, 2 * PIECE, 5, usize::MAX] {
            let (now, later) = rest.split_at(size.min(rest.len()));
            pieces.append(now);
            rest = later;
        }
        assert_eq!(pieces.len, bytes.len());
        assert!(pieces.pieces.iter().rev().skip(1).all(|piece| piece.len() == PIECE));
        for from in [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, bytes.len()] {
            for until in [from, PIECE.max(from), bytes.len()] {
                assert!(pieces.copy(from, until) == bytes[from..until], "{from}..{until}");
            }
        }
    }

    #[tokio::test]
    async fn whoever_joins_hears_all_of_it() {
        let (tape, writer) = Tape::new();
        let early = tape.listen();
        writer.head(head());
        writer.push(b"one ");
        let middle = tape.listen();
        writer.push(&vec![b'x'; 3 * READ_AT_ONCE]);
        assert_eq!(writer.listeners(), 2);
        writer.end(Ok(()));
        let mut wanted = b"one ".to_vec();
        wanted.resize(4 + 3 * READ_AT_ONCE, b'x');
        for mut listener in [early, middle, tape.listen()] {
            assert_eq!(listener.head().await, Ok(head()));
            assert_eq!(all(listener).await, (wanted.clone(), Ok(())));
        }
    }

    #[tokio::test]
    async fn what_is_held_back_is_heard_only_after_a_good_end() {
        for (end, heard) in [(Ok(()), &b"told held"[..]), (Err(Failure::Cut), b"told ")] {
            let (tape, writer) = Tape::new();
            writer.push(b"told ");
            writer.hold(b"held");
            let mut listener = tape.listen();
            assert_eq!(listener.read().await, Ok(Some(Bytes::from_static(b"told "))));
            assert_eq!(listener.read().now_or_never(), None);
            writer.end(end);
            assert_eq!(all(tape.listen()).await, (heard.to_vec(), end));
        }
    }

    #[tokio::test]
    async fn a_writer_that_is_dropped_tells_a_loss() {
        let (tape, writer) = Tape::new();
        let (mut first, second) = (tape.listen(), tape.listen());
        drop(writer);
        assert_eq!(first.head().await, Err(Failure::Lost));
        assert_eq!(all(second).await, (Vec::new(), Err(Failure::Lost)));
    }

    #[tokio::test]
    async fn a_listener_that_waits_is_woken_by_every_change() {
        let (tape, writer) = Tape::new();
        let listener = tape.listen();
        let hears = all(listener);
        let writes = async {
            for n in 0..100_u8 {
                writer.push(&[n]);
                tokio::task::yield_now().await;
            }
            writer.end(Ok(()));
        };
        let (heard, ()) = tokio::join!(hears, writes);
        assert_eq!(heard, ((0..100).collect(), Ok(())));
    }
}

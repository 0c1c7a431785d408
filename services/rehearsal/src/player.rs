//! Plays a script on a connection: sends, pauses, waits at gates, cuts.
//!
//! A client that goes away drops the future or the stream, and with it the ticket, which notes it. Frames between which
//! nothing is to happen go out as one write, so that a scenario without latency costs little.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::Stream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::Frame;
use crate::gates::Gates;
use crate::script::Act;
use crate::seen::{Outcome, Ticket};

/// The longest that an answer is held or waits at a gate: more than any client's time limit, less than a forgotten test
/// server lives.
const LONGEST_WAIT: Duration = Duration::from_mins(10);

/// What ends waits before their time.
#[derive(Debug, Clone)]
pub(crate) struct Waits {
    /// The gates.
    pub(crate) gates: Arc<Gates>,
    /// The server closes: what is held is let go.
    pub(crate) closing: CancellationToken,
}

/// The server ended the answer before its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended;

impl Waits {
    /// Does what comes before the response's head.
    ///
    /// # Errors
    /// When the answer is to be given up.
    pub(crate) async fn head(&self, acts: Vec<Act>, request: u64) -> Result<(), Ended> {
        let mut due = Instant::now();
        for act in acts {
            self.wait(&act, request, &mut due).await?;
        }
        Ok(())
    }

    /// Waits as the act says. `due` carries the pace over several pauses, so that timers which fire late do not add up.
    async fn wait(&self, act: &Act, request: u64, due: &mut Instant) -> Result<(), Ended> {
        match act {
            Act::Send(_) | Act::End => Ok(()),
            Act::Cut => Err(Ended),
            Act::Pause(pause) => {
                *due += *pause;
                tokio::time::sleep_until(*due).await;
                Ok(())
            }
            Act::Gate(name) => {
                let passed = tokio::select! {
                    () = self.gates.pass(name, request) => Ok(()),
                    () = self.closing.cancelled() => Err(Ended),
                    () = tokio::time::sleep(LONGEST_WAIT) => Err(Ended),
                };
                *due = Instant::now();
                passed
            }
            Act::Hold => {
                tokio::select! {
                    () = self.closing.cancelled() => {}
                    () = tokio::time::sleep(LONGEST_WAIT) => {}
                }
                Err(Ended)
            }
        }
    }
}

/// Plays the body of an answer.
#[derive(Debug)]
pub(crate) struct Player {
    acts: VecDeque<Act>,
    waits: Waits,
    ticket: Ticket,
    due: Instant,
    _admitted: OwnedSemaphorePermit,
}

impl Player {
    /// A player of `acts`. It keeps the request's ticket and its place among those in flight to the end.
    pub(crate) fn new(acts: Vec<Act>, waits: Waits, ticket: Ticket, admitted: OwnedSemaphorePermit) -> Self {
        Self { acts: acts.into(), waits, ticket, due: Instant::now(), _admitted: admitted }
    }

    /// The body. An error in it makes the server end the connection at once.
    pub(crate) fn into_stream(self) -> impl Stream<Item = io::Result<Bytes>> + Send {
        futures::stream::unfold(Some(self), |player| async move {
            let mut player = player?;
            match player.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(player))),
                Ok(None) => None,
                Err(Ended) => {
                    player.ticket.end(Outcome::CutByServer);
                    // What was sent before lies in the server's buffer: it is flushed when the body has nothing to
                    // give, and thrown away when the body fails.
                    tokio::task::yield_now().await;
                    Some((Err(io::Error::other("cut by the scenario")), None))
                }
            }
        })
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Ended> {
        loop {
            if let Some(bytes) = self.sendable() {
                return Ok(Some(bytes));
            }
            let Some(act) = self.acts.pop_front() else {
                return Ok(None);
            };
            self.waits.wait(&act, self.ticket.id(), &mut self.due).await?;
        }
    }

    /// All frames up to the next wait.
    fn sendable(&mut self) -> Option<Bytes> {
        let first = self.take_frame()?;
        let mut tokens = first.tokens;
        let mut bytes = first.bytes;
        if matches!(self.acts.front(), Some(Act::Send(_))) {
            let mut joined = BytesMut::from(bytes);
            while let Some(frame) = self.take_frame() {
                joined.extend_from_slice(&frame.bytes);
                tokens += frame.tokens;
            }
            bytes = joined.freeze();
        }
        self.ticket.sent(tokens);
        // Told now and not when the stream is polled again: with a known length it never is.
        match self.acts.front() {
            None => self.ticket.end(Outcome::Completed),
            Some(Act::End) => self.ticket.end(Outcome::CutByServer),
            Some(_) => {}
        }
        Some(bytes)
    }

    fn take_frame(&mut self) -> Option<Frame> {
        match self.acts.pop_front() {
            Some(Act::Send(frame)) => Some(frame),
            Some(other) => {
                self.acts.push_front(other);
                None
            }
            None => None,
        }
    }
}

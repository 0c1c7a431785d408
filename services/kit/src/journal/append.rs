//! Appending one message, and finding out what became of one whose ack says nothing certain.

use std::time::Duration;

use async_nats::header::{HeaderMap, HeaderValue, NATS_EXPECTED_LAST_SUBJECT_SEQUENCE};
use schemas::{EventId, RunId};
use tokio::time::Instant;

use super::{AppendError, Journal, Misuse, prefix, subject_of};
use crate::bus::Fault;
use crate::bus::code;
use crate::message::{Outgoing, Stored};

/// Names the subjects whose last sequence is expected.
const EXPECTED_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence-Subject";

/// For how long an append is tried whose fate is not known: a cluster that elects a leader is back by then. What takes
/// longer is an outage, which the caller has to see.
const PATIENCE: Duration = Duration::from_secs(10);

/// Pause before the first repeat; it doubles and is random by half.
const PAUSE: Duration = Duration::from_millis(4);

/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// When and how soon something is tried again.
#[derive(Debug)]
pub(super) struct Retry {
    until: Instant,
    pause: Duration,
}

impl Retry {
    pub(super) fn new() -> Self {
        Self { until: Instant::now() + PATIENCE, pause: PAUSE }
    }

    /// Waits before the next try; false when there shall be none.
    pub(super) async fn again(&mut self) -> bool {
        if Instant::now() >= self.until {
            return false;
        }
        let pause = self.pause.mul_f64(rand::random_range(0.5..=1.0));
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        tokio::time::sleep(pause).await;
        true
    }
}

/// An append that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appended {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// Whether it was found there, stored by an earlier call or by a try whose ack was lost.
    pub(crate) found: bool,
}

/// What the log says about a message.
pub(super) enum Whereabouts {
    /// It is stored.
    There(u64),
    /// It is not stored, and its place is free.
    Free,
    /// It is not stored, and its place is taken, or the run never came that far.
    Taken(Option<Box<Stored>>),
}

impl Journal {
    /// Appends a message to a run whose last message has the sequence `expected`; 0 for a run's first.
    ///
    /// Returns the message's sequence, also when an earlier append of the same message, by its id, is already stored.
    /// `Conflict` means that somebody else wrote there, and that nothing of this message is in the log.
    pub async fn append(&self, run: RunId, expected: u64, outgoing: Outgoing) -> Result<u64, AppendError> {
        let appended = self.append_or_find(run, expected, &outgoing).await?;
        Ok(appended.sequence)
    }

    pub(crate) async fn append_or_find(
        &self,
        run: RunId,
        expected: u64,
        outgoing: &Outgoing,
    ) -> Result<Appended, AppendError> {
        if outgoing.journal_of() != Some(run) {
            return Err(AppendError::Misuse(Misuse::OtherRun { subject: subject_of(outgoing), run }));
        }
        let headers = expecting(outgoing, run, expected)?;
        let subject = subject_of(outgoing);
        let sent = self.bus.publish_once(&subject, headers.clone(), outgoing.body.clone());
        match sent.await {
            Ok(ack) => Ok(Appended { sequence: ack.sequence, found: ack.duplicate }),
            Err(fault) => self.settle(run, expected, outgoing, headers, fault).await,
        }
    }

    /// Goes on after a first try that failed.
    async fn settle(
        &self,
        run: RunId,
        expected: u64,
        outgoing: &Outgoing,
        headers: HeaderMap,
        mut fault: Fault,
    ) -> Result<Appended, AppendError> {
        let subject = subject_of(outgoing);
        let mut retry = Retry::new();
        while is_ambiguous(&fault) {
            match self.find(run, expected, &outgoing.envelope.id).await {
                Ok(Whereabouts::There(sequence)) => {
                    return Ok(Appended { sequence, found: true });
                }
                Ok(Whereabouts::Taken(last)) => return Err(AppendError::Conflict { run, last }),
                Ok(Whereabouts::Free) => {
                    if !retry.again().await {
                        break;
                    }
                }
                // Not published again before it is known that it is not there.
                Err(unknown) if is_ambiguous(&unknown) && retry.again().await => continue,
                Err(unknown) => return Err(AppendError::Unavailable(Box::new(unknown))),
            }
            let sent = self.bus.publish_once(&subject, headers.clone(), outgoing.body.clone());
            match sent.await {
                Ok(ack) => {
                    return Ok(Appended { sequence: ack.sequence, found: ack.duplicate });
                }
                Err(next) => fault = next,
            }
        }
        Err(AppendError::from_fault(outgoing, fault))
    }

    /// Looks for a message that was to follow `expected`, at the stream's leader.
    pub(super) async fn find(&self, run: RunId, expected: u64, id: &EventId) -> Result<Whereabouts, Fault> {
        let Some(tail) = self.tail(&prefix(run)).await? else {
            return Ok(if expected == 0 { Whereabouts::Free } else { Whereabouts::Taken(None) });
        };
        if tail.sequence == expected {
            return Ok(Whereabouts::Free);
        }
        if tail.sequence < expected {
            return Ok(Whereabouts::Taken(tail.stored));
        }
        // A successor may have written after it already.
        let mut next = expected + 1;
        while let Some(message) = self.next(&prefix(run), next).await? {
            if message.id.as_deref() == Some(id.as_str()) {
                return Ok(Whereabouts::There(message.sequence));
            }
            next = message.sequence + 1;
            if message.sequence >= tail.sequence {
                break;
            }
        }
        Ok(Whereabouts::Taken(tail.stored))
    }
}

/// The message's headers with its place in the run.
pub(super) fn expecting(outgoing: &Outgoing, run: RunId, expected: u64) -> Result<HeaderMap, AppendError> {
    let mut headers = encode(outgoing)?;
    headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, HeaderValue::from(expected));
    headers.insert(EXPECTED_SUBJECT, prefix(run).as_str());
    Ok(headers)
}

pub(super) fn encode(outgoing: &Outgoing) -> Result<HeaderMap, AppendError> {
    outgoing.headers().map_err(|source| AppendError::Encode { subject: subject_of(outgoing), source })
}

/// Whether the message may be stored in spite of a fault, or may be stored by trying again.
pub(super) fn is_ambiguous(fault: &Fault) -> bool {
    match fault {
        Fault::Silent | Fault::Garbled(_) | Fault::NoStream { .. } | Fault::Disconnected => true,
        Fault::Api { code, .. } => matches!(
            *code,
            code::WRONG_LAST_SEQUENCE
                | code::WRONG_LAST_SEQUENCE_IN_FLIGHT
                | code::DUPLICATE_IN_FLIGHT
                | code::BATCH_INCOMPLETE
                | code::BATCH_REPEATED
                | code::BATCHES_IN_FLIGHT
        ),
        Fault::TooLarge { .. } | Fault::Forbidden { .. } => false,
    }
}

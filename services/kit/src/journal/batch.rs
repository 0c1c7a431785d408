//! Appending to several runs, with signals beside, all or nothing: NATS' atomic batch publish.
//!
//! `jetstream-extra` has batches too, but on an older client library than this crate's, and none of its readings of
//! an answer that is not certain. The protocol is three headers.

use std::collections::HashSet;

use async_nats::header::{HeaderMap, HeaderValue};
use futures::future;
use schemas::RunId;
use uuid::Uuid;

use super::append::{self, Retry, Whereabouts};
use super::{AppendError, Journal, Misuse, beside_journals, subject_of};
use crate::bus::{Ack, Bus, Fault, code};
use crate::message::Outgoing;

/// The most messages in a batch: the server's own limit.
pub const MAX_BATCH_MESSAGES: usize = 1000;

const BATCH_ID: &str = "Nats-Batch-Id";
const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// One message of a batch.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The message.
    pub outgoing: Outgoing,
    /// For a message of a journal its run and that run's last sequence, 0 for a first message; none for others.
    pub expect: Option<(RunId, u64)>,
}

impl Entry {
    /// A message of a run's journal, after the message with that sequence.
    pub fn journal(run: RunId, expected: u64, outgoing: Outgoing) -> Self {
        Self { outgoing, expect: Some((run, expected)) }
    }

    /// A signal or public event beside.
    pub fn beside(outgoing: Outgoing) -> Self {
        Self { outgoing, expect: None }
    }
}

impl Journal {
    /// Appends all of `entries` or none, and returns their sequences in the same order.
    ///
    /// At least one entry must be of a journal, and a run may be in it once: what a run decides together is one
    /// message. `Conflict` names the first run that somebody else wrote to.
    pub async fn append_batch(&self, entries: Vec<Entry>) -> Result<Vec<u64>, AppendError> {
        check(&entries)?;
        if let [entry] = entries.as_slice()
            && let Some((run, expected)) = entry.expect
        {
            let appended = self.append_or_find(run, expected, &entry.outgoing).await?;
            return Ok(vec![appended.sequence]);
        }
        let mut retry = Retry::new();
        loop {
            // Encoded anew for each try: a copy of a thousand costs as much, and there seldom is a second one.
            let headers = entries.iter().map(headers).collect::<Result<Vec<_>, _>>()?;
            let fault = match self.publish_batch(&entries, headers).await {
                Ok(ack) => return Ok(sequences(ack.sequence, entries.len() - 1, entries.len())),
                Err(fault) => fault,
            };
            if !append::is_ambiguous(&fault) {
                return Err(AppendError::from_fault(&entries[0].outgoing, fault));
            }
            // One that was turned away because of the others under way was not even looked at.
            let crowded = fault.code() == Some(code::BATCHES_IN_FLIGHT);
            if !crowded && let Some(sequences) = self.settle_batch(&entries, &mut retry).await? {
                return Ok(sequences);
            }
            if !retry.again().await {
                return Err(AppendError::from_fault(&entries[0].outgoing, fault));
            }
        }
    }

    /// Whether the batch is stored. It is whole or not there, so its first journal entry tells for all; whether it can
    /// still be stored needs a look at each.
    async fn settle_batch(&self, entries: &[Entry], retry: &mut Retry) -> Result<Option<Vec<u64>>, AppendError> {
        for (index, entry) in entries.iter().enumerate() {
            let Some((run, expected)) = entry.expect else {
                continue;
            };
            match self.find_patiently(entry, run, expected, retry).await? {
                Whereabouts::There(sequence) => {
                    return self.whole(entries, index, sequence, retry).await.map(Some);
                }
                Whereabouts::Taken(last) => return Err(AppendError::Conflict { run, last }),
                Whereabouts::Free => {}
            }
        }
        Ok(None)
    }

    async fn find_patiently(
        &self,
        entry: &Entry,
        run: RunId,
        expected: u64,
        retry: &mut Retry,
    ) -> Result<Whereabouts, AppendError> {
        loop {
            match self.find(run, expected, &entry.outgoing.envelope.id).await {
                Ok(found) => return Ok(found),
                Err(unknown) if append::is_ambiguous(&unknown) && retry.again().await => {}
                Err(unknown) => return Err(AppendError::Unavailable(Box::new(unknown))),
            }
        }
    }

    /// The sequences of a batch of which one message was found: a batch lies in one piece. A message that was stored
    /// by itself earlier does not make the batch stored, so the other journals are asked too.
    async fn whole(
        &self,
        entries: &[Entry],
        found: usize,
        sequence: u64,
        retry: &mut Retry,
    ) -> Result<Vec<u64>, AppendError> {
        let sequences = sequences(sequence, found, entries.len());
        for (entry, wanted) in entries.iter().zip(&sequences) {
            let Some((run, expected)) = entry.expect else {
                continue;
            };
            match self.find_patiently(entry, run, expected, retry).await? {
                Whereabouts::There(at) if at == *wanted => {}
                Whereabouts::Taken(last) => return Err(AppendError::Conflict { run, last }),
                _ => {
                    let (run, _) = entries[found].expect.unwrap_or((run, expected));
                    let last = self.last(run).await.ok().flatten().map(Box::new);
                    return Err(AppendError::Conflict { run, last });
                }
            }
        }
        Ok(sequences)
    }

    /// One try. The first message's answer is waited for too: it alone says that there are too many batches.
    async fn publish_batch(&self, entries: &[Entry], headers: Vec<HeaderMap>) -> Result<Ack, Fault> {
        let _place = self.bus.batch_place().await;
        self.bus.wait_connected().await?;
        let id = Uuid::new_v4().simple().to_string();
        let limit = self.bus.max_payload();
        if let Some(entry) = entries.iter().find(|entry| entry.outgoing.body.len() > limit) {
            let bytes = entry.outgoing.body.len();
            return Err(Fault::TooLarge { bytes, limit });
        }
        let numbered = |(index, mut headers): (usize, HeaderMap)| {
            headers.insert(BATCH_ID, id.as_str());
            headers.insert(BATCH_SEQUENCE, HeaderValue::from(index + 1));
            headers
        };
        let mut numbered = headers.into_iter().enumerate().map(numbered);
        let (first, last) = (numbered.next(), entries.len() - 1);
        let opening = async {
            let (subject, body) = wire(&entries[0]);
            let answer = self.bus.ask(&subject, first, body).await?;
            // A message that is staged is acknowledged by nothing at all.
            if answer.is_empty() {
                return Ok(());
            }
            Bus::parse_ack(&answer).map(|_| ())
        };
        let rest = async {
            for (entry, headers) in entries[1..last].iter().zip(&mut numbered) {
                let (subject, body) = wire(entry);
                let sent = self.bus.client().publish_with_headers(subject, headers, body);
                sent.await.map_err(|error| Fault::Garbled(error.to_string()))?;
            }
            let mut headers = numbered.next().unwrap_or_default();
            headers.insert(BATCH_COMMIT, "1");
            let (subject, body) = wire(&entries[last]);
            let answer = self.bus.ask(&subject, Some(headers), body).await?;
            Bus::parse_ack(&answer)
        };
        // Polled in this order, so the messages leave in the order of the batch.
        let (opened, committed) = future::join(opening, rest).await;
        match (opened, committed) {
            (_, Ok(ack)) => Ok(ack),
            // The answer to the first message is the reason for that to the last.
            (Err(fault @ Fault::Api { .. }), Err(_)) | (_, Err(fault)) => Err(fault),
        }
    }
}

fn wire(entry: &Entry) -> (String, bytes::Bytes) {
    (subject_of(&entry.outgoing), entry.outgoing.body.clone())
}

fn headers(entry: &Entry) -> Result<HeaderMap, AppendError> {
    match entry.expect {
        Some((run, expected)) => append::expecting(&entry.outgoing, run, expected),
        None => append::encode(&entry.outgoing),
    }
}

/// The sequences of a batch of which the message at `index` has `sequence`.
fn sequences(sequence: u64, index: usize, messages: usize) -> Vec<u64> {
    let first = sequence.saturating_sub(index as u64);
    (0..messages as u64).map(|n| first + n).collect()
}

fn check(entries: &[Entry]) -> Result<(), AppendError> {
    if entries.len() > MAX_BATCH_MESSAGES {
        return Err(AppendError::Misuse(Misuse::TooMany { messages: entries.len() }));
    }
    let mut runs = HashSet::new();
    for entry in entries {
        let outgoing = &entry.outgoing;
        match (entry.expect, outgoing.journal_of()) {
            (Some((run, _)), Some(of_subject)) if run == of_subject => {
                if !runs.insert(run) {
                    return Err(AppendError::Misuse(Misuse::RunTwice { run }));
                }
            }
            (Some((run, _)), _) => {
                return Err(AppendError::Misuse(Misuse::OtherRun { subject: subject_of(outgoing), run }));
            }
            (None, None) if beside_journals(&outgoing.subject) => {}
            (None, _) => {
                return Err(AppendError::Misuse(Misuse::Expectation { subject: subject_of(outgoing) }));
            }
        }
    }
    if runs.is_empty() {
        return Err(AppendError::Misuse(Misuse::NoJournal));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_lies_in_one_piece() {
        assert_eq!(sequences(12, 2, 3), [10, 11, 12]);
        assert_eq!(sequences(10, 0, 2), [10, 11]);
    }
}

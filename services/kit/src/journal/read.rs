//! Reading journals: batched direct gets for a run, single gets from the stream's leader for its tail.

use schemas::{RunId, subject::filter};
use serde_json::json;

use super::{Journal, ReadError, STREAM, prefix};
use crate::bus::Fault;
use crate::message::{self, DecodeError, Stored};

/// A message as the stream's leader has it, as far as it could be read.
pub(super) struct Tail {
    pub(super) sequence: u64,
    pub(super) id: Option<String>,
    pub(super) stored: Option<Box<Stored>>,
}

impl Journal {
    /// The messages of a run from a sequence on, in order. `from_sequence` should be the run's first sequence, which
    /// whoever got its `requested` knows, and its summary too: a search from 1 walks the whole log.
    pub async fn read(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        self.read_filtered(run, &prefix(run), from_sequence).await
    }

    /// The signals for a run from a sequence on, in order.
    pub async fn signals(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        self.read_filtered(run, &filter::signals_of(run), from_sequence).await
    }

    /// The signal for a run that stands at a sequence, from the stream's leader; none when something else stands there.
    pub async fn signal(&self, run: RunId, sequence: u64) -> Result<Option<Stored>, ReadError> {
        let request = json!({ "seq": sequence, "next_by_subj": filter::signals_of(run) });
        let found = self.bus.leader_get(STREAM, &request).await;
        let Some(found) = found.map_err(|fault| unavailable(run, fault))? else {
            return Ok(None);
        };
        if found.seq != sequence {
            return Ok(None);
        }
        let stored = message::raw(&found).map_err(|source| undecodable(run, source))?;
        Ok(Some(stored))
    }

    /// The model calls of a run from a sequence on, in order.
    pub async fn calls(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        let subject = schemas::Subject::Call(run).to_string();
        self.read_filtered(run, &subject, from_sequence).await
    }

    /// The last message of a run, from the stream's leader.
    pub async fn last(&self, run: RunId) -> Result<Option<Stored>, ReadError> {
        let found = self.bus.leader_get(STREAM, &json!({ "last_by_subj": prefix(run) })).await;
        let Some(found) = found.map_err(|fault| unavailable(run, fault))? else {
            return Ok(None);
        };
        let stored = message::raw(&found).map_err(|source| undecodable(run, source))?;
        Ok(Some(stored))
    }

    /// Whether a run is in the log, readable or not.
    pub async fn exists(&self, run: RunId) -> Result<bool, ReadError> {
        let tail = self.tail(&prefix(run)).await;
        Ok(tail.map_err(|fault| unavailable(run, fault))?.is_some())
    }

    /// The first message of a run, which is its `requested`. Walks the log when the run is old.
    pub async fn first(&self, run: RunId) -> Result<Option<Stored>, ReadError> {
        let request = json!({ "seq": 1, "next_by_subj": prefix(run) });
        let found = self.bus.leader_get(STREAM, &request).await;
        let Some(found) = found.map_err(|fault| unavailable(run, fault))? else {
            return Ok(None);
        };
        let stored = message::raw(&found).map_err(|source| undecodable(run, source))?;
        Ok(Some(stored))
    }

    async fn read_filtered(&self, run: RunId, filter: &str, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        let mut all = Vec::new();
        let mut from = from_sequence;
        loop {
            let page = self.bus.page(STREAM, filter, from).await;
            let page = page.map_err(|fault| unavailable(run, fault))?;
            for message in &page.messages {
                all.push(message::direct(message).map_err(|source| undecodable(run, source))?);
            }
            if !page.more {
                return Ok(all);
            }
            from = page.last_sequence + 1;
        }
    }

    /// The last message under `filter`, from the stream's leader.
    pub(super) async fn tail(&self, filter: &str) -> Result<Option<Tail>, Fault> {
        self.position(&json!({ "last_by_subj": filter })).await
    }

    /// The first message under `filter` at or after a sequence, from the stream's leader.
    pub(super) async fn next(&self, filter: &str, from: u64) -> Result<Option<Tail>, Fault> {
        self.position(&json!({ "seq": from, "next_by_subj": filter })).await
    }

    async fn position(&self, request: &serde_json::Value) -> Result<Option<Tail>, Fault> {
        let found = self.bus.leader_get(STREAM, request).await?;
        Ok(found.map(|found| {
            let stored = message::raw(&found).ok();
            Tail {
                sequence: found.seq,
                id: stored.as_ref().map(|stored| stored.envelope.id.to_string()),
                stored: stored.map(Box::new),
            }
        }))
    }
}

fn unavailable(run: RunId, fault: Fault) -> ReadError {
    ReadError::Unavailable { run, source: Box::new(fault) }
}

fn undecodable(run: RunId, source: DecodeError) -> ReadError {
    ReadError::Decode { run, source: Box::new(source) }
}

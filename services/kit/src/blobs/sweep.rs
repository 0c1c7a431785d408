//! Removing what nothing names: blobs, and chunks whose object was never finished or was written twice.

use std::collections::{HashMap, HashSet};

use futures::TryStreamExt as _;
use jiff::Timestamp;
use serde_json::json;

use super::object::{Info, chunk_subject, chunks, meta_subject, metas};
use super::{BlobError, Blobs, STREAM};
use crate::message::RawMessage;

/// An object's description as it lies in the store.
struct Found {
    info: Info,
    stored: Timestamp,
    sequence: u64,
}

type Source = Box<dyn std::error::Error + Send + Sync>;

impl Blobs {
    /// The names of all blobs that were stored before `before`. Whoever sweeps takes from them what is named anywhere: so what is
    /// in memory is bounded by the store, and not by all that was ever named.
    pub async fn stored_before(&self, before: Timestamp) -> Result<HashSet<String>, BlobError> {
        let infos = self.infos().await.map_err(BlobError::Sweep)?;
        let old = infos.into_iter().filter(|found| found.stored < before);
        Ok(old.map(|found| found.info.name).collect())
    }

    /// Removes every blob whose name is in `unnamed` and that was stored before `before`, nothing of it remaining. Gives how
    /// many.
    ///
    /// `before` must lie some hours back, so that whoever put a blob has named it. Needs the right to purge.
    pub async fn sweep(&self, unnamed: &HashSet<String>, before: Timestamp) -> Result<u64, BlobError> {
        self.sweep_all(unnamed, before).await.map_err(BlobError::Sweep)
    }

    async fn sweep_all(&self, unnamed: &HashSet<String>, before: Timestamp) -> Result<u64, Source> {
        // Chunks are listed before names: whatever is finished meanwhile has its name by then.
        let chunked = self.chunked().await?;
        let mut nuids = HashSet::new();
        let mut removed = 0;
        for found in self.infos().await? {
            let name = &found.info.name;
            if found.stored >= before || !unnamed.contains(name) {
                nuids.insert(found.info.nuid);
                continue;
            }
            // The name first: without it nobody begins to read the chunks. One that was renewed meanwhile stays.
            self.purge(&meta_subject(name), Some(found.sequence)).await?;
            if let Some(renewed) = self.info_from_leader(name).await? {
                nuids.insert(renewed.info.nuid);
            } else {
                removed += u64::from(!found.info.deleted);
            }
        }
        for (subject, nuid) in chunked {
            if !nuids.contains(&nuid) && self.is_older(&subject, before).await? {
                self.purge(&subject, None).await?;
            }
        }
        Ok(removed)
    }

    /// Every object's description.
    async fn infos(&self) -> Result<Vec<Found>, Source> {
        let mut infos = Vec::new();
        let mut from = 0;
        loop {
            let page = self.bus.scan(STREAM, &metas(), from).await?;
            for message in page.messages {
                let info = serde_json::from_slice(&message.body)?;
                infos.push(Found { info, stored: message.time, sequence: message.sequence });
            }
            match page.next {
                Some(next) => from = next,
                None => return Ok(infos),
            }
        }
    }

    /// The subjects that hold chunks, and the objects that they are of.
    async fn chunked(&self) -> Result<HashMap<String, String>, Source> {
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await?;
        let listed = stream.info_with_subjects(chunks()).await?;
        let prefix = chunk_subject("");
        let subjects: Vec<(String, usize)> = listed.try_collect().await?;
        Ok(subjects
            .into_iter()
            .filter_map(|(subject, _)| {
                let nuid = subject.strip_prefix(&prefix)?.to_owned();
                Some((subject, nuid))
            })
            .collect())
    }

    /// Whether the last chunk was stored before then: the object is not being written.
    async fn is_older(&self, subject: &str, before: Timestamp) -> Result<bool, Source> {
        let request = json!({ "last_by_subj": subject });
        let last = self.bus.leader_get(STREAM, &request).await?;
        let opaque = last.as_ref().and_then(RawMessage::opaque);
        Ok(opaque.is_some_and(|(stored, _)| stored < before))
    }

    /// Removes what is on a subject, up to a sequence when one is given.
    async fn purge(&self, subject: &str, up_to: Option<u64>) -> Result<(), Source> {
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await?;
        let purge = stream.purge().filter(subject);
        match up_to {
            Some(sequence) => purge.sequence(sequence + 1).await?,
            None => purge.await?,
        };
        Ok(())
    }
}

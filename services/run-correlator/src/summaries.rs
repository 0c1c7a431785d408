//! KV `runs`: the summary of every run, by its id. A projection that this service alone writes.

use std::collections::BTreeMap;

use async_nats::jetstream::context::{GetStreamError, KeyValueError};
use async_nats::jetstream::kv::{self, UpdateError};
use async_nats::jetstream::stream::InfoError;
use futures::TryStreamExt as _;
use kit::bus::Bus;
use kit::message::Verbatim;
use kit::scan::ScanError;
use schemas::summary::{RunState, RunSummary};
use schemas::{AgentName, RunId};

/// The stream under the bucket.
pub(crate) const STREAM: &str = "KV_runs";

/// The bucket.
pub(crate) const BUCKET: &str = "runs";

/// Subjects of all its keys.
const ALL: &str = "$KV.runs.>";

/// How many candidates an ambiguous name lists.
const MAX_CANDIDATES: usize = 10;

/// Which runs to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Only runs of this agent.
    pub agent: Option<AgentName>,
    /// Only runs of the tree with this root.
    pub root: Option<RunId>,
    /// Only runs without a parent.
    pub roots_only: bool,
    /// Only runs that have, or have not, ended.
    pub ended: Option<bool>,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Filter {
    /// The newest runs of everybody.
    pub const fn newest(limit: usize) -> Self {
        Self { agent: None, root: None, roots_only: false, ended: None, limit }
    }

    /// Whether `summary` is one of them.
    pub fn takes(&self, summary: &RunSummary) -> bool {
        let ended = summary.state == RunState::Ended;
        self.agent.as_ref().is_none_or(|agent| *agent == summary.agent)
            && self.root.is_none_or(|root| root == summary.root_run_id)
            && !(self.roots_only && summary.parent_run_id.is_some())
            && self.ended.is_none_or(|wanted| wanted == ended)
    }
}

/// Summaries can not be listed.
#[derive(Debug, thiserror::Error)]
#[error("the summaries of runs can not be listed")]
pub struct ListError(#[from] ScanError);

/// A text does not name one run.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// It can not be part of a run's id.
    #[error("{0:?} is no part of a run id: those have digits, a to f and hyphens")]
    NoId(String),
    /// No run is named so.
    #[error("no run's id begins or ends with {0}")]
    Unknown(String),
    /// Several are.
    #[error("{text} can be {} runs: {}", if *.more { "more than ten" } else { "several" }, list_of(.candidates))]
    Ambiguous {
        /// What was asked for.
        text: String,
        /// Some of them.
        candidates: Vec<RunId>,
        /// Whether there are even more.
        more: bool,
    },
    /// The bucket is not to be had.
    #[error("the summaries of runs are not to be had")]
    Bucket(#[source] GetStreamError),
    /// The bucket can not be searched.
    #[error("the summaries of runs can not be searched")]
    Search(#[source] InfoError),
}

fn list_of(runs: &[RunId]) -> String {
    let runs: Vec<_> = runs.iter().map(ToString::to_string).collect();
    runs.join(", ")
}

/// What the bucket holds for a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    /// None when there is none, or none that this build can read.
    pub(crate) summary: Option<RunSummary>,
    /// What a write has to say that it replaces; 0 for nothing.
    pub(crate) revision: u64,
}

/// The summary of one run, when there is one that this build can read.
pub(crate) async fn get(bus: &Bus, run: RunId) -> Result<Option<RunSummary>, ScanError> {
    Ok(get_kept(bus, run).await?.summary)
}

pub(crate) async fn get_kept(bus: &Bus, run: RunId) -> Result<Kept, ScanError> {
    let page = bus.scan(STREAM, &format!("$KV.runs.{run}"), 1).await?;
    let kept = page.messages.last().map(|message| Kept { summary: read(message), revision: message.sequence });
    Ok(kept.unwrap_or_default())
}

/// The bucket, to write to.
pub(crate) async fn store(bus: &Bus) -> Result<kv::Store, KeyValueError> {
    bus.jetstream().get_key_value(BUCKET).await
}

/// Writes a summary over the revision `over`, and no other.
pub(crate) async fn put(store: &kv::Store, summary: &RunSummary, over: u64) -> Result<u64, UpdateError> {
    // It has no map with other keys than strings and no failing serializer.
    let value = serde_json::to_vec(summary).unwrap_or_default();
    let key = summary.run_id.to_string();
    store.update(key, value.into(), over).await
}

/// The runs that `filter` takes, newest first.
pub async fn list(bus: &Bus, filter: &Filter) -> Result<Vec<RunSummary>, ListError> {
    let mut newest = BTreeMap::new();
    let mut from = Some(1);
    while let Some(next) = from {
        let page = bus.scan(STREAM, ALL, next).await?;
        for summary in page.messages.iter().filter_map(read) {
            if filter.takes(&summary) {
                newest.insert((summary.requested_at, summary.run_id), summary);
            }
            if newest.len() > filter.limit {
                newest.pop_first();
            }
        }
        from = page.next;
    }
    Ok(newest.into_values().rev().collect())
}

/// The run that `text` names: a whole id, or the beginning or end of exactly one that has a summary.
pub async fn resolve(bus: &Bus, text: &str) -> Result<RunId, ResolveError> {
    let text = text.trim().to_lowercase();
    if let Ok(run) = text.parse() {
        return Ok(run);
    }
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-') {
        return Err(ResolveError::NoId(text));
    }
    let stream = bus.jetstream().get_stream(STREAM).await;
    let stream = stream.map_err(ResolveError::Bucket)?;
    let keys = stream.info_with_subjects(ALL).await;
    let mut keys = keys.map_err(ResolveError::Search)?;
    let mut candidates = Vec::new();
    while let Some((subject, _)) = keys.try_next().await.map_err(ResolveError::Search)? {
        let run = subject.rsplit('.').next().and_then(|key| key.parse().ok());
        let Some(run) = run.filter(|run| is_named(*run, &text)) else {
            continue;
        };
        if candidates.len() == MAX_CANDIDATES {
            return Err(ResolveError::Ambiguous { text, candidates, more: true });
        }
        candidates.push(run);
    }
    match candidates.as_slice() {
        [] => Err(ResolveError::Unknown(text)),
        [run] => Ok(*run),
        _ => {
            candidates.sort();
            Err(ResolveError::Ambiguous { text, candidates, more: false })
        }
    }
}

/// People see the end of an id; those who copy one begin at its beginning.
fn is_named(run: RunId, text: &str) -> bool {
    let (id, plain) = (run.to_string(), run.as_uuid().simple().to_string());
    [id, plain].iter().any(|id| id.starts_with(text) || id.ends_with(text))
}

/// A summary as it is kept; none for a key that was removed, or that another version wrote.
fn read(kept: &Verbatim) -> Option<RunSummary> {
    if kept.is_removal() {
        return None;
    }
    let read = serde_json::from_slice(&kept.body);
    read.inspect_err(|error| tracing::warn!(subject = kept.subject, %error, "a summary can not be read")).ok()
}

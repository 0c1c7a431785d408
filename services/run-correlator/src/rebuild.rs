//! KV `runs` made anew from the log.

use std::collections::HashMap;

use kit::bus::Bus;
use kit::class::chain;
use kit::journal::STREAM;
use kit::scan::ScanError;
use schemas::subject::filter;

use crate::project::{Message, ProjectError, Projector};
use crate::summaries;

/// How often a page is folded again of which a summary could not be written.
const ATTEMPTS: u32 = 5;

/// Pages of the log that are folded before their runs are written: a run that lies in two pages is then mostly written once.
/// A page has a few megabytes at most.
const PAGES_AT_ONCE: usize = 8;

/// The summaries could not be made anew. Those that are not there yet come with the next try.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The bucket is not to be had.
    #[error("the bucket of summaries is not to be had")]
    Bucket(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It can not be emptied.
    #[error("the bucket of summaries can not be emptied")]
    Empty(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log can not be read.
    #[error("the log can not be read")]
    Log(#[from] ScanError),
    /// A summary can not be made.
    #[error("a summary can not be made")]
    Project(#[from] ProjectError),
}

/// What was made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Runs that have a summary now.
    pub runs: u64,
}

/// Empties KV `runs` and folds the log into it, archives included. The service may go on meanwhile: whichever of the two
/// writes a summary later folds it into that of the other. Needs user `nightcrew` or `run-correlator`.
pub async fn rebuild(bus: &Bus) -> Result<Rebuilt, RebuildError> {
    let stream = bus.jetstream().get_stream_no_info(summaries::STREAM).await;
    let stream = stream.map_err(|error| RebuildError::Bucket(Box::new(error)))?;
    let emptied = stream.purge().await;
    emptied.map_err(|error| RebuildError::Empty(Box::new(error)))?;
    fill(bus).await
}

/// Makes the summaries anew when there are none although there are runs: somebody deleted the bucket.
pub(crate) async fn fill_if_empty(bus: &Bus) -> Result<(), RebuildError> {
    if kept(bus).await? > 0 {
        return Ok(());
    }
    if bus.scan(STREAM, filter::RUNS, 1).await?.messages.is_empty() {
        return Ok(());
    }
    tracing::warn!("there are no summaries of the runs in the log: making them anew");
    let rebuilt = fill(bus).await?;
    tracing::info!(runs = rebuilt.runs, "made the summaries of runs anew");
    Ok(())
}

async fn fill(bus: &Bus) -> Result<Rebuilt, RebuildError> {
    let store = summaries::store(bus).await;
    let store = store.map_err(|error| RebuildError::Bucket(Box::new(error)))?;
    let mut projector = Projector::new(bus.clone(), store);
    let mut from = Some(1);
    while from.is_some() {
        let mut messages: HashMap<_, Vec<_>> = HashMap::new();
        for _ in 0..PAGES_AT_ONCE {
            let Some(next) = from else { break };
            let page = bus.scan(STREAM, filter::RUNS, next).await?;
            for message in &page.messages {
                // One that is no message of ours belongs to no run that has a summary.
                if let Ok(stored) = message.stored()
                    && let Some(run) = stored.run_id()
                {
                    messages.entry(run).or_default().push(Message::of(&stored));
                }
            }
            from = page.next;
        }
        take(&mut projector, messages).await?;
    }
    Ok(Rebuilt { runs: kept(bus).await? })
}

async fn take(
    projector: &mut Projector,
    mut messages: HashMap<schemas::RunId, Vec<Message>>,
) -> Result<(), ProjectError> {
    for attempt in 1.. {
        let failed = projector.take(messages.clone()).await;
        messages.retain(|run, _| failed.contains_key(run));
        let Some((_, error)) = failed.into_iter().next() else {
            break;
        };
        if attempt == ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(error = chain(&error), "a summary is made again");
    }
    Ok(())
}

/// How many summaries there are.
async fn kept(bus: &Bus) -> Result<u64, RebuildError> {
    let stream = bus.jetstream().get_stream(summaries::STREAM).await;
    let stream = stream.map_err(|error| RebuildError::Bucket(Box::new(error)))?;
    Ok(stream.cached_info().state.messages)
}

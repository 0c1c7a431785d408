//! The ticks of runs that wait, asserted again.
//!
//! Who releases a run schedules the tick of its deadline first. That tick is in a stream of its own, which may be lost, and
//! one that fires while no runner is there expires after a day. Then nobody would wake a run whose child never ends. So
//! every runner looks at its start, and now and then, for runs that wait without a tick, by the summaries, and schedules it
//! anew by what the run's last message says. A tick too many, such as of a run whose summary lags, wakes nobody.

use std::{collections::HashSet, sync::Arc, time::Duration};

use futures::StreamExt as _;
use jiff::Timestamp;
use kit::{
    bus::Bus,
    class::{Classified, ErrorClass, chain},
    due::{self, DueError},
    journal::{Journal, ReadError},
    message::DecodeError,
    scan::ScanError,
};
use schemas::{
    Decision, RunEvent, RunId,
    event::WaitReason,
    summary::{RunState, RunSummary},
};
use tokio_util::sync::CancellationToken;

use crate::{runtime::Runtime, wake::Waker};

/// Between two looks. What a look is for is rare and a deadline is half an hour by default, while a look reads all summaries.
const EVERY: Duration = Duration::from_hours(1);

/// First pause before a look that could not be done is done again, doubled each time up to [`EVERY`].
const RETRY: Duration = Duration::from_secs(5);

/// Runs whose ticks are asserted at once. Each is a read of the log and a write.
const AT_ONCE: usize = 32;

/// The summaries of runs, and the subjects of all of them.
const SUMMARIES: (&str, &str) = ("KV_runs", "$KV.runs.>");

/// The ticks could not be asserted.
#[derive(Debug, thiserror::Error)]
enum TickError {
    /// The schedules or the summaries can not be read.
    #[error("the runs that wait can not be listed")]
    List(#[from] ScanError),
    /// The run can not be looked at.
    #[error("a run that waits can not be read")]
    Read(#[from] ReadError),
    /// Its last message is not what its headers say.
    #[error("the wait of a run can not be read")]
    Decode(#[from] DecodeError),
    /// The tick could not be scheduled.
    #[error("the tick of a run that waits can not be scheduled")]
    Schedule(#[from] DueError),
}

impl TickError {
    fn may_pass(&self) -> bool {
        match self {
            Self::List(_) => true,
            Self::Read(error) => error.class() == ErrorClass::Transient,
            Self::Schedule(error) => error.class() == ErrorClass::Transient,
            Self::Decode(_) => false,
        }
    }
}

/// Asserts the ticks of runs that wait, until shutdown.
///
/// Consumes: KV `runs`, the schedules, the last messages of runs that wait without a tick. Emits: their ticks. Idempotency:
/// a run has one tick, a later one replaces it. On failure: tried again.
pub(crate) async fn keep(waker: Waker, runtime: Arc<Runtime>, shutdown: CancellationToken) {
    let mut retry = RETRY;
    loop {
        let look = async {
            let looked = assert_all(&waker, &runtime.bus, &runtime.journal).await;
            let pause = if looked { EVERY } else { retry };
            retry = if looked { RETRY } else { EVERY.min(2 * retry) };
            tokio::time::sleep(pause).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = look => {}
        }
    }
}

/// Whether everything was done that can be.
async fn assert_all(waker: &Waker, bus: &Bus, journal: &Journal) -> bool {
    let runs = match without_tick(bus).await {
        Ok(runs) => runs,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the ticks of runs that wait can not be looked at now");
            return false;
        }
    };
    let asserts = runs.into_iter().map(|run| async move { (run, assert(bus, journal, run).await) });
    let mut asserted = futures::stream::iter(asserts).buffer_unordered(AT_ONCE);
    let mut all = true;
    while let Some((run, asserted)) = asserted.next().await {
        match asserted {
            Ok(Some(at)) => {
                tracing::info!(%run, %at, "a run waits without a tick: it has one again");
                // Whoever looks after those that were killed goes by the ticks, and missed this one.
                if let Err(error) = waker.end_if_killed(run).await {
                    tracing::warn!(%run, error = %chain(&error), "a run that waits is not ended now");
                }
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(%run, error = %chain(&error), "the tick of a run that waits is not asserted");
                all &= !error.may_pass();
            }
        }
    }
    all
}

/// The runs that wait by their summaries, and have no tick ahead.
async fn without_tick(bus: &Bus) -> Result<Vec<RunId>, ScanError> {
    let ahead: HashSet<RunId> = due::scheduled(bus).await?.into_iter().collect();
    let (stream, subjects) = SUMMARIES;
    let mut waiting = Vec::new();
    let mut from = Some(1);
    while let Some(next) = from {
        let page = bus.scan(stream, subjects, next).await?;
        // What was removed, or another version wrote, tells nothing.
        let summaries = page.messages.iter().filter_map(|kept| serde_json::from_slice::<RunSummary>(&kept.body).ok());
        let waits = summaries.filter(|summary| is_released(summary.state)).map(|summary| summary.run_id);
        waiting.extend(waits.filter(|run| !ahead.contains(run)));
        from = page.next;
    }
    Ok(waiting)
}

/// Whether nobody holds a run that stands so, nor keeps its wake, as of one that is paused.
const fn is_released(state: RunState) -> bool {
    matches!(state, RunState::Waiting(WaitReason::Child | WaitReason::Approval))
}

/// Schedules the tick of a run that waits still; gives its time.
async fn assert(bus: &Bus, journal: &Journal, run: RunId) -> Result<Option<Timestamp>, TickError> {
    let Some(last) = journal.last(run).await?.filter(|last| last.has("waiting")) else {
        return Ok(None);
    };
    let events = last.decode::<Decision>()?.events;
    let until = events.iter().find_map(|event| match event {
        RunEvent::Waiting(waiting) => waiting.until,
        _ => None,
    });
    if let Some(at) = until {
        due::schedule(bus, run, at).await?;
    }
    Ok(until)
}

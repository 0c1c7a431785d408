//! Kills for runs that wait.
//!
//! Whoever holds a run hears of a kill and ends it at once. A run that waits is held by nobody, and its child may take an
//! hour. But it has a tick ahead, for its deadline: so the schedules name the runs that wait, and whoever hears of a kill
//! looks after them. One whose tick was lost is looked at when it gets another. Several runners do so at once; the log lets one of them through.

use std::{sync::Arc, time::Duration};

use futures::StreamExt as _;
use kit::{
    class::{Classified as _, ErrorClass, chain},
    due,
};
use tokio_util::sync::CancellationToken;

use crate::{runtime::Runtime, wake::Waker};

/// Runs that are looked at, at once. Each is a read or two of the log.
const AT_ONCE: usize = 32;

/// Pause before the schedules are read again that could not be.
const RETRY: Duration = Duration::from_secs(1);

/// Ends, until shutdown, what waits and was killed.
///
/// Consumes: the fold of the controls, and the schedules whenever it changes and has a kill in it; so also at the start,
/// for a kill whose runner was lost. Emits: the end of these runs. Idempotency and ordering: the journal's.
pub(crate) async fn end_killed(waker: Waker, runtime: Arc<Runtime>, shutdown: CancellationToken) {
    let mut controls = runtime.controls.clone();
    loop {
        let kills = controls.borrow_and_update().kills();
        let looked = if kills { look(&waker, &runtime).await } else { true };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(RETRY), if !looked => {}
            changed = controls.changed() => if changed.is_err() { return },
        }
    }
}

/// Looks at all runs that may wait. False when that could not be done.
async fn look(waker: &Waker, runtime: &Runtime) -> bool {
    let runs = match due::scheduled(&runtime.bus).await {
        Ok(runs) => runs,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "the runs that wait can not be listed now");
            return false;
        }
    };
    let ends = runs.into_iter().map(|run| async move {
        let ended = waker.end_if_killed(run).await;
        ended.inspect_err(|error| tracing::warn!(%run, error = %chain(error), "a run that waits is not ended now"))
    });
    let mut ended = futures::stream::iter(ends).buffer_unordered(AT_ONCE);
    let mut all = true;
    while let Some(ended) = ended.next().await {
        // What is broken stays so.
        all &= !ended.is_err_and(|error| error.class() == ErrorClass::Transient);
    }
    all
}

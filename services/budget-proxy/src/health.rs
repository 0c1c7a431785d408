//! What is told of the proxy's health: `bus` and `epochs`. The check `issuer` is set where its keys are read. Kept replies that
//! are crowded out are told in the log alone: a proxy is as good as before, and must not be taken out of service for it.

use std::time::Duration;

use kit::{
    bus::{Bus, Connection},
    class::chain,
    epochs::LiveEpochs,
    service::{Check, Context},
};
use schemas::RunId;

use crate::replies::Replies;

/// How often it is looked whether epochs could be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// From here on the bucket of kept replies counts as full: it forgets the oldest for the newest.
const FULL_PERCENT: u64 = 90;

/// How often it is looked how full it is. Replies are kept for minutes.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// Keeps both checks as things are, until the end.
pub fn watch(bus: &Bus, epochs: &LiveEpochs, context: &Context) {
    context.health.set("bus", Check::Starting);
    context.health.set("epochs", Check::Starting);
    context.spawn_minor("bus", watch_bus(bus.clone(), context.clone()));
    context.spawn_minor("epochs", watch_epochs(epochs.clone(), context.clone()));
}

async fn watch_bus(bus: Bus, context: Context) {
    let mut connection = bus.connection();
    loop {
        let check = match *connection.borrow_and_update() {
            Connection::Up { .. } => Check::Green,
            Connection::Down { .. } => Check::Red("the bus can not be reached".to_owned()),
        };
        context.health.set("bus", check);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            changed = connection.changed() => if changed.is_err() { return },
        }
    }
}

/// Tells once whenever the bucket of kept replies becomes full, until the end.
pub async fn watch_replies(replies: Replies, context: Context) {
    let mut told = false;
    loop {
        match replies.percent().await {
            Ok(percent) if percent >= FULL_PERCENT => {
                if !told {
                    tracing::warn!(
                        percent,
                        "the oldest kept replies go before their time: their repeats would be paid again"
                    );
                }
                told = true;
            }
            Ok(_) => told = false,
            Err(error) => tracing::debug!(error = %chain(&error), "kept replies are not measured"),
        }
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

/// Asks for a run that does not exist: that there is none is an answer, too.
async fn watch_epochs(epochs: LiveEpochs, context: Context) {
    let nobody = RunId::from_uuid(uuid::Uuid::nil());
    loop {
        let check = match epochs.check(nobody, 0, Duration::ZERO).await {
            Ok(()) => Check::Green,
            Err(error) => Check::Red(chain(&error)),
        };
        context.health.set("epochs", check);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

//! What is told of the proxy's health: `bus` and `epochs`. The check `issuer` is set where its keys are read.

use std::time::Duration;

use kit::{
    bus::{Bus, Connection},
    class::chain,
    epochs::LiveEpochs,
    service::{Check, Context},
};
use schemas::RunId;

/// How often it is looked whether epochs could be told.
const LOOK_EVERY: Duration = Duration::from_secs(1);

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

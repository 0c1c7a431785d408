//! The commands that talk to a crew. Each is a function of its options, the crew and standard output; what it prints with
//! `--json` is a type of `schemas::cli`.

pub(crate) mod agents;
pub(crate) mod cancel;
pub(crate) mod completions;
pub(crate) mod control;
pub(crate) mod dead;
pub(crate) mod doctor;
pub(crate) mod init;
pub(crate) mod rebuild;
pub(crate) mod retry;
pub(crate) mod runs;
pub(crate) mod say;
pub(crate) mod state;
pub(crate) mod timeline;

mod show;

use std::time::Duration;

use kit::{bus::Bus, message::Outgoing, requester::Requester, service::Context};
use schemas::RunId;

use crate::connected::Connected;

/// How long what is left of a request may take once it is in the log.
const DRAIN: Duration = Duration::from_secs(1);

/// The run that a person names.
pub(crate) async fn run_of(bus: &Bus, text: &str) -> anyhow::Result<RunId> {
    use run_correlator::ResolveError;
    run_correlator::resolve(bus, text).await.map_err(|error| match error {
        ResolveError::NoId(_) => crate::connected::Usage(error.to_string()).into(),
        error => error.into(),
    })
}

/// Requests a run, by the one gate that refuses runs when the log is nearly full.
pub(crate) async fn request(crew: &Connected, outgoing: Outgoing) -> anyhow::Result<()> {
    let process = Context::new("nightcrew");
    let requested = Requester::start(&crew.bus, &process).request(outgoing).await;
    process.begin_shutdown();
    process.drain(DRAIN).await;
    requested?;
    Ok(())
}

//! budget-proxy: the only way to a model. It holds the providers' keys, takes only bearers that `issuer` minted and
//! whose epoch is live, and counts usage on the wire.
//!
//! In: HTTP, `POST /v1/messages` and `POST /v1/chat/completions`, and `GET /healthz`, `/readyz`. Out: the upstream's
//! answer as it came, and `swarm.call.<run_id>` once a call has ended. It must never forward a call that it can not
//! attribute to a live epoch, and never pass anything of the client's credentials on, nor anything of its own back.
//!
//! A call runs as a [`flight`] of its own, apart from whoever asked for it: a caller that is killed does not end the
//! call, and the repeat of its idempotency key joins the flight, or gets the kept reply once it has landed. So a call
//! is paid once unless this process itself is lost in the middle. Then its repeat is paid again, and what was paid before is on
//! record only when the process was lost after the record was sent.
//!
//! The path of a call: [`gate`] says who asks, [`intake`] takes the body in, [`request`] reads it, [`upstream`] builds
//! what is sent, [`gate`] says that the epoch is live, [`flight`] makes the call, [`answer`] reads what comes, [`meter`]
//! counts it, [`tape`] lets everybody hear it, [`bill`] writes its record. Limits are the next step; their place is
//! between the gate and the flight's start, and their metering beside [`meter`].

pub mod answer;
pub mod bill;
pub mod board;
pub mod config;
pub mod failure;
pub mod flight;
pub mod gate;
pub mod handle;
pub mod health;
pub mod intake;
pub mod keys;
pub mod meter;
pub mod probe;
pub mod records;
pub mod redact;
pub mod refusal;
pub mod replies;
pub mod request;
pub mod tape;
pub mod upstream;

pub use config::{Config, Patience};

use std::sync::{Arc, Mutex, PoisonError};

use kit::{bus::Bus, crew::Crew, epochs::LiveEpochs, http, service::Context};
use tokio::net::TcpListener;

use crate::{
    flight::Flights, gate::Gate, handle::Proxy, intake::Intake, keys::Keys, probe::Probe, replies::Replies,
    upstream::Upstreams,
};

/// What the service needs from its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The bus, as user `budget-proxy`.
    pub bus: Bus,
    /// The crew's files: routes and prices.
    pub crew: Arc<Crew>,
    /// Where the proxy listens; bound before, so that others know its address.
    pub listener: Arc<Mutex<Option<TcpListener>>>,
}

/// Why the proxy could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The HTTP client could not be made.
    #[error("the client of the providers can not be made")]
    Client(#[source] reqwest::Error),
    /// The kept replies can not be had.
    #[error("the kept replies can not be had")]
    Replies(#[source] replies::ReplyError),
    /// The live epochs can not be folded.
    #[error("the live epochs can not be folded")]
    Epochs(#[source] kit::epochs::StartError),
    /// No listener was given.
    #[error("the proxy was started without a listener")]
    NoListener,
}

/// Runs the service until `context` ends.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), StartError> {
    run_with(Patience::SHIPPED, Probe::default(), config, deps, context).await
}

/// As [`run`], with a patience of its own and a probe.
pub async fn run_with(
    patience: Patience,
    probe: Probe,
    config: Config,
    deps: Deps,
    context: Context,
) -> Result<(), StartError> {
    let Deps { bus, crew, listener } = deps;
    let listener = listener.lock().unwrap_or_else(PoisonError::into_inner).take();
    let listener = listener.ok_or(StartError::NoListener)?;
    let upstreams = Upstreams::new(Arc::clone(&crew), config.rehearsal_url);
    let upstreams = upstreams.map_err(StartError::Client)?;
    let epochs = LiveEpochs::start(&bus, &context).await.map_err(StartError::Epochs)?;
    health::watch(&bus, &epochs, &context);
    let replies = Replies::open(&bus, patience.bus).await.map_err(StartError::Replies)?;
    context.spawn_minor("kept replies", health::watch_replies(replies.clone(), context.clone()));
    let Some(keys) = Keys::start(&bus, &context).await else {
        return Ok(());
    };
    let gate = Gate::new(keys, epochs.clone(), patience.epoch, patience.bus);
    let flights = Flights::new(&bus, crew, epochs, replies, patience, probe, context.clone());
    let proxy = Arc::new(Proxy { gate, intake: Intake::new(&patience), upstreams, flights });
    let router = handle::router(proxy).merge(kit::service::router(context.health.clone()));
    context.ready();
    http::serve(listener, router, context.shutdown.clone()).await;
    Ok(())
}

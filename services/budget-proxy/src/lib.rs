//! budget-proxy: the only way to a model. It holds the providers' keys, takes only bearers that `issuer` minted and
//! whose epoch is live, and counts usage on the wire.
//!
//! In: HTTP, `POST /v1/messages` and `POST /v1/chat/completions`. Out: the upstream's answer as it came, and
//! `swarm.call.<run_id>` once a call has ended. It must never forward a call that it can not attribute to a live epoch,
//! and never pass anything of the client's credentials on.
//!
//! A call runs as a [`flight`] of its own, apart from whoever asked for it: a caller that is killed does not end the
//! call, and the repeat of its idempotency key joins the flight, or gets the kept reply once it has landed. So a call
//! is paid once unless this process itself is lost in the middle.
//!
//! Limits are the next step; their place is between [`gate`] and the flight's start.

pub mod config;
pub mod flight;
pub mod gate;
pub mod handle;
pub mod meter;
pub mod refusal;
pub mod replies;
pub mod upstream;

pub use config::Config;

use std::sync::Arc;

use kit::{bus::Bus, crew::Crew, epochs::LiveEpochs, http, service::Context};

use crate::{flight::Flights, gate::Gate, handle::Proxy, replies::Replies, upstream::Upstreams};

/// What the service needs from its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The bus, as user `budget-proxy`.
    pub bus: Bus,
    /// The crew's files: routes and prices.
    pub crew: Arc<Crew>,
    /// Where the proxy listens; bound before, so that others know its address.
    pub listener: Arc<std::sync::Mutex<Option<tokio::net::TcpListener>>>,
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
    /// The issuer's keys can not be had.
    #[error("the issuer's keys can not be had")]
    Keys(#[source] gate::KeysError),
    /// No listener was given.
    #[error("the proxy was started without a listener")]
    NoListener,
}

/// Runs the service until `context` ends.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), StartError> {
    let listener = deps.listener.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    let listener = listener.ok_or(StartError::NoListener)?;
    let epochs = LiveEpochs::start(&deps.bus, &context).await.map_err(StartError::Epochs)?;
    let replies = Replies::open(&deps.bus).await.map_err(StartError::Replies)?;
    let gate = Gate::new(deps.bus.clone(), epochs).await.map_err(StartError::Keys)?;
    let upstreams = Upstreams::new(Arc::clone(&deps.crew), config.rehearsal_url).map_err(StartError::Client)?;
    let flights = Flights::new(deps.bus, deps.crew, replies, context.clone());
    let proxy = Arc::new(Proxy { gate, upstreams, flights });
    context.ready();
    http::serve(listener, handle::router(proxy), context.shutdown.clone()).await;
    Ok(())
}

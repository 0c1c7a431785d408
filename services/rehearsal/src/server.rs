//! The server: what is shared by its requests, how it starts and how it ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post};
use secrecy::SecretString;
use tokio::sync::Semaphore;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::gates::{Gates, UnknownGate};
use crate::player::Waits;
use crate::scenario::{Playbook, Problems, Scenario, Uses};
use crate::seen::{Requests, Seen};
use crate::{admin, handle};

/// Requests that are answered at once: several times the thousand of the largest bench. More are told `overloaded`.
const MAX_IN_FLIGHT: usize = 8_192;

/// How long answers on their way may take to end when the server ends. It is a rehearsal: nobody loses anything.
const DRAIN_GRACE: Duration = Duration::from_secs(1);

/// What all requests of a server share.
#[derive(Debug)]
pub(crate) struct App {
    pub(crate) playbook: Playbook,
    pub(crate) uses: Mutex<Uses>,
    pub(crate) seen: Arc<Seen>,
    pub(crate) waits: Waits,
    pub(crate) in_flight: Arc<Semaphore>,
    pub(crate) require_key: Option<SecretString>,
    pub(crate) max_request_bytes: usize,
}

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Scenario files have mistakes.
    #[error("the rehearsal scenarios have mistakes")]
    Scenarios(#[source] Problems),
    /// The address can not be listened at.
    #[error("the rehearsal model can not listen")]
    Listen(#[source] kit::http::BindError),
}

/// A running server. Dropping it ends it without waiting.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    app: Arc<App>,
    tasks: TaskTracker,
    close_when_dropped: DropGuard,
}

/// Runs a server until `shutdown`.
///
/// # Errors
/// When it can not start. It does not fail later.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), StartError> {
    let server = Server::configured(config).await?;
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = server.tasks.wait() => tracing::error!("the rehearsal model stopped listening"),
    }
    server.stop().await;
    Ok(())
}

impl Server {
    /// Starts a server that plays these scenarios to whoever asks.
    ///
    /// # Errors
    /// When the address can not be listened at.
    pub async fn start(scenarios: Vec<Scenario>, addr: SocketAddr) -> Result<Self, StartError> {
        Self::start_with(scenarios, Config::at(addr)).await
    }

    /// Starts a server with the scenarios that `config` names.
    ///
    /// # Errors
    /// When scenarios have mistakes, or the address can not be listened at.
    pub async fn configured(config: Config) -> Result<Self, StartError> {
        let scenarios = if config.scenarios.is_empty() {
            Scenario::embedded_default().map(|scenario| vec![scenario])
        } else {
            Scenario::read_all(&config.scenarios)
        };
        Self::start_with(scenarios.map_err(StartError::Scenarios)?, config).await
    }

    /// Starts a server that plays `scenarios`, whatever files `config` names.
    ///
    /// # Errors
    /// When the address can not be listened at.
    pub async fn start_with(scenarios: Vec<Scenario>, config: Config) -> Result<Self, StartError> {
        let (listener, addr) = kit::http::bind(config.listen).await.map_err(StartError::Listen)?;
        let names: Vec<String> = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
        let app = Arc::new(App::new(scenarios, config));
        let closing = app.waits.closing.clone();
        let tasks = TaskTracker::new();
        // It ends with `closing`: `stop` waits for it, a server that is dropped leaves it to end alone.
        tasks.spawn(kit::http::serve_with_grace(listener, router(app.clone()), closing.clone(), DRAIN_GRACE));
        tasks.close();
        tracing::info!(%addr, scenarios = ?names, "rehearsal model: no answer of this server comes from a real model");
        Ok(Self { addr, app, tasks, close_when_dropped: closing.drop_guard() })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The base URL: what a provider's base URL is replaced with.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The requests seen with ids above `after`.
    pub fn requests(&self, after: u64) -> Requests {
        self.app.seen.since(after)
    }

    /// Opens a gate.
    ///
    /// # Errors
    /// When no scenario has it.
    pub fn open_gate(&self, name: &str) -> Result<(), UnknownGate> {
        self.app.waits.gates.set(name, true)
    }

    /// Stops listening, lets go what is held, gives the rest a moment, ends.
    pub async fn stop(self) {
        drop(self.close_when_dropped);
        self.tasks.wait().await;
    }
}

impl App {
    fn new(scenarios: Vec<Scenario>, config: Config) -> Self {
        let playbook = Playbook::new(scenarios);
        let gates = Arc::new(Gates::new(playbook.gates()));
        let waits = Waits { gates, closing: CancellationToken::new() };
        Self {
            playbook,
            uses: Mutex::default(),
            seen: Arc::default(),
            waits,
            in_flight: Arc::new(Semaphore::new(MAX_IN_FLIGHT)),
            require_key: config.require_key,
            max_request_bytes: config.max_request_bytes,
        }
    }
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/v1/messages", post(handle::messages))
        .route("/v1/messages/count_tokens", post(handle::count_tokens))
        .route("/v1/chat/completions", post(handle::chat_completions))
        .route("/v1/models", get(handle::models))
        .route("/v1/models/{*id}", get(handle::model))
        .route("/rehearsal/requests", get(admin::requests))
        .route("/rehearsal/gates", get(admin::gates))
        .route("/rehearsal/gates/{name}/open", post(admin::open))
        .route("/rehearsal/gates/{name}/close", post(admin::close))
        .route("/rehearsal/reset", post(admin::reset))
        .route("/rehearsal/health", get(admin::health))
        .fallback(handle::not_found)
        .with_state(app)
}

//! The endpoints that no provider has, for tests: what was seen, who waits, what goes on.
//!
//! They ask for no key. The server is for loopback.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use serde::Deserialize;

use crate::gates::{GateView, UnknownGate};
use crate::scenario::Uses;
use crate::seen::Requests;
use crate::server::App;

/// What `GET /rehearsal/requests` may be asked.
#[derive(Debug, Deserialize)]
pub(crate) struct Since {
    /// Only requests with ids above this one.
    #[serde(default)]
    after: u64,
}

pub(crate) async fn requests(State(app): State<Arc<App>>, Query(since): Query<Since>) -> Json<Requests> {
    Json(app.seen.since(since.after))
}

pub(crate) async fn gates(State(app): State<Arc<App>>) -> Json<Vec<GateView>> {
    Json(app.waits.gates.view())
}

pub(crate) async fn open(app: State<Arc<App>>, name: Path<String>) -> (StatusCode, String) {
    told(app.waits.gates.set(&name, true))
}

pub(crate) async fn close(app: State<Arc<App>>, name: Path<String>) -> (StatusCode, String) {
    told(app.waits.gates.set(&name, false))
}

fn told(set: Result<(), UnknownGate>) -> (StatusCode, String) {
    match set {
        Ok(()) => (StatusCode::NO_CONTENT, String::new()),
        Err(unknown) => (StatusCode::NOT_FOUND, unknown.to_string()),
    }
}

/// Forgets requests and uses, and closes all gates: a fresh start for the next test on the same server.
pub(crate) async fn reset(State(app): State<Arc<App>>) -> StatusCode {
    app.seen.clear();
    *app.uses.lock().unwrap_or_else(PoisonError::into_inner) = Uses::default();
    app.waits.gates.close_all();
    StatusCode::NO_CONTENT
}

pub(crate) async fn health() -> &'static str {
    "rehearsal\n"
}

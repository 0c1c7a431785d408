//! How a service is: named checks, and whether all of them are green.

use std::{collections::BTreeMap, sync::Arc};

use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// One check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", content = "reason", rename_all = "lowercase")]
pub enum Check {
    /// All is well.
    Green,
    /// A person should look at something, and why. The service can be used as before: to take it out of service would help
    /// nobody, and could keep the mend from being rolled out.
    Warn(String),
    /// Not yet.
    Starting,
    /// Not well, and why.
    Red(String),
}

/// The answer to `swarm.ask.<service>.health` and to `GET /readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HealthReport {
    /// The service.
    pub service: String,
    /// Whether no check is red or starting.
    pub ready: bool,
    /// The checks by name.
    pub checks: BTreeMap<String, Check>,
}

impl HealthReport {
    /// What is not green, one line each.
    pub fn problems(&self) -> Vec<String> {
        let line = |(name, check): (&String, &Check)| match check {
            Check::Green => None,
            Check::Starting => Some(format!("{name}: starting")),
            Check::Red(reason) | Check::Warn(reason) => Some(format!("{name}: {reason}")),
        };
        self.checks.iter().filter_map(line).collect()
    }
}

/// The checks of a service. Clones see the same checks.
#[derive(Debug, Clone)]
pub struct Health {
    service: Arc<str>,
    /// Put before the names of this service's checks in the map that all services of the process share.
    prefix: Arc<str>,
    checks: Arc<watch::Sender<BTreeMap<String, Check>>>,
}

impl Health {
    /// Without checks, and so not ready.
    pub fn new(service: &str) -> Self {
        let checks = watch::Sender::new(BTreeMap::new());
        Self { service: service.into(), prefix: "".into(), checks: Arc::new(checks) }
    }

    /// The health of a part; its checks are among this one's as `<name>/<check>`.
    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let prefix = format!("{}{name}/", self.prefix);
        Self { service: name.into(), prefix: prefix.into(), checks: Arc::clone(&self.checks) }
    }

    /// Sets a check. Whatever a service waits for at its start is set to [`Check::Starting`] first.
    pub fn set(&self, check: &str, state: Check) {
        let name = format!("{}{check}", self.prefix);
        self.checks.send_if_modified(|checks| {
            if checks.get(&name) == Some(&state) {
                return false;
            }
            checks.insert(name, state);
            true
        });
    }

    /// Takes a check away, such as that of a part that was shut down on purpose.
    pub fn remove(&self, check: &str) {
        let name = format!("{}{check}", self.prefix);
        self.checks.send_if_modified(|checks| checks.remove(&name).is_some());
    }

    /// Whether no check is red or starting; without any check it is not.
    pub fn is_ready(&self) -> bool {
        self.report().ready
    }

    /// Everything at once.
    pub fn report(&self) -> HealthReport {
        let all = self.checks.borrow();
        let mine = all.iter().filter_map(|(name, check)| {
            let name = name.strip_prefix(&*self.prefix)?;
            Some((name.to_owned(), check.clone()))
        });
        let checks: BTreeMap<_, _> = mine.collect();
        let ready = !checks.is_empty() && checks.values().all(|check| matches!(check, Check::Green | Check::Warn(_)));
        HealthReport { service: self.service.to_string(), ready, checks }
    }

    /// Wakes on every change of any check in the process; [`Health::report`] says what is.
    pub fn subscribe(&self) -> watch::Receiver<BTreeMap<String, Check>> {
        self.checks.subscribe()
    }

    /// Waits until no check is red or starting.
    pub async fn until_ready(&self) {
        let mut changes = self.subscribe();
        while !self.is_ready() {
            // The sender lives in `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// `/healthz`: the process answers. `/readyz`: no check is red or starting, or 503. Both tell all checks as JSON.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/healthz", get(async |State(health): State<Health>| Json(health.report())))
        .route("/readyz", get(readyz))
        .with_state(health)
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let report = health.report();
    let status = if report.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(report))
}

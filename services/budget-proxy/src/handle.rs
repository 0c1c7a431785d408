//! The HTTP side: one handler for both APIs.
//!
//! Consumes a request under a run's bearer. Emits the upstream's answer, or a refusal in the API's own shape.
//! Idempotency: `idempotency-key`; a repeat joins the flight or gets the kept reply. On failure: refused, never
//! forwarded without a live epoch.

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{DefaultBodyLimit, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    response::Response,
    routing::post,
};
use bytes::Bytes;
use kit::clock;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    flight::{Ask, Boarded, Flights},
    gate::Gate,
    refusal::Refusal,
    replies::Reply,
    upstream::{Api, Upstreams},
};

/// Largest request: providers take 32 MB; a run's conversation within a model's window is a few.
const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// Longest idempotency key.
const MAX_KEY_BYTES: usize = 256;

/// What the handler needs.
#[derive(Debug)]
pub struct Proxy {
    /// Checks bearers.
    pub gate: Gate,
    /// Builds requests.
    pub upstreams: Upstreams,
    /// Makes calls.
    pub flights: Flights,
}

/// The routes.
pub fn router(proxy: Arc<Proxy>) -> Router {
    Router::new()
        .route("/v1/messages", post(messages))
        .route("/v1/chat/completions", post(chat_completions))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(proxy)
}

async fn messages(State(proxy): State<Arc<Proxy>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(Api::Anthropic, &proxy, &headers, &body).await
}

async fn chat_completions(State(proxy): State<Arc<Proxy>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(Api::OpenAi, &proxy, &headers, &body).await
}

async fn answer(api: Api, proxy: &Proxy, headers: &HeaderMap, body: &Bytes) -> Response {
    match proxy.call(api, headers, body).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::info!(status = refusal.status.as_u16(), reason = %refusal.message, "refused");
            refusal.into_response(api)
        }
    }
}

impl Proxy {
    async fn call(&self, api: Api, headers: &HeaderMap, body: &Bytes) -> Result<Response, Refusal> {
        let claims = self.gate.admit(headers).await?;
        let request: Value =
            serde_json::from_slice(body).map_err(|error| Refusal::invalid(format!("the body is not JSON: {error}")))?;
        let Some(route) = request["model"].as_str().map(ToOwned::to_owned) else {
            return Err(Refusal::invalid("the body names no model"));
        };
        let idempotency_key = match headers.get("idempotency-key").map(HeaderValue::to_str) {
            None => clock::uuid7().to_string(),
            Some(Ok(key)) if key.len() <= MAX_KEY_BYTES => key.to_owned(),
            Some(_) => return Err(Refusal::invalid(format!("idempotency-key is not text of at most {MAX_KEY_BYTES} bytes"))),
        };
        let ask = Ask {
            claims,
            idempotency_key,
            api,
            route: route.clone(),
            streamed: request["stream"].as_bool().unwrap_or(false),
            digest: data_encoding::HEXLOWER.encode(&Sha256::digest(body)),
            input_bytes: body.len(),
        };
        let version = headers.get("anthropic-version").and_then(|value| value.to_str().ok());
        let ready = self.upstreams.prepare(api, &route, request, version)?;
        match self.flights.board(ask, ready).await {
            Boarded::Kept(reply) => Ok(kept(reply)),
            Boarded::Flight(mut listener) => {
                let head = listener.head().await.map_err(|_| Refusal::unavailable("the model's provider can not be reached"))?;
                let mut response = Response::new(Body::from_stream(listener.bytes()));
                *response.status_mut() = StatusCode::from_u16(head.status).unwrap_or(StatusCode::BAD_GATEWAY);
                set(&mut response, "content-type", &head.content_type);
                if let Some(pause) = &head.retry_after {
                    set(&mut response, "retry-after", pause);
                }
                Ok(response)
            }
        }
    }
}

fn kept(reply: Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body));
    set(&mut response, "content-type", &reply.content_type);
    set(&mut response, "idempotent-replayed", "true");
    response
}

fn set(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

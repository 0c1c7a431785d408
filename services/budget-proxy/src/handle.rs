//! The HTTP side: one handler for both APIs.
//!
//! Consumes a request under a run's bearer. Emits the upstream's answer, or a refusal in the API's own shape.
//! Idempotency: `idempotency-key`; a repeat joins the flight or gets the kept reply. Ordering: who calls, then what, then
//! whether the epoch is live, then the call. On failure: refused, never forwarded without a live epoch. An answer under
//! way is cut for its listener as soon as the bearer's epoch is over.

use std::{future::Future, pin::Pin, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Request as HttpRequest, State},
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
    response::{IntoResponse as _, Response},
    routing::post,
};
use bytes::Bytes;
use futures::{Stream, stream};
use kit::{class::chain, clock, telemetry, token::Claims};
use sha2::{Digest as _, Sha256};
use tracing::Instrument as _;

use crate::{
    bill::Ask,
    failure::Failure,
    flight::{Boarding, Flights},
    gate::Gate,
    intake::{Intake, drop_unwanted},
    refusal::{Kind, Refusal},
    replies::CallKey,
    request::Request,
    tape::{Head, Listener},
    upstream::{Api, Upstreams},
};

/// Longest idempotency key.
const MAX_KEY_BYTES: usize = 256;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");
const ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// What the handler needs.
#[derive(Debug)]
pub struct Proxy {
    /// Checks bearers.
    pub gate: Gate,
    /// Takes requests in.
    pub intake: Intake,
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
        .method_not_allowed_fallback(no_such_method)
        .fallback(no_such_path)
        .with_state(proxy)
}

async fn messages(State(proxy): State<Arc<Proxy>>, request: HttpRequest) -> Response {
    answer(Api::Anthropic, &proxy, request).await
}

async fn chat_completions(State(proxy): State<Arc<Proxy>>, request: HttpRequest) -> Response {
    answer(Api::OpenAi, &proxy, request).await
}

/// Both APIs share paths that are not served; only clients of one of them send its version.
fn api_of(headers: &HeaderMap) -> Api {
    if headers.contains_key(ANTHROPIC_VERSION) { Api::Anthropic } else { Api::OpenAi }
}

async fn no_such_path(headers: HeaderMap) -> Response {
    let message = "there is no such path: /v1/messages and /v1/chat/completions are served";
    Refusal::new(Kind::NotFound, message).into_response(api_of(&headers))
}

async fn no_such_method(headers: HeaderMap) -> Response {
    Refusal::new(Kind::Method, "this path takes POST only").into_response(api_of(&headers))
}

async fn answer(api: Api, proxy: &Proxy, request: HttpRequest) -> Response {
    let (parts, body) = request.into_parts();
    let claims = match proxy.gate.verify(&parts.headers).await {
        Ok(claims) => claims,
        Err(refusal) => {
            tracing::info!(reason = %refusal, "a bearer is refused");
            drop_unwanted(&parts.headers, body).await;
            return refusal.into_response(api);
        }
    };
    let span = telemetry::run_span(claims.run_id, &claims.agent);
    let called = async {
        let answered = proxy.call(api, claims, &parts, body).await;
        answered.inspect_err(|refusal| {
            let status = refusal.kind.status().as_u16();
            tracing::info!(status, reason = %refusal, "a call is refused");
        })
    };
    match called.instrument(span).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(api),
    }
}

impl Proxy {
    async fn call(&self, api: Api, claims: Claims, parts: &Parts, body: Body) -> Result<Response, Refusal> {
        let (body, room) = self.intake.take(&parts.headers, body).await?;
        let idempotency_key = idempotency_key(&parts.headers)?;
        let request = Request::parse(api, body).map_err(|error| Refusal::invalid(chain(&error)))?;
        let version = parts.headers.get(ANTHROPIC_VERSION);
        let ready = self.upstreams.prepare(api, &claims.agent, &request, version)?;
        let named = idempotency_key.is_some();
        let idempotency_key = idempotency_key.unwrap_or_else(|| clock::uuid7().to_string());
        let boarding = Boarding {
            key: CallKey::new(claims.run_id, api, &idempotency_key, request.body()),
            ask: ask(api, &claims, idempotency_key, &request, &ready),
            named,
            ready,
            room,
        };
        drop(request);
        // Last, because everything before may have taken a while.
        self.gate.live(&claims).await?;
        let mut listener = self.flights.board(boarding)?;
        let mut over: Over = Box::pin(self.gate.clone().over(claims));
        let head = tokio::select! {
            biased;
            () = &mut over => return Err(Failure::EpochOver.refusal()),
            head = listener.head() => head.map_err(Failure::refusal)?,
        };
        Ok(response(head, Body::from_stream(heard(listener, over))))
    }
}

fn ask(api: Api, claims: &Claims, idempotency_key: String, request: &Request, ready: &crate::upstream::Ready) -> Ask {
    Ask {
        run_id: claims.run_id,
        root_run_id: claims.root_run_id,
        agent: claims.agent.clone(),
        epoch: claims.epoch,
        idempotency_key,
        api,
        route: request.route.clone(),
        model: ready.model.clone(),
        streamed: request.streamed,
        digest: data_encoding::HEXLOWER.encode(&Sha256::digest(request.body())),
        input_bytes: request.body().len() as u64,
        max_output: request.max_output.unwrap_or(ready.max_output),
        sends_all: request.sends_all,
        rehearsal: ready.rehearsal,
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(IDEMPOTENCY_KEY) else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_KEY_BYTES).contains(&key.len()) => Ok(Some(key.to_owned())),
        _ => Err(Refusal::invalid(format!("idempotency-key is not text of 1 to {MAX_KEY_BYTES} bytes"))),
    }
}

type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The answer's bytes until its end, or until the epoch is over. A broken answer ends in an error, upon which the
/// connection is cut: nobody takes it for a whole one.
fn heard(listener: Listener, over: Over) -> impl Stream<Item = Result<Bytes, Failure>> + Send {
    stream::try_unfold((listener, over), |(mut listener, mut over)| async move {
        let read = tokio::select! {
            biased;
            () = &mut over => Err(Failure::EpochOver),
            read = listener.read() => read,
        };
        if let Err(failure) = &read {
            tracing::info!(%failure, "an answer is cut");
            // What came before is still in the server's buffer: it is sent while this is not ready.
            tokio::task::yield_now().await;
        }
        Ok(read?.map(|bytes| (bytes, (listener, over))))
    })
}

fn response(head: Head, body: Body) -> Response {
    let mut response = body.into_response();
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    if head.replayed {
        let yes = HeaderValue::from_static("true");
        response.headers_mut().insert(IDEMPOTENT_REPLAYED, yes);
    }
    response
}

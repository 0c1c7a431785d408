//! The endpoints that both providers have.
//!
//! A model call: admitted, its key checked, read, parsed, matched, scripted, played. Whatever fails on the way is told in
//! the shape of the API that was called.

use std::sync::{Arc, PoisonError};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request as HttpRequest, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;

use crate::api::{Failure, FailureKind, anthropic, openai};
use crate::conversation::Api;
use crate::player::{Ended, Player};
use crate::reply::model_name;
use crate::scenario::Selected;
use crate::script::{self, Act, Answer, Script};
use crate::seen::{Outcome, Ticket};
use crate::server::App;

/// The header that tells which rule answered.
const RULE_HEADER: &str = "x-rehearsal";

/// The model that is listed when the scenarios list none.
const ANY_MODEL: &str = "any";

pub(crate) async fn messages(State(app): State<Arc<App>>, request: HttpRequest) -> Response {
    call(&app, Api::Anthropic, request).await
}

pub(crate) async fn chat_completions(State(app): State<Arc<App>>, request: HttpRequest) -> Response {
    call(&app, Api::Openai, request).await
}

/// One model call from admission to the first byte of its answer. The rest is the player's.
async fn call(app: &Arc<App>, api: Api, http: HttpRequest) -> Response {
    let mut ticket = app.seen.begin(api, kit::clock::now());
    let request_id = format!("req_rehearsal_{}", ticket.id());
    let prepared = prepare(app, api, http, &ticket, &request_id).await;
    let (selected, script, admitted) = match prepared {
        Ok(prepared) => prepared,
        Err(failure) => {
            tracing::debug!(request = ticket.id(), reason = failure.message, "refused");
            return failed(api, &failure, &request_id, &mut ticket);
        }
    };
    let mut response = if let Err(Ended) = app.waits.head(script.head, ticket.id()).await {
        ticket.answered(504);
        ticket.end(Outcome::CutByServer);
        let failure = Failure::new(FailureKind::Server(504), "rehearsal: held to the end");
        error_response(api, &failure, &request_id)
    } else {
        respond(app, api, script.answer, &request_id, ticket, admitted)
    };
    if let Ok(rule) = HeaderValue::from_str(&selected.rule.name) {
        response.headers_mut().insert(RULE_HEADER, rule);
    }
    response
}

type Prepared = (Selected, Script, OwnedSemaphorePermit);

async fn prepare(
    app: &Arc<App>,
    api: Api,
    http: HttpRequest,
    ticket: &Ticket,
    request_id: &str,
) -> Result<Prepared, Failure> {
    let busy = |_| Failure::new(FailureKind::Overloaded, "rehearsal: too many requests at once");
    let admitted = app.in_flight.clone().try_acquire_owned().map_err(busy)?;
    let body = read(app, api, http).await?;
    let request = api.parse(&body)?;
    drop(body);
    ticket.asked(&request);
    let selected = {
        let mut uses = app.uses.lock().unwrap_or_else(PoisonError::into_inner);
        app.playbook.select(&request, &mut uses)
    };
    let selected = selected.map_err(|unmatched| {
        tracing::warn!(%unmatched, "unmatched request");
        Failure::new(FailureKind::InvalidRequest, unmatched.to_string())
    })?;
    ticket.matched(&selected.rule.name, selected.fault.as_ref().map(crate::scenario::Fault::name));
    let script = script::write(&selected, &request, request_id);
    Ok((selected, script, admitted))
}

/// Checks the headers and reads the body.
async fn read(app: &App, api: Api, http: HttpRequest) -> Result<Bytes, Failure> {
    check_key(app, http.headers())?;
    if api == Api::Anthropic && !http.headers().contains_key("anthropic-version") {
        return Err(Failure::new(FailureKind::InvalidRequest, "anthropic-version: header is required"));
    }
    let limit = app.max_request_bytes;
    let too_large = || Failure::new(FailureKind::TooLarge, format!("the request is larger than {limit} bytes"));
    let announced = http.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > limit) {
        return Err(too_large());
    }
    axum::body::to_bytes(http.into_body(), limit).await.map_err(|error| {
        let by_limit = std::error::Error::source(&error).is_some_and(|source| source.to_string().contains("limit"));
        if by_limit { too_large() } else { Failure::new(FailureKind::InvalidRequest, "the body broke off") }
    })
}

fn check_key(app: &App, headers: &HeaderMap) -> Result<(), Failure> {
    let Some(wanted) = &app.require_key else {
        return Ok(());
    };
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = text("authorization").and_then(|value| value.strip_prefix("Bearer "));
    if [text("x-api-key"), bearer].contains(&Some(wanted.expose_secret())) {
        Ok(())
    } else {
        Err(Failure::new(FailureKind::Authentication, "rehearsal: the key that is required here was not shown"))
    }
}

fn respond(
    app: &App,
    api: Api,
    answer: Answer,
    request_id: &str,
    mut ticket: Ticket,
    admitted: OwnedSemaphorePermit,
) -> Response {
    let play = |acts: Vec<Act>, ticket| {
        Body::from_stream(Player::new(acts, app.waits.clone(), ticket, admitted).into_stream())
    };
    match answer {
        Answer::Failure(failure) => failed(api, &failure, request_id, &mut ticket),
        Answer::Garbage => {
            ticket.answered(200);
            ticket.end(Outcome::Failed);
            let headers = [(header::CONTENT_TYPE, "text/html; charset=utf-8")];
            (headers, script::GARBAGE).into_response()
        }
        Answer::Whole { length, body } => {
            ticket.answered(200);
            let mut response = play(body, ticket).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            name_request(api, request_id, response)
        }
        Answer::Stream(body) => {
            ticket.answered(200);
            let mut response = play(body, ticket).into_response();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
            name_request(api, request_id, response)
        }
    }
}

fn failed(api: Api, failure: &Failure, request_id: &str, ticket: &mut Ticket) -> Response {
    let response = error_response(api, failure, request_id);
    ticket.answered(response.status().as_u16());
    ticket.end(Outcome::Failed);
    response
}

fn error_response(api: Api, failure: &Failure, request_id: &str) -> Response {
    let (status, body) = api.error(failure, request_id);
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    if let Some(seconds) = failure.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    name_request(api, request_id, response)
}

fn name_request(api: Api, request_id: &str, mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(api.request_id_header(), id);
    }
    response
}

/// `POST /v1/messages/count_tokens`: the input tokens that the same request would be told as its usage.
pub(crate) async fn count_tokens(State(app): State<Arc<App>>, http: HttpRequest) -> Response {
    let counted = match read(&app, Api::Anthropic, http).await {
        Ok(body) => anthropic::parse_count(&body).map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    match counted {
        Ok(request) => Json(json!({"input_tokens": request.input_tokens()})).into_response(),
        Err(failure) => error_response(Api::Anthropic, &failure, "req_rehearsal_count"),
    }
}

/// Which API a request without a body means: both share these paths, and only Anthropic's clients send its version.
fn api_of(headers: &HeaderMap) -> Api {
    if headers.contains_key("anthropic-version") { Api::Anthropic } else { Api::Openai }
}

pub(crate) async fn models(State(app): State<Arc<App>>, headers: HeaderMap) -> Response {
    let api = api_of(&headers);
    if let Err(failure) = check_key(&app, &headers) {
        return error_response(api, &failure, "req_rehearsal_models");
    }
    let listed = app.playbook.models();
    let mut names: Vec<String> = listed.iter().map(|model| model_name(model)).collect();
    if names.is_empty() {
        names.push(model_name(ANY_MODEL));
    }
    match api {
        Api::Anthropic => Json(anthropic::models(&names)).into_response(),
        Api::Openai => Json(openai::models(&names)).into_response(),
    }
}

/// Every model is there: a rehearsal answers for whichever is asked.
pub(crate) async fn model(State(app): State<Arc<App>>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    let api = api_of(&headers);
    if let Err(failure) = check_key(&app, &headers) {
        return error_response(api, &failure, "req_rehearsal_models");
    }
    match api {
        Api::Anthropic => Json(anthropic::model(&model_name(&id))).into_response(),
        Api::Openai => Json(openai::model(&model_name(&id))).into_response(),
    }
}

pub(crate) async fn not_found(http: HttpRequest) -> Response {
    let failure =
        Failure::new(FailureKind::NotFound, format!("no such endpoint: {} {}", http.method(), http.uri().path()));
    error_response(api_of(http.headers()), &failure, "req_rehearsal_none")
}

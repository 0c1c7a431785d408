//! Where a route leads, and the request that goes there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use kit::crew::{Crew, EffectiveError, Provider, Upstream};
use reqwest::{RequestBuilder, header};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use crate::refusal::Refusal;

/// The HTTP API that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions.
    OpenAi,
}

impl Api {
    /// Its name in call records.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Anthropic => "anthropic",
            Self::OpenAi => "openai",
        }
    }

    const fn provider(self) -> Provider {
        match self {
            Self::Anthropic => Provider::Anthropic,
            Self::OpenAi => Provider::Openai,
        }
    }
}

/// Time to connect to a provider; beyond it the caller's retry is the better use of time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence of an upstream within an answer: above the pauses of thinking models, which send pings.
const READ_TIMEOUT: Duration = Duration::from_mins(3);

/// A request that is ready to go upstream.
#[derive(Debug)]
pub struct Ready {
    /// The request.
    pub request: RequestBuilder,
    /// The model as the provider names it.
    pub model: String,
    /// Whether the rehearsal model answers.
    pub rehearsal: bool,
}

/// Builds requests for providers.
#[derive(Debug)]
pub struct Upstreams {
    http: reqwest::Client,
    crew: Arc<Crew>,
    rehearsal_url: Option<String>,
}

impl Upstreams {
    /// Upstreams of the crew's routes.
    pub fn new(crew: Arc<Crew>, rehearsal_url: Option<String>) -> Result<Self, reqwest::Error> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .tcp_nodelay(true)
            .build()?;
        Ok(Self { http, crew, rehearsal_url })
    }

    /// The request for `route`: the client's body with the provider's model, under the provider's key. Nothing of the
    /// client's headers goes along but the API's version.
    pub fn prepare(&self, api: Api, route: &str, mut body: Value, version: Option<&str>) -> Result<Ready, Refusal> {
        let upstream = self.crew.models.effective(route, |name| std::env::var(name).ok()).map_err(|error| match error {
            EffectiveError::UnknownRoute(_) => Refusal::invalid(format!("{error}; routes are in models.yaml")),
            EffectiveError::Key { .. } => Refusal::unavailable(kit::class::chain(&error)),
        })?;
        let (url, model, key, rehearsal) = match upstream {
            Upstream::Real { provider, base_url, model, key } => {
                if provider != api.provider() {
                    let message = format!("model route {route:?} is served by the {provider:?} API, not by this one");
                    return Err(Refusal::invalid(message));
                }
                let path = if api == Api::Anthropic { "/v1/messages" } else { "/chat/completions" };
                (format!("{base_url}{path}"), model, key, false)
            }
            Upstream::Rehearsal => {
                let Some(base_url) = &self.rehearsal_url else {
                    let message = format!("no key is configured for model route {route:?}, and no rehearsal model is running");
                    return Err(Refusal::unavailable(message));
                };
                let path = if api == Api::Anthropic { "/v1/messages" } else { "/v1/chat/completions" };
                (format!("{base_url}{path}"), self.model_of(route), None, true)
            }
        };
        body["model"] = model.clone().into();
        let bytes = serde_json::to_vec(&body).map_err(|error| Refusal::invalid(error.to_string()))?;
        let mut request = self.http.post(url).header(header::CONTENT_TYPE, "application/json").body(Bytes::from(bytes));
        if api == Api::Anthropic {
            request = request.header("anthropic-version", version.unwrap_or("2023-06-01"));
        }
        if let Some(key) = key {
            request = match api {
                Api::Anthropic => request.header("x-api-key", key.expose_secret()),
                Api::OpenAi => request.bearer_auth(key.expose_secret()),
            };
        }
        Ok(Ready { request, model, rehearsal })
    }

    fn model_of(&self, route: &str) -> String {
        self.crew.models.routes.get(route).map_or_else(|| route.to_owned(), |route| route.model.clone())
    }
}

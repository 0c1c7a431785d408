//! Where a route leads, and the request that goes there.
//!
//! Nothing of the client's headers goes along but the API's version. What is sent is built here and nowhere else.

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::http::{HeaderMap, HeaderValue, header};
use kit::{
    class::chain,
    crew::{Crew, EffectiveError, Provider, Upstream},
};
use reqwest::{RequestBuilder, redirect};
use schemas::AgentName;
use secrecy::{ExposeSecret as _, SecretString};

use crate::{
    refusal::{Kind, Refusal},
    request::Request,
};

/// The HTTP API that was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// Between two looks whether a silent provider's machine is still there.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Connections to a provider that are kept while no call needs them. A crew at work has fewer calls at once; after a crowd
/// of them the rest are closed, for each takes tens of kilobytes, and as many more at a rehearsal model in this process.
const IDLE_CONNECTIONS: usize = 32;

/// The version of the Messages API that is asked for when the client names none.
const ANTHROPIC_VERSION: &str = "2023-06-01";

/// Longest version: they are dates.
const MAX_VERSION_BYTES: usize = 32;

/// A request that is ready to go upstream.
#[derive(Debug)]
pub struct Ready {
    /// The request.
    pub request: RequestBuilder,
    /// The model as the provider names it.
    pub model: String,
    /// Tokens that the route's model may answer with.
    pub max_output: u64,
    /// Whether the rehearsal model answers.
    pub rehearsal: bool,
    /// The key, so that it can be taken out of an answer that tells it.
    pub key: Option<SecretString>,
}

/// Builds requests for providers.
#[derive(Debug)]
pub struct Upstreams {
    /// For this machine and the rehearsal model: through no proxy, whatever the environment says.
    near: reqwest::Client,
    /// For providers: by the proxies of the environment, such as `HTTPS_PROXY`.
    far: reqwest::Client,
    crew: Arc<Crew>,
    rehearsal_url: Option<String>,
}

/// Where a request goes and what it carries.
struct Target {
    base_url: String,
    path: &'static str,
    model: String,
    key: Option<SecretString>,
    rehearsal: bool,
}

impl Upstreams {
    /// Upstreams of the crew's routes.
    pub fn new(crew: Arc<Crew>, rehearsal_url: Option<String>) -> Result<Self, reqwest::Error> {
        let client = || {
            reqwest::Client::builder()
                .connect_timeout(CONNECT_TIMEOUT)
                .tcp_keepalive(KEEPALIVE)
                .tcp_nodelay(true)
                .pool_max_idle_per_host(IDLE_CONNECTIONS)
                // A redirect would carry the key to wherever it points.
                .redirect(redirect::Policy::none())
                // What comes is passed on as it came. Other crates of the workspace turn these on for everybody.
                .no_gzip()
                .no_brotli()
                .no_deflate()
                .no_zstd()
        };
        Ok(Self { near: client().no_proxy().build()?, far: client().build()?, crew, rehearsal_url })
    }

    /// The request for its route: the client's body with the provider's model, under the provider's key. The route must
    /// be one of the agent's.
    pub fn prepare(
        &self,
        api: Api,
        agent: &AgentName,
        request: &Request,
        version: Option<&HeaderValue>,
    ) -> Result<Ready, Refusal> {
        self.allow(agent, &request.route)?;
        let target = self.target(api, &request.route)?;
        let client = if target.rehearsal || is_near(&target.base_url) { &self.near } else { &self.far };
        let sent = client
            .post(format!("{}{}", target.base_url, target.path))
            .headers(headers(api, version, target.key.as_ref())?)
            .body(request.with_model(&target.model));
        let route = self.crew.models.routes.get(&request.route);
        Ok(Ready {
            request: sent,
            model: target.model,
            max_output: route.map_or(0, |route| route.max_output_tokens),
            rehearsal: target.rehearsal,
            key: target.key,
        })
    }

    /// Whether the agent's scope has the route. That there is no such route is told apart, where it is looked up.
    fn allow(&self, agent: &AgentName, route: &str) -> Result<(), Refusal> {
        let models = self.crew.agent(agent).map(|agent| &agent.capabilities.models);
        let has = models.is_some_and(|models| models.iter().any(|model| model == route));
        if has || !self.crew.models.routes.contains_key(route) {
            return Ok(());
        }
        let message = format!("model route {route:?} is not in the scope of agent {agent}: see its capabilities.yaml");
        Err(Refusal::new(Kind::Forbidden, message))
    }

    fn target(&self, api: Api, route: &str) -> Result<Target, Refusal> {
        let env = |name: &str| std::env::var(name).ok();
        let upstream = self.crew.models.effective(route, env);
        let upstream = upstream.map_err(|error| match error {
            EffectiveError::UnknownRoute(_) => {
                Refusal::new(Kind::NotFound, format!("{error}; routes are in models.yaml"))
            }
            EffectiveError::Key { .. } => {
                tracing::error!(route, error = %chain(&error), "a route can not be used");
                Refusal::unavailable(error.to_string())
            }
        })?;
        match upstream {
            Upstream::Real { provider, base_url, model, key } if provider == api.provider() => Ok(Target {
                base_url,
                path: match api {
                    Api::Anthropic => "/v1/messages",
                    Api::OpenAi => "/chat/completions",
                },
                model,
                key,
                rehearsal: false,
            }),
            Upstream::Real { .. } => {
                Err(Refusal::invalid(format!("model route {route:?} is not served by this API but by {}", other(api))))
            }
            Upstream::Rehearsal => self.rehearsal(api, route),
        }
    }

    fn rehearsal(&self, api: Api, route: &str) -> Result<Target, Refusal> {
        let Some(base_url) = &self.rehearsal_url else {
            return Err(Refusal::unavailable(format!(
                "no key is configured for model route {route:?}, and no rehearsal model is running"
            )));
        };
        let model = self.crew.models.routes.get(route);
        Ok(Target {
            base_url: base_url.trim_end_matches('/').to_owned(),
            path: match api {
                Api::Anthropic => "/v1/messages",
                Api::OpenAi => "/v1/chat/completions",
            },
            model: model.map_or_else(|| route.to_owned(), |route| route.model.clone()),
            key: None,
            rehearsal: true,
        })
    }
}

const fn other(api: Api) -> &'static str {
    match api {
        Api::Anthropic => "/v1/chat/completions",
        Api::OpenAi => "/v1/messages",
    }
}

fn headers(api: Api, version: Option<&HeaderValue>, key: Option<&SecretString>) -> Result<HeaderMap, Refusal> {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // What is compressed could neither be counted nor passed on as it came.
    headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if api == Api::Anthropic {
        let version = version.map_or_else(|| Ok(HeaderValue::from_static(ANTHROPIC_VERSION)), checked);
        headers.insert("anthropic-version", version?);
    }
    if let Some(key) = key {
        let (name, prefix) = match api {
            Api::Anthropic => (header::HeaderName::from_static("x-api-key"), ""),
            Api::OpenAi => (header::AUTHORIZATION, "Bearer "),
        };
        let value = HeaderValue::from_str(&format!("{prefix}{}", key.expose_secret()));
        let mut value =
            value.map_err(|_| Refusal::unavailable("the key of the model route can not stand in a header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

/// A version is a date, so nothing else can be smuggled upstream in it.
fn checked(version: &HeaderValue) -> Result<HeaderValue, Refusal> {
    let bytes = version.as_bytes();
    let is_date = bytes.iter().all(|b| b.is_ascii_digit() || *b == b'-');
    if is_date && bytes.len() <= MAX_VERSION_BYTES {
        Ok(version.clone())
    } else {
        Err(Refusal::invalid("anthropic-version is not a date"))
    }
}

/// Whether a URL leads to this machine.
fn is_near(url: &str) -> bool {
    let parsed = reqwest::Url::parse(url).ok();
    parsed.as_ref().and_then(reqwest::Url::host_str).is_some_and(|host| {
        let address: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        address.map_or_else(|| host == "localhost" || host.ends_with(".localhost"), |address| address.is_loopback())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_told_from_others() {
        for url in [
            "http://127.0.0.1:8080/v1",
            "http://127.8.8.8",
            "http://[::1]:9",
            "http://localhost:1",
            "http://llama.localhost",
        ] {
            assert!(is_near(url), "{url}");
        }
        for url in [
            "https://api.anthropic.com",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "nonsense",
        ] {
            assert!(!is_near(url), "{url}");
        }
    }

    #[test]
    fn a_key_does_not_show_in_what_is_printed() {
        let key = SecretString::from("sk-secret".to_owned());
        for api in [Api::Anthropic, Api::OpenAi] {
            let headers = headers(api, None, Some(&key)).unwrap();
            assert!(!format!("{headers:?}").contains("sk-secret"));
        }
        let broken = SecretString::from("two\nlines".to_owned());
        let refusal = headers(Api::OpenAi, None, Some(&broken)).unwrap_err();
        assert!(!refusal.message.contains("lines"));
    }

    #[test]
    fn a_version_is_a_date_or_refused() {
        assert!(checked(&HeaderValue::from_static("2023-06-01")).is_ok());
        assert!(checked(&HeaderValue::from_static("sk-secret")).is_err());
    }
}

//! `models.yaml`: the names under which the crew knows models, and what these cost.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use jiff::civil::Date;
use schemars::JsonSchema;
use schemas::{MicroUsd, Usage};
use secrecy::SecretString;
use serde::Deserialize;

use super::{Price, SecretError, SecretRef, shape};

/// Routes and prices, as they are written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "Nightcrew models", rename = "Models")]
pub(super) struct ModelsFile {
    /// Models by the names that capabilities use.
    #[schemars(with = "shape::ByLabel<RouteFile>", extend("minProperties" = 1))]
    routes: BTreeMap<String, RouteFile>,
    /// What models cost from which day on; the latest entry that has begun holds.
    #[serde(default)]
    prices: Vec<Price>,
}

/// A route, as it is written.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Route")]
struct RouteFile {
    /// Whose API the model is reached by.
    provider: Provider,
    /// Root of the API when it is not the provider's own: `/v1/messages` is appended for `anthropic`,
    /// `/chat/completions` for `openai`, so the latter usually ends in `/v1`. A server that needs no key is a route with
    /// `base_url` and without `key_env` and `key_file`.
    #[serde(default)]
    #[schemars(with = "shape::HttpUrl")]
    base_url: Option<String>,
    /// The model, as the provider names it.
    #[schemars(length(min = 1))]
    model: String,
    /// Tokens that input and output may have together.
    #[schemars(range(min = 1))]
    context_window: u64,
    /// Tokens that one answer may have.
    #[schemars(range(min = 1))]
    max_output_tokens: u64,
    /// The environment variable that holds the provider's key.
    #[serde(default)]
    #[schemars(with = "shape::EnvName")]
    key_env: Option<String>,
    /// The file that holds the provider's key, relative to the project folder.
    #[serde(default)]
    #[schemars(with = "shape::SecretPath")]
    key_file: Option<PathBuf>,
    /// Says that the model has no price on purpose; its calls are shown without cost.
    #[serde(default)]
    unpriced: bool,
}

/// Whose API a model is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(inline)]
pub enum Provider {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Chat Completions, and whatever is compatible.
    Openai,
    /// The rehearsal model, always.
    Rehearsal,
}

impl Provider {
    /// Root of the provider's own API; the rehearsal model has none.
    pub const fn base_url(self) -> Option<&'static str> {
        match self {
            Self::Anthropic => Some("https://api.anthropic.com"),
            Self::Openai => Some("https://api.openai.com/v1"),
            Self::Rehearsal => None,
        }
    }
}

/// Routes and prices.
#[derive(Debug, Clone)]
pub struct Models {
    /// Routes by name.
    pub routes: BTreeMap<String, Route>,
    /// Prices, in the order of the days from which they hold.
    pub prices: Vec<Price>,
}

/// A model under the name that capabilities use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Whose API it is reached by.
    pub provider: Provider,
    /// Root of that API, without a slash at its end; absent for [`Provider::Rehearsal`].
    pub base_url: Option<String>,
    /// The model, as the provider names it.
    pub model: String,
    /// Tokens that input and output may have together.
    pub context_window: u64,
    /// Tokens that one answer may have.
    pub max_output_tokens: u64,
    /// Where the provider's key is; absent for a server that needs none and for [`Provider::Rehearsal`].
    pub key: Option<SecretRef>,
    /// Whether it has no price on purpose.
    pub unpriced: bool,
}

/// What a route leads to, here and now.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A model.
    Real {
        /// Whose API it is reached by.
        provider: Provider,
        /// Root of that API, without a slash at its end.
        base_url: String,
        /// The model, as the provider names it.
        model: String,
        /// The key; absent for a server that needs none.
        key: Option<SecretString>,
    },
    /// The rehearsal model, because the route asks for it or no key is configured. Whoever uses it says so plainly.
    Rehearsal,
}

/// A route that leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum EffectiveError {
    /// There is no such route.
    #[error("there is no model route {0:?}")]
    UnknownRoute(String),
    /// The key is there and can not be had.
    #[error("the key of model route {route:?} can not be had")]
    Key {
        /// The route.
        route: String,
        /// Why.
        #[source]
        source: SecretError,
    },
}

impl Models {
    /// Where a route leads; `env` looks an environment variable up.
    ///
    /// A key that is not there (variable unset or empty, file missing or empty) leads to the rehearsal model. A key file
    /// that can not be read is an error: a broken mount must not turn work into play.
    pub fn effective(&self, route: &str, env: impl Fn(&str) -> Option<String>) -> Result<Upstream, EffectiveError> {
        let found = self.routes.get(route).ok_or_else(|| EffectiveError::UnknownRoute(route.to_owned()))?;
        let Some(base_url) = found.base_url.clone() else {
            return Ok(Upstream::Rehearsal);
        };
        let real = |key| Upstream::Real { provider: found.provider, base_url, model: found.model.clone(), key };
        match &found.key {
            None => Ok(real(None)),
            Some(reference) => match reference.read(env) {
                Ok(Some(key)) => Ok(real(Some(key))),
                Ok(None) => Ok(Upstream::Rehearsal),
                Err(source) => Err(EffectiveError::Key { route: route.to_owned(), source }),
            },
        }
    }

    /// The price of a model on a day: the latest that has begun. The day is that of the call in the project's zone.
    pub fn price_of(&self, model: &str, date: Date) -> Option<&Price> {
        self.prices.iter().rev().find(|price| price.model == model && price.from <= date)
    }

    /// What `usage` of `model` (as the provider names it) costs on `date`; nothing when no price is known, which is not
    /// the same as free. Integer arithmetic, rounded up once: see [`Price::cost`].
    pub fn price(&self, model: &str, date: Date, usage: &Usage) -> Option<MicroUsd> {
        self.price_of(model, date).map(|price| price.cost(usage))
    }
}

impl ModelsFile {
    pub(super) fn resolve(mut self, dir: &Path) -> Models {
        self.prices.sort_by_key(|price| price.from);
        let routes = self.routes.into_iter().map(|(name, file)| (name, file.resolve(dir))).collect();
        Models { routes, prices: self.prices }
    }
}

impl RouteFile {
    fn resolve(self, dir: &Path) -> Route {
        let base_url = match self.provider {
            Provider::Rehearsal => None,
            provider => self.base_url.as_deref().or(provider.base_url()),
        };
        Route {
            base_url: base_url.map(|url| url.trim_end_matches('/').to_owned()),
            provider: self.provider,
            model: self.model,
            context_window: self.context_window,
            max_output_tokens: self.max_output_tokens,
            key: SecretRef::of(dir, self.key_env, self.key_file),
            unpriced: self.unpriced,
        }
    }
}

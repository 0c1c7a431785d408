//! Who may call: a bearer that the issuer signed for this project and audience, of an epoch that is live.
//!
//! The two are asked apart: the signature before anything of the request is read, the epoch at the last moment before
//! the call is made.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use kit::{
    clock,
    epochs::{EpochError, LiveEpochs},
    token::{Claims, TokenError},
};

use crate::{keys::Keys, refusal::Refusal};

/// Checks bearers.
#[derive(Debug, Clone)]
pub struct Gate {
    keys: Keys,
    epochs: LiveEpochs,
    /// For an epoch that is not in the log yet.
    epoch: Duration,
    /// For the bus.
    bus: Duration,
}

impl Gate {
    /// A gate that waits up to `epoch` for an epoch to appear and up to `bus` for the log.
    pub const fn new(keys: Keys, epochs: LiveEpochs, epoch: Duration, bus: Duration) -> Self {
        Self { keys, epochs, epoch, bus }
    }

    /// Who calls, by the bearer alone.
    pub async fn verify(&self, headers: &HeaderMap) -> Result<Claims, Refusal> {
        let token = bearer(headers).ok_or_else(|| {
            Refusal::unauthorized("a bearer of a run is needed: `authorization: Bearer` or `x-api-key`")
        })?;
        let verified = self.keys.verify(token, clock::now()).await;
        verified.map_err(|error: TokenError| Refusal::unauthorized(error.to_string()))
    }

    /// Whether the epoch of a bearer holds its run now.
    pub async fn live(&self, claims: &Claims) -> Result<(), Refusal> {
        let check = self.epochs.check(claims.run_id, claims.epoch, self.epoch);
        let unknown = |why: &dyn std::fmt::Display| {
            Refusal::unavailable(format!("whether the run is live can not be told: {why}"))
        };
        match tokio::time::timeout(self.epoch + self.bus, check).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error @ (EpochError::Stale | EpochError::Read(_)))) => Err(unknown(&error)),
            Ok(Err(error)) => {
                Err(Refusal::unauthorized(format!("the bearer of run {} is not live: {error}", claims.run_id)))
            }
            Err(_) => Err(unknown(&"the bus does not answer")),
        }
    }

    /// Returns once the epoch of a bearer does not hold its run any more.
    pub async fn over(self, claims: Claims) {
        self.epochs.over(claims.run_id, claims.epoch).await;
    }
}

/// The bearer, from either header that SDKs use.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let authorization = text(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let token = authorization.or_else(|| text(header::HeaderName::from_static("x-api-key")));
    token.map(str::trim).filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_bearer_stands_in_either_header() {
        let found = |name: &'static str, value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, HeaderValue::from_static(value));
            bearer(&headers).map(ToOwned::to_owned)
        };
        assert_eq!(found("authorization", "Bearer  abc "), Some("abc".to_owned()));
        assert_eq!(found("authorization", "bearer abc"), Some("abc".to_owned()));
        assert_eq!(found("x-api-key", "abc"), Some("abc".to_owned()));
        for (name, value) in [("authorization", "Basic abc"), ("authorization", "Bearer "), ("x-api-key", "")] {
            assert_eq!(found(name, value), None, "{name}: {value}");
        }
    }
}

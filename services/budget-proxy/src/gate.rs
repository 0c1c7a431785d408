//! Who may call: a bearer that the issuer signed for this project and audience, of an epoch that is live.

use std::{sync::RwLock, time::Duration};

use axum::http::HeaderMap;
use kit::{
    bus::Bus,
    class::chain,
    clock,
    epochs::{EpochError, LiveEpochs},
    token::{Audience, Claims, PublicKey, TokenError, Verifier},
};
use schemas::{
    Subject,
    ask::{Answer, AskError, ISSUER, KEYS, KeysReply},
    ids::{InvalidName, Token},
};

use crate::refusal::Refusal;

/// How long a bearer waits for its epoch to be seen here. A follower of the log is milliseconds behind.
const EPOCH_WAIT: Duration = Duration::from_secs(2);

/// How long the issuer may take to tell its keys, and pauses between tries at the start.
const KEYS_TIMEOUT: Duration = Duration::from_secs(2);
const KEYS_TRIES: u32 = 30;
const KEYS_PAUSE: Duration = Duration::from_millis(100);

/// The issuer's keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// Nobody answered.
    #[error("the issuer did not answer")]
    Unanswered,
    /// The answer could not be read.
    #[error("the issuer's answer can not be read")]
    Unreadable(#[source] serde_json::Error),
    /// The issuer refused.
    #[error("the issuer refused")]
    Refused(#[source] AskError),
    /// A key is no key.
    #[error("a key of the issuer is not valid")]
    Invalid(#[source] kit::token::InvalidKey),
    /// A constant is no token: a mistake of ours.
    #[error("the request's subject is not valid")]
    Subject(#[from] InvalidName),
}

/// Checks bearers.
pub struct Gate {
    bus: Bus,
    epochs: LiveEpochs,
    verifier: RwLock<Verifier>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    /// A gate with the issuer's present keys; waits, bounded, for the issuer to come up.
    pub async fn new(bus: Bus, epochs: LiveEpochs) -> Result<Self, KeysError> {
        let mut tries = 0;
        let verifier = loop {
            match verifier(&bus).await {
                Ok(verifier) => break verifier,
                Err(KeysError::Unanswered) if tries < KEYS_TRIES => {
                    tries += 1;
                    tokio::time::sleep(KEYS_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        };
        Ok(Self { bus, epochs, verifier: RwLock::new(verifier) })
    }

    /// Who calls, when they may.
    pub async fn admit(&self, headers: &HeaderMap) -> Result<Claims, Refusal> {
        let token = bearer(headers).ok_or_else(|| Refusal::unauthorized("a bearer of a run is needed: Authorization: Bearer"))?;
        let claims = match self.verify(token) {
            Err(TokenError::UnknownKey) => {
                self.reread_keys().await?;
                self.verify(token)
            }
            other => other,
        };
        let claims = claims.map_err(|error| Refusal::unauthorized(error.to_string()))?;
        match self.epochs.check(claims.run_id, claims.epoch, EPOCH_WAIT).await {
            Ok(()) => Ok(claims),
            Err(error @ (EpochError::Old { .. } | EpochError::Ended | EpochError::Unknown)) => {
                Err(Refusal::unauthorized(format!("the bearer of run {} is not live: {error}", claims.run_id)))
            }
            Err(error) => Err(Refusal::unavailable(format!("whether the run is live can not be told: {error}"))),
        }
    }

    fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let verifier = self.verifier.read().unwrap_or_else(std::sync::PoisonError::into_inner);
        verifier.verify(token, Audience::BudgetProxy, clock::now())
    }

    async fn reread_keys(&self) -> Result<(), Refusal> {
        let fresh = verifier(&self.bus).await.map_err(|error| Refusal::unavailable(chain(&error)))?;
        *self.verifier.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        Ok(())
    }
}

async fn verifier(bus: &Bus) -> Result<Verifier, KeysError> {
    let subject = Subject::Ask(Token::try_new(ISSUER)?, Token::try_new(KEYS)?).to_string();
    let asked = tokio::time::timeout(KEYS_TIMEOUT, bus.client().request(subject, "".into())).await;
    let Ok(Ok(reply)) = asked else {
        return Err(KeysError::Unanswered);
    };
    let answer: Answer<KeysReply> = serde_json::from_slice(&reply.payload).map_err(KeysError::Unreadable)?;
    let keys = answer.into_result().map_err(KeysError::Refused)?.keys;
    let keys = keys.into_iter().map(PublicKey::try_from).collect::<Result<Vec<_>, _>>().map_err(KeysError::Invalid)?;
    Verifier::new(bus.project().clone(), &keys).map_err(KeysError::Invalid)
}

/// The bearer, from either header that SDKs use.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok());
    authorization
        .and_then(|value| value.strip_prefix("Bearer "))
        .or_else(|| headers.get("x-api-key").and_then(|value| value.to_str().ok()))
        .map(str::trim)
}

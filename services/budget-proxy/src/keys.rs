//! The issuer's public keys, by which bearers are verified.
//!
//! They are read at the start, again every while, so that a key that was taken back is forgotten, and at once when a
//! bearer names one that is not known. The check `issuer` of the service's health tells how the last reading went.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use jiff::Timestamp;
use kit::{
    bus::Bus,
    class::chain,
    service::{Check, Context},
    token::{Audience, Claims, PublicKey, TokenError, Verifier},
};
use schemas::{
    Subject,
    ask::{Answer, AskError, ISSUER, KEYS, KeysReply},
    ids::{InvalidName, Token},
};
use tokio::{sync::Mutex, time::Instant};

/// How long the issuer may take to tell its keys.
const WITHIN: Duration = Duration::from_secs(2);

/// How often they are read when all is well.
const EVERY: Duration = Duration::from_secs(30);

/// How often they are read while the issuer does not answer.
const RETRY: Duration = Duration::from_millis(100);

/// How often they are read for bearers that name an unknown key: forged ones must not become a flood at the issuer.
const ON_DEMAND_EVERY: Duration = Duration::from_secs(1);

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

/// The keys. Clones share them.
#[derive(Debug, Clone)]
pub struct Keys {
    bus: Bus,
    context: Context,
    verifier: Arc<RwLock<Arc<Verifier>>>,
    on_demand: Arc<Mutex<Option<Instant>>>,
}

impl Keys {
    /// Waits for the issuer and reads its keys, then keeps them fresh. Nothing when the end comes before.
    pub async fn start(bus: &Bus, context: &Context) -> Option<Self> {
        let verifier = loop {
            match read(bus, context).await {
                Ok(verifier) => break verifier,
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "the issuer's keys can not be had yet");
                }
            }
            tokio::select! {
                () = context.shutdown.cancelled() => return None,
                () = tokio::time::sleep(RETRY) => {}
            }
        };
        let keys = Self {
            bus: bus.clone(),
            context: context.clone(),
            verifier: Arc::new(RwLock::new(Arc::new(verifier))),
            on_demand: Arc::default(),
        };
        context.spawn_minor("keys", keys.clone().keep_fresh());
        Some(keys)
    }

    /// What `token` says, when the issuer signed it for this service. That its epoch is live is another question.
    pub async fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let verify = || self.verifier().verify(token, Audience::BudgetProxy, now);
        match verify() {
            Err(TokenError::UnknownKey) => {
                self.read_on_demand().await;
                verify()
            }
            verified => verified,
        }
    }

    fn verifier(&self) -> Arc<Verifier> {
        Arc::clone(&self.verifier.read().unwrap_or_else(PoisonError::into_inner))
    }

    async fn read_on_demand(&self) {
        // Whoever comes meanwhile waits here and finds the keys read.
        let mut last = self.on_demand.lock().await;
        if last.is_none_or(|last| last.elapsed() >= ON_DEMAND_EVERY) {
            self.reread().await;
            *last = Some(Instant::now());
        }
    }

    async fn reread(&self) -> bool {
        match read(&self.bus, &self.context).await {
            Ok(fresh) => {
                *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                true
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the issuer's keys can not be read again");
                false
            }
        }
    }

    async fn keep_fresh(self) {
        let mut pause = EVERY;
        loop {
            tokio::select! {
                () = self.context.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
            pause = if self.reread().await { EVERY } else { ON_DEMAND_EVERY };
        }
    }
}

async fn read(bus: &Bus, context: &Context) -> Result<Verifier, KeysError> {
    let read = ask(bus).await;
    let check = match &read {
        Ok(_) => Check::Green,
        Err(error) => Check::Red(chain(error)),
    };
    context.health.set("issuer", check);
    read
}

async fn ask(bus: &Bus) -> Result<Verifier, KeysError> {
    let subject = Subject::Ask(Token::try_new(ISSUER)?, Token::try_new(KEYS)?).to_string();
    let asked = tokio::time::timeout(WITHIN, bus.client().request(subject, "".into())).await;
    let Ok(Ok(reply)) = asked else {
        return Err(KeysError::Unanswered);
    };
    let answer: Answer<KeysReply> = serde_json::from_slice(&reply.payload).map_err(KeysError::Unreadable)?;
    let keys = answer.into_result().map_err(KeysError::Refused)?.keys;
    let keys: Result<Vec<_>, _> = keys.into_iter().map(PublicKey::try_from).collect();
    let keys = keys.map_err(KeysError::Invalid)?;
    Verifier::new(bus.project().clone(), &keys).map_err(KeysError::Invalid)
}

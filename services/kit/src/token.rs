//! The bearer of a run: what an agent shows to proxy, MCP servers and git.
//!
//! A compact JWS signed with EdDSA, minted by `issuer` for one run and one epoch, good until the run's
//! deadline for the audiences it names. Everything here is pure: whether the epoch still is the live one
//! is folded from the log elsewhere, and must be asked as well. One algorithm is accepted, whatever a
//! token's header claims, and keys are found by id, so a token can not choose how it is checked.

mod key;

use std::collections::HashMap;

use jiff::Timestamp;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use schemas::{AgentName, ProjectId, RunId};
use serde::{Deserialize, Serialize};

pub use key::{InvalidKey, PublicKey, SigningKey};

/// How far the clocks of two machines may be apart: what NTP keeps by orders of magnitude. It is granted
/// at the start only; an expired token is expired.
pub const MAX_SKEW_SECONDS: i64 = 30;

/// Longest token that is looked at: ours have half a kilobyte.
const MAX_TOKEN_BYTES: usize = 4096;

/// Who a bearer may be shown to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// The proxy to the models.
    BudgetProxy,
    /// MCP servers: memory, tools.
    Mcp,
    /// Git over HTTP.
    Git,
}

impl Audience {
    /// All that a run needs.
    pub const ALL: [Self; 3] = [Self::BudgetProxy, Self::Mcp, Self::Git];
}

/// What a bearer says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// The project whose issuer minted it.
    pub project: ProjectId,
    /// The agent that runs.
    pub agent: AgentName,
    /// The run.
    pub run_id: RunId,
    /// The root of its tree, whose budget it shares.
    pub root_run_id: RunId,
    /// Stream sequence of the message that opened the epoch (`started` or `resumed`).
    pub epoch: u64,
    /// Who may accept it.
    #[serde(rename = "aud")]
    pub audience: Vec<Audience>,
    /// When it was minted, in Unix seconds.
    #[serde(rename = "iat")]
    pub issued_at: i64,
    /// From when on it is refused, in Unix seconds.
    #[serde(rename = "exp")]
    pub expires_at: i64,
}

/// A bearer could not be made.
#[derive(Debug, thiserror::Error)]
#[error("signing a bearer")]
pub struct MintError(#[source] jsonwebtoken::errors::Error);

/// Why a bearer is refused. None of these says more than the bearer's holder knows already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It is no token of ours: shape, header or claims.
    #[error("the bearer is malformed")]
    Malformed,
    /// It claims an algorithm other than EdDSA.
    #[error("the bearer's algorithm is not accepted")]
    Algorithm,
    /// No key of that id is known: it may be newer than what this verifier has read.
    #[error("the bearer names an unknown key")]
    UnknownKey,
    /// The signature is not that of the key it names.
    #[error("the bearer's signature is wrong")]
    Signature,
    /// Its time is over.
    #[error("the bearer has expired")]
    Expired,
    /// It is from the future by more than clocks may differ.
    #[error("the bearer is not valid yet")]
    NotYetValid,
    /// It belongs to another project.
    #[error("the bearer is of another project")]
    ForeignProject,
    /// It was not minted for this service.
    #[error("the bearer is not for this audience")]
    WrongAudience,
}

/// Signs `claims`.
pub fn mint(key: &SigningKey, claims: &Claims) -> Result<String, MintError> {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some(key.public().kid().to_owned());
    jsonwebtoken::encode(&header, claims, key.encoding()).map_err(MintError)
}

/// Checks bearers of one project against the issuer's public keys.
pub struct Verifier {
    project: ProjectId,
    keys: HashMap<String, DecodingKey>,
    validation: Validation,
}

impl Verifier {
    /// A verifier of `project` that accepts what any of `keys` signed.
    pub fn new<'a>(project: ProjectId, keys: impl IntoIterator<Item = &'a PublicKey>) -> Result<Self, InvalidKey> {
        let keys = keys
            .into_iter()
            .map(|key| Ok((key.kid().to_owned(), key.decoding()?)))
            .collect::<Result<_, InvalidKey>>()?;
        Ok(Self { project, keys, validation: signature_only() })
    }

    /// What `token` says, when it may be shown to `audience` at `now`.
    ///
    /// That its epoch is live is not checked here.
    pub fn verify(&self, token: &str, audience: Audience, now: Timestamp) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let header = jsonwebtoken::decode_header(token).map_err(|error| refusal(&error))?;
        if header.alg != Algorithm::EdDSA {
            return Err(TokenError::Algorithm);
        }
        let kid = header.kid.ok_or(TokenError::Malformed)?;
        let key = self.keys.get(&kid).ok_or(TokenError::UnknownKey)?;
        let claims =
            jsonwebtoken::decode::<Claims>(token, key, &self.validation).map_err(|error| refusal(&error))?.claims;
        self.accept(claims, audience, now)
    }

    fn accept(&self, claims: Claims, audience: Audience, now: Timestamp) -> Result<Claims, TokenError> {
        let now = now.as_second();
        if claims.expires_at <= now {
            return Err(TokenError::Expired);
        }
        if claims.issued_at > now.saturating_add(MAX_SKEW_SECONDS) {
            return Err(TokenError::NotYetValid);
        }
        if claims.project != self.project {
            return Err(TokenError::ForeignProject);
        }
        if !claims.audience.contains(&audience) {
            return Err(TokenError::WrongAudience);
        }
        Ok(claims)
    }
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier")
            .field("project", &self.project)
            .field("kids", &self.keys.keys())
            .finish_non_exhaustive()
    }
}

/// Times and audience are checked by `accept`, because there time is an input.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn refusal(error: &jsonwebtoken::errors::Error) -> TokenError {
    match error.kind() {
        ErrorKind::InvalidSignature => TokenError::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            TokenError::Algorithm
        }
        _ => TokenError::Malformed,
    }
}

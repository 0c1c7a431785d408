//! Encodes NATS JWTs, version 2: the claims of operator, account and user, each signed by an nkey.
//!
//! Own code of a page, because the published crates either lag behind the format of the servers we
//! require (no JetStream limits, no response permissions) or bring a code generator along. Only what
//! Nightcrew writes is here: nothing decodes a foreign JWT, the server does that.

use data_encoding::{BASE32_NOPAD, BASE64URL_NOPAD};
use nkeys::KeyPair;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha512_256};

use super::permissions::{Permissions, Rule};

/// Version of the claims layout that servers since 2.2 read.
const CLAIMS_VERSION: u8 = 2;

/// NATS' way to write "no limit".
const NO_LIMIT: i64 = -1;

/// What an account may use of JetStream. `None` is without limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JetStreamLimits {
    /// Bytes of all memory streams.
    pub memory: Option<u64>,
    /// Bytes of all file streams.
    pub disk: Option<u64>,
}

/// Signing failed: the key pair holds no seed.
#[derive(Debug, thiserror::Error)]
#[error("signing a NATS JWT for `{name}`")]
pub struct SignError {
    name: String,
    #[source]
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// The operator's own claims: it signs itself and names the system account.
pub(super) fn operator(key: &KeyPair, name: &str, system_account: &str, issued_at: i64) -> Result<String, SignError> {
    let nats = json!({
        "type": "operator",
        "version": CLAIMS_VERSION,
        "system_account": system_account,
    });
    encode(key, &key.public_key(), name, issued_at, &nats)
}

/// The claims of an account without JetStream: the system account.
pub(super) fn system_account(operator: &KeyPair, account: &str, issued_at: i64) -> Result<String, SignError> {
    let nats = account_claims(None);
    encode(operator, account, "SYS", issued_at, &nats)
}

/// What a project's account is made of.
pub(super) struct ProjectAccount<'a> {
    /// Its public key.
    pub(super) key: &'a str,
    pub(super) name: &'a str,
    pub(super) limits: JetStreamLimits,
    /// Public key that may sign users with any permissions: the issuer's.
    pub(super) signing_key: &'a str,
    /// Roles: a public key that may sign users with these permissions and no others.
    pub(super) roles: Vec<(&'a str, &'a str, Permissions)>,
}

/// The claims of a project's account.
///
/// The permissions of services stand here, once a role, and not in the users' JWTs: a client sends its JWT
/// in one line of at most 4 KiB, which these lists exceed, and a new table then needs no new credentials.
pub(super) fn project_account(
    operator: &KeyPair,
    account: &ProjectAccount<'_>,
    issued_at: i64,
) -> Result<String, SignError> {
    let mut nats = account_claims(Some(account.limits));
    let mut signing_keys = vec![json!(account.signing_key)];
    signing_keys.extend(account.roles.iter().map(|(role, key, permissions)| {
        json!({
            "kind": "user_scope",
            "key": key,
            "role": role,
            "template": user_permissions(permissions),
        })
    }));
    nats["signing_keys"] = json!(signing_keys);
    encode(operator, account.key, account.name, issued_at, &nats)
}

/// The claims of a user whose permissions are those of the role that signs it.
pub(super) fn user_of_role(
    role: &KeyPair,
    account: &str,
    user: &str,
    name: &str,
    issued_at: i64,
) -> Result<String, SignError> {
    let nats = json!({
        "type": "user",
        "version": CLAIMS_VERSION,
        "issuer_account": account,
    });
    encode(role, user, name, issued_at, &nats)
}

/// The claims of a user with permissions of its own, signed by its account.
pub(super) fn user(
    account: &KeyPair,
    user: &str,
    name: &str,
    permissions: &Permissions,
    issued_at: i64,
) -> Result<String, SignError> {
    let mut nats = user_permissions(permissions);
    nats["type"] = json!("user");
    nats["version"] = json!(CLAIMS_VERSION);
    encode(account, user, name, issued_at, &nats)
}

/// The `nats` part of a JWT made here, to compare what stands with what should. `None` when it is not one.
pub(super) fn decode_nats(jwt: &str) -> Option<Value> {
    decode(jwt)?.get_mut("nats").map(Value::take)
}

/// Public key of who signed a JWT made here.
pub(super) fn issuer(jwt: &str) -> Option<String> {
    Some(decode(jwt)?.get("iss")?.as_str()?.to_owned())
}

fn decode(jwt: &str) -> Option<Value> {
    let payload = jwt.split('.').nth(1)?;
    let bytes = BASE64URL_NOPAD.decode(payload.as_bytes()).ok()?;
    serde_json::from_slice(&bytes).ok()
}

fn account_claims(jetstream: Option<JetStreamLimits>) -> Value {
    let mut limits = json!({
        "subs": NO_LIMIT, "data": NO_LIMIT, "payload": NO_LIMIT,
        "imports": NO_LIMIT, "exports": NO_LIMIT, "wildcards": true,
        "conn": NO_LIMIT, "leaf": NO_LIMIT,
    });
    if let Some(jetstream) = jetstream {
        limits["mem_storage"] = limit(jetstream.memory);
        limits["disk_storage"] = limit(jetstream.disk);
        limits["streams"] = json!(NO_LIMIT);
        limits["consumer"] = json!(NO_LIMIT);
    }
    json!({
        "type": "account",
        "version": CLAIMS_VERSION,
        "limits": limits,
    })
}

fn user_permissions(permissions: &Permissions) -> Value {
    let mut value = json!({
        "pub": rule(&permissions.publish),
        "sub": rule(&permissions.subscribe),
        "subs": NO_LIMIT,
        "data": NO_LIMIT,
        "payload": NO_LIMIT,
    });
    if let Some(responses) = permissions.responses {
        value["resp"] = json!({
            "max": responses.max_messages,
            "ttl": u64::try_from(responses.within.as_nanos()).unwrap_or(u64::MAX),
        });
    }
    value
}

fn limit(bytes: Option<u64>) -> Value {
    bytes.map_or(json!(NO_LIMIT), |bytes| json!(bytes))
}

fn rule(rule: &Rule) -> Value {
    let mut value = json!({});
    if !rule.allow.is_empty() {
        value["allow"] = json!(rule.allow);
    }
    if !rule.deny.is_empty() {
        value["deny"] = json!(rule.deny);
    }
    value
}

/// A JWT id is the digest of the claims without it.
fn encode(signer: &KeyPair, subject: &str, name: &str, issued_at: i64, nats: &Value) -> Result<String, SignError> {
    let mut claims = json!({
        "iat": issued_at,
        "iss": signer.public_key(),
        "name": name,
        "sub": subject,
        "nats": nats,
    });
    let digest = Sha512_256::digest(claims.to_string().as_bytes());
    claims["jti"] = json!(BASE32_NOPAD.encode(&digest));

    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let signing_input = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(header.to_string().as_bytes()),
        BASE64URL_NOPAD.encode(claims.to_string().as_bytes()),
    );
    let signature = signer
        .sign(signing_input.as_bytes())
        .map_err(|source| SignError { name: name.to_owned(), source: Box::new(source) })?;
    Ok(format!("{signing_input}.{}", BASE64URL_NOPAD.encode(&signature)))
}

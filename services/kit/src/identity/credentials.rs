//! The credentials file of a user: its JWT and its seed, as every NATS client reads them.

use std::path::{Path, PathBuf};

use nkeys::KeyPair;

use super::claims::SignError;
use super::{InitError, claims, files};

/// Name of the system account's user that pushes account JWTs.
pub(super) const SYSTEM: &str = "system";

pub(super) fn path(dir: &Path, name: &str) -> PathBuf {
    dir.join("creds").join(format!("{name}.creds"))
}

/// Writes the credentials of `name`, keeping its key when there is one, and the whole file when the JWT
/// would say the same.
pub(super) fn write(
    dir: &Path,
    name: &str,
    signer: &str,
    sign: impl FnOnce(&str) -> Result<String, SignError>,
) -> Result<(), InitError> {
    let path = path(dir, name);
    let existing = if path.exists() { Some(parse(&path)?) } else { None };
    let (key, old_jwt) = match existing {
        Some(credentials) => (credentials.key, Some(credentials.jwt)),
        None => (KeyPair::new_user(), None),
    };
    let jwt = sign(&key.public_key())?;
    let same = |old: &str| {
        claims::issuer(old).as_deref() == Some(signer) && claims::decode_nats(old) == claims::decode_nats(&jwt)
    };
    if old_jwt.as_deref().is_some_and(same) {
        return Ok(());
    }
    let seed = key.seed().map_err(|source| InitError::MakeKey(Box::new(source)))?;
    files::write_secret(&path, &text(&jwt, &seed))?;
    Ok(())
}

struct Credentials {
    jwt: String,
    key: KeyPair,
}

fn parse(path: &Path) -> Result<Credentials, InitError> {
    let broken =
        |source: Box<dyn std::error::Error + Send + Sync>| InitError::BrokenKey { path: path.to_owned(), source };
    let text = files::read(path)?;
    let line_after = |marker: &str| text.lines().skip_while(|line| !line.contains(marker)).nth(1).map(str::trim);
    let jwt = line_after("BEGIN NATS USER JWT").ok_or_else(|| broken("no user JWT".into()))?;
    let seed = line_after("BEGIN USER NKEY SEED").ok_or_else(|| broken("no seed".into()))?;
    let key = KeyPair::from_seed(seed).map_err(|source| broken(Box::new(source)))?;
    Ok(Credentials { jwt: jwt.to_owned(), key })
}

fn text(jwt: &str, seed: &str) -> String {
    format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         The seed below is a secret: whoever has this file is this user.\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
}

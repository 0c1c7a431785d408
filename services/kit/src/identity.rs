//! Who everybody is on the bus: operator, accounts, and a user a service, made before NATS first starts.
//!
//! `init` writes one directory that holds all keys of a project (0700, its files 0600) and from which both
//! the server's configuration and each service's credentials are derived. Keys are made once and kept;
//! what is derived from them (JWTs, permissions, configuration) is brought up to date by every later
//! `init`, so an upgrade of Nightcrew with a new permission table needs only that. NATS runs in operator
//! mode with a full resolver: a later revocation is a push, not a restart.
//!
//! Boundary: this module touches files and signs, it never connects. `nats_server` starts what it configured.

mod claims;
mod config;
mod credentials;
mod external;
mod files;
mod permissions;
mod service;

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nkeys::{KeyPair, KeyPairType};

pub use claims::{JetStreamLimits, SignError};
pub use config::{ClusterNode, cluster_config};
pub use permissions::{Permissions, Responses, Rule, durables, permissions};
pub use service::{Service, reader_name};

use crate::token::SigningKey;
use files::{FileError, Manifest};

/// Name of the file that is written last: a directory without it is no finished identity.
const MANIFEST: &str = "identity.json";

/// What a project's identity is made of.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// Name of the project: of its account and of the server.
    pub project: &'a str,
    /// What its account may store.
    pub limits: JetStreamLimits,
    /// Issue time of whatever has to be signed now.
    pub now: Timestamp,
}

/// A finished identity directory.
#[derive(Clone, Debug)]
pub struct Identity {
    dir: PathBuf,
    manifest: Manifest,
}

/// Making or updating an identity failed.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is a directory with content, but not a whole identity.
    #[error(
        "`{}` holds files but no finished identity: an init was interrupted or files were removed; \
         restore it, or move it away and run init again (new keys, new credentials)",
        dir.display()
    )]
    Incomplete {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory belongs to another project.
    #[error("`{}` is the identity of project `{found}`, not of `{wanted}`", dir.display())]
    OtherProject {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// A key does not fit the public keys that the identity was made with.
    #[error("the key in `{}` is not the one that this identity was made with", path.display())]
    ForeignKey {
        /// The key's file.
        path: PathBuf,
    },
    /// A key can not be read as one.
    #[error("`{}` holds no key of the expected kind", path.display())]
    BrokenKey {
        /// The key's file.
        path: PathBuf,
        /// What the key parser said.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A fresh key could not be made or written out.
    #[error("making a key")]
    MakeKey(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// A file could not be read or written.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Makes the identity of a project in `dir`, or brings an existing one up to date.
///
/// A new one is built beside `dir` and renamed into place, so `dir` either is whole or is not there.
/// An existing one keeps every key; missing or outdated JWTs, credentials and configuration are rewritten.
pub fn init(dir: &Path, spec: &Spec<'_>) -> Result<Identity, InitError> {
    if dir.join(MANIFEST).exists() {
        return update(dir, spec);
    }
    if files::has_entries(dir)? {
        return Err(InitError::Incomplete { dir: dir.to_owned() });
    }
    let staging = files::Staging::beside(dir)?;
    let keys = Keys::generate(staging.path())?;
    let manifest = keys.manifest(spec);
    derive(staging.path(), &keys, &manifest, spec.now)?;
    files::write_manifest(&staging.path().join(MANIFEST), &manifest)?;
    staging.publish(dir)?;
    Ok(Identity { dir: dir.to_owned(), manifest })
}

fn update(dir: &Path, spec: &Spec<'_>) -> Result<Identity, InitError> {
    let manifest = Identity::open(dir)?.manifest;
    if manifest.project != spec.project {
        return Err(InitError::OtherProject {
            dir: dir.to_owned(),
            found: manifest.project,
            wanted: spec.project.to_owned(),
        });
    }
    let keys = Keys::read(dir)?;
    keys.check(dir, &manifest)?;
    let manifest = keys.manifest(spec);
    derive(dir, &keys, &manifest, spec.now)?;
    files::write_manifest(&dir.join(MANIFEST), &manifest)?;
    Ok(Identity { dir: dir.to_owned(), manifest })
}

impl Identity {
    /// The identity in `dir`, which `init` must have finished.
    pub fn open(dir: &Path) -> Result<Self, FileError> {
        Ok(Self { dir: dir.to_owned(), manifest: files::read_manifest(&dir.join(MANIFEST))? })
    }

    /// Where it lies.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The project it was made for.
    pub fn project(&self) -> &str {
        &self.manifest.project
    }

    /// Public key of the project's account.
    pub fn account(&self) -> &str {
        &self.manifest.account
    }

    /// The server's configuration. Its paths are relative to the folder the server is started in.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("nats-server.conf")
    }

    /// The credentials of a service's user.
    pub fn creds_file(&self, service: Service) -> PathBuf {
        credentials::path(&self.dir, service.name())
    }

    /// The credentials of the system user that may push account JWTs, and nothing else.
    pub fn system_creds_file(&self) -> PathBuf {
        credentials::path(&self.dir, credentials::SYSTEM)
    }

    /// The folder that only `issuer` reads: the key that signs bearers, and the account's signing key.
    pub fn issuer_dir(&self) -> PathBuf {
        self.dir.join("issuer")
    }

    /// The key that signs the bearers of runs. Only `issuer` reads it.
    pub fn bearer_key_file(&self) -> PathBuf {
        self.dir.join(BEARER_KEY)
    }

    /// What a NATS server of the user's own includes in its configuration.
    pub fn external_config_file(&self) -> PathBuf {
        external::file(&self.dir)
    }

    /// What the administrator of a NATS server of the user's own has to load, and how: plain text.
    pub fn external_instructions(&self) -> String {
        external::instructions(&self.dir, &self.manifest)
    }
}

const OPERATOR_KEY: &str = "keys/operator.nk";
const SYSTEM_KEY: &str = "keys/system.nk";
const ACCOUNT_KEY: &str = "keys/account.nk";
const SIGNING_KEY: &str = "issuer/account-signing.nk";
const BEARER_KEY: &str = "issuer/bearer.key";

/// The secrets of an identity, apart from the users'.
struct Keys {
    operator: KeyPair,
    system: KeyPair,
    account: KeyPair,
    signing: KeyPair,
    roles: Vec<(Service, KeyPair)>,
}

impl Keys {
    fn generate(dir: &Path) -> Result<Self, InitError> {
        for folder in ["keys", "keys/roles", "issuer", "creds", "accounts"] {
            files::make_dir(&dir.join(folder))?;
        }
        let bearer = SigningKey::generate();
        files::write_secret(&dir.join(BEARER_KEY), &bearer.to_text())?;
        Ok(Self {
            operator: new_key(&dir.join(OPERATOR_KEY), KeyPairType::Operator)?,
            system: new_key(&dir.join(SYSTEM_KEY), KeyPairType::Account)?,
            account: new_key(&dir.join(ACCOUNT_KEY), KeyPairType::Account)?,
            signing: new_key(&dir.join(SIGNING_KEY), KeyPairType::Account)?,
            roles: roles(dir)?,
        })
    }

    fn read(dir: &Path) -> Result<Self, InitError> {
        let bearer = dir.join(BEARER_KEY);
        SigningKey::from_text(&files::read(&bearer)?)
            .map_err(|source| InitError::BrokenKey { path: bearer, source: Box::new(source) })?;
        Ok(Self {
            operator: read_key(&dir.join(OPERATOR_KEY))?,
            system: read_key(&dir.join(SYSTEM_KEY))?,
            account: read_key(&dir.join(ACCOUNT_KEY))?,
            signing: read_key(&dir.join(SIGNING_KEY))?,
            roles: roles(dir)?,
        })
    }

    fn manifest(&self, spec: &Spec<'_>) -> Manifest {
        Manifest {
            version: files::MANIFEST_VERSION,
            project: spec.project.to_owned(),
            operator: self.operator.public_key(),
            system_account: self.system.public_key(),
            account: self.account.public_key(),
            account_signing_key: self.signing.public_key(),
            roles: self.roles.iter().map(|(service, key)| (service.name().to_owned(), key.public_key())).collect(),
            limits: spec.limits.into(),
        }
    }

    fn check(&self, dir: &Path, manifest: &Manifest) -> Result<(), InitError> {
        let pairs = [
            (OPERATOR_KEY, &self.operator, &manifest.operator),
            (SYSTEM_KEY, &self.system, &manifest.system_account),
            (ACCOUNT_KEY, &self.account, &manifest.account),
            (SIGNING_KEY, &self.signing, &manifest.account_signing_key),
        ];
        for (file, key, public) in pairs {
            if key.public_key() != *public {
                return Err(InitError::ForeignKey { path: dir.join(file) });
            }
        }
        for (service, key) in &self.roles {
            let known = manifest.roles.get(service.name());
            if known.is_some_and(|known| *known != key.public_key()) {
                return Err(InitError::ForeignKey { path: role_key(dir, *service) });
            }
        }
        Ok(())
    }
}

/// The role keys, made for services that are new since the identity was.
fn roles(dir: &Path) -> Result<Vec<(Service, KeyPair)>, InitError> {
    Service::ALL
        .into_iter()
        .map(|service| {
            let path = role_key(dir, service);
            let key = if path.exists() { read_key(&path) } else { new_key(&path, KeyPairType::Account) };
            Ok((service, key?))
        })
        .collect()
}

fn role_key(dir: &Path, service: Service) -> PathBuf {
    dir.join("keys/roles").join(format!("{service}.nk"))
}

fn new_key(path: &Path, kind: KeyPairType) -> Result<KeyPair, InitError> {
    let key = KeyPair::new(kind);
    let seed = key.seed().map_err(|source| InitError::MakeKey(Box::new(source)))?;
    files::write_secret(path, &seed)?;
    Ok(key)
}

fn read_key(path: &Path) -> Result<KeyPair, InitError> {
    let seed = files::read(path)?;
    KeyPair::from_seed(seed.trim())
        .map_err(|source| InitError::BrokenKey { path: path.to_owned(), source: Box::new(source) })
}

/// Writes all that follows from the keys and the permission table, leaving alone what already says the same.
fn derive(dir: &Path, keys: &Keys, manifest: &Manifest, now: Timestamp) -> Result<(), InitError> {
    let now = now.as_second();
    let operator = claims::operator(&keys.operator, "nightcrew", &manifest.system_account, now)?;
    let operator = files::write_jwt(&dir.join("operator.jwt"), operator)?;
    let system = claims::system_account(&keys.operator, &manifest.system_account, now)?;
    let system = files::write_jwt(&dir.join("accounts/system.jwt"), system)?;
    let account = claims::ProjectAccount {
        key: &manifest.account,
        name: &manifest.project,
        limits: manifest.limits.into(),
        signing_key: &manifest.account_signing_key,
        roles: manifest_roles(manifest),
    };
    let account = claims::project_account(&keys.operator, &account, now)?;
    let account = files::write_jwt(&dir.join("accounts/project.jwt"), account)?;

    for (service, role) in &keys.roles {
        let name = service.name();
        credentials::write(dir, name, &role.public_key(), |user| {
            claims::user_of_role(role, &manifest.account, user, name, now)
        })?;
    }
    let name = credentials::SYSTEM;
    credentials::write(dir, name, &keys.system.public_key(), |user| {
        claims::user(&keys.system, user, name, &permissions::system_user(), now)
    })?;

    let accounts = config::Accounts {
        operator: &operator,
        system_account: (&manifest.system_account, &system),
        project_account: (&manifest.account, &account),
    };
    files::write_if_changed(&dir.join("nats-server.conf"), &config::single_node(&accounts))?;
    files::write_if_changed(&external::file(dir), &external::settings(&accounts))?;
    Ok(())
}

fn manifest_roles(manifest: &Manifest) -> Vec<(&str, &str, Permissions)> {
    manifest
        .roles
        .iter()
        .filter_map(|(name, key)| {
            let service = Service::by_name(name)?;
            Some((name.as_str(), key.as_str(), permissions(service)))
        })
        .collect()
}

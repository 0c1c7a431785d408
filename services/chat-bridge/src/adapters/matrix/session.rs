//! Logging in, and finding the device again after a restart.
//!
//! A device is a session and a crypto store that belong together. They live in a folder, `device-N`, and
//! `session.json` names the one in use. When the homeserver revokes the session, the device is gone there, so the next
//! login is a new device with a new store; the old folder stays for whoever needs its keys.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use kit::{
    config::ExposeSecret as _,
    crew::{Login, Matrix, SecretError, SecretRef},
};
use matrix_sdk::{
    Client, ClientBuildError, SessionMeta, SessionTokens,
    authentication::matrix::MatrixSession,
    config::RequestConfig,
    encryption::EncryptionSettings,
    ruma::api::{client::account::whoami, error::ErrorKind},
    store::{RoomLoadSettings, StateStoreDataKey},
};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::{Lookup, position::replace};

const SESSION_FILE: &str = "session.json";
const LOCK_FILE: &str = "lock";
const DEVICE_FOLDER: &str = "device-";

/// What other devices show as our name.
const DEVICE_NAME: &str = "Nightcrew";

/// How long one request may take.
const REQUEST_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

/// Between two tries of a request that the homeserver can not serve right now. A rate-limited one waits as long as the
/// homeserver says.
const RETRY_EVERY: std::time::Duration = std::time::Duration::from_secs(5);

/// A login that did not succeed.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoginError {
    /// The password or token can not be read.
    #[error("the Matrix secret can not be read")]
    Secret(#[source] SecretError),
    /// There is none.
    #[error("there is no {what} for {user}: {}", set(place))]
    NoSecret {
        /// A password or a token.
        what: &'static str,
        /// Whose.
        user: String,
        /// Where it should be.
        place: SecretRef,
    },
    /// The user in team.yaml is none.
    #[error("{user} is no Matrix user id")]
    NoUser {
        /// As it stands there.
        user: String,
    },
    /// The homeserver logged us in and gave no session.
    #[error("the homeserver gave {user} no session")]
    NoSession {
        /// Who.
        user: String,
    },
    /// The homeserver does not accept them.
    #[error("the homeserver refuses the login of {user}")]
    Refused {
        /// Who.
        user: String,
        /// What it said.
        #[source]
        source: Box<matrix_sdk::Error>,
    },
    /// The token is somebody else's.
    #[error("the token belongs to {found} and not to {wanted}")]
    SomebodyElse {
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: String,
    },
    /// The token was revoked and there is no other.
    #[error("the access token of {user} was revoked")]
    Revoked {
        /// Who.
        user: String,
    },
    /// The homeserver can not be asked.
    #[error("the homeserver can not be reached for the login")]
    Unreachable(#[source] Box<matrix_sdk::Error>),
    /// The store can not be opened.
    #[error("the Matrix store can not be opened")]
    Store(#[source] Box<ClientBuildError>),
    /// The folder can not be used.
    #[error("the folder {} can not be used", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl LoginError {
    /// Whether it may pass by itself.
    pub(super) fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable(_))
    }
}

/// The device in use.
#[derive(Clone, Serialize, Deserialize)]
struct Saved {
    /// Its folder.
    device: u32,
    session: MatrixSession,
    /// Set when the homeserver said that the session is over.
    #[serde(default)]
    revoked: bool,
}

/// The folder of the account, held by this process alone: two clients on one crypto store would destroy it.
pub(super) struct Home {
    folder: PathBuf,
    _lock: File,
}

impl Home {
    /// Takes the folder; fails when another process has it.
    pub(super) fn open(folder: &Path) -> Result<Self, LoginError> {
        let failed = |source| LoginError::Folder { folder: folder.to_owned(), source };
        fs::create_dir_all(folder).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        fs::set_permissions(folder, mode).map_err(failed)?;
        let lock = File::create(folder.join(LOCK_FILE)).map_err(failed)?;
        lock.try_lock().map_err(|error| failed(error.into()))?;
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// Remembers that the homeserver ended the session in use.
    pub(super) fn revoke(&self) -> Result<(), LoginError> {
        if let Some(saved) = self.saved()? {
            self.save(&Saved { revoked: true, ..saved })?;
        }
        Ok(())
    }

    /// The client of the device in use, or of a new one.
    pub(super) async fn log_in(&self, matrix: &Matrix, env: &Lookup) -> Result<Client, LoginError> {
        let saved = self.saved()?;
        let secret = secret(matrix, env)?;
        match (&matrix.login, saved) {
            (Login::Password(_), Some(saved))
                if !saved.revoked && saved.session.meta.user_id.as_str() == matrix.user =>
            {
                self.resume(matrix, &saved).await
            }
            (Login::Password(_), _) => self.new_device(matrix, self.free_device()?, &secret).await,
            (Login::Token(_), saved) => self.with_token(matrix, saved, &secret).await,
        }
    }

    async fn resume(&self, matrix: &Matrix, saved: &Saved) -> Result<Client, LoginError> {
        let client = self.client(matrix, saved.device).await?;
        // See the module `matrix`: a response that comes again must not be taken for one that was handled.
        client
            .state_store()
            .remove_kv_data(StateStoreDataKey::SyncToken)
            .await
            .map_err(|error| LoginError::Unreachable(Box::new(error.into())))?;
        client
            .matrix_auth()
            .restore_session(saved.session.clone(), RoomLoadSettings::default())
            .await
            .map_err(|error| LoginError::Unreachable(Box::new(error)))?;
        Ok(client)
    }

    async fn new_device(&self, matrix: &Matrix, device: u32, password: &SecretString) -> Result<Client, LoginError> {
        let client = self.client(matrix, device).await?;
        client
            .matrix_auth()
            .login_username(&matrix.user, password.expose_secret())
            .initial_device_display_name(DEVICE_NAME)
            .send()
            .await
            .map_err(|error| classify(error, matrix))?;
        let session = client.matrix_auth().session();
        let session = session.ok_or_else(|| LoginError::NoSession { user: matrix.user.clone() })?;
        self.save(&Saved { device, session, revoked: false })?;
        client.encryption().wait_for_e2ee_initialization_tasks().await;
        tracing::info!(user = %matrix.user, device, "logged in to Matrix as a new device");
        Ok(client)
    }

    async fn with_token(
        &self,
        matrix: &Matrix,
        saved: Option<Saved>,
        token: &SecretString,
    ) -> Result<Client, LoginError> {
        let tokens = SessionTokens { access_token: token.expose_secret().to_owned(), refresh_token: None };
        let known = saved.as_ref().is_some_and(|saved| saved.session.tokens.access_token == tokens.access_token);
        if let Some(saved) = saved.as_ref().filter(|_| known) {
            if saved.revoked {
                return Err(LoginError::Revoked { user: matrix.user.clone() });
            }
            return self.resume(matrix, saved).await;
        }
        let meta = whose(matrix, &tokens).await?;
        // The same device with a new token keeps its keys.
        let same = saved.as_ref().filter(|saved| saved.session.meta == meta);
        let device = match same {
            Some(saved) => saved.device,
            None => self.free_device()?,
        };
        let saved = Saved { device, session: MatrixSession { meta, tokens }, revoked: false };
        self.save(&saved)?;
        self.resume(matrix, &saved).await
    }

    async fn client(&self, matrix: &Matrix, device: u32) -> Result<Client, LoginError> {
        let folder = self.folder.join(format!("{DEVICE_FOLDER}{device}"));
        builder(matrix).sqlite_store(&folder, None).build().await.map_err(|error| LoginError::Store(Box::new(error)))
    }

    /// A number that no device has had. A folder may be there without a session: a crash came between the two, or the
    /// session was lost.
    fn free_device(&self) -> Result<u32, LoginError> {
        let failed = |source| LoginError::Folder { folder: self.folder.clone(), source };
        let mut free = 1;
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix(DEVICE_FOLDER)?.parse::<u32>().ok());
            free = free.max(number.map_or(0, |number| number + 1));
        }
        Ok(free)
    }

    fn saved(&self) -> Result<Option<Saved>, LoginError> {
        let failed = |source| LoginError::Folder { folder: self.folder.clone(), source };
        match fs::read(self.folder.join(SESSION_FILE)) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(io::Error::other(error))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    fn save(&self, saved: &Saved) -> Result<(), LoginError> {
        let failed = |source| LoginError::Folder { folder: self.folder.clone(), source };
        let bytes = serde_json::to_vec(saved).map_err(|error| failed(io::Error::other(error)))?;
        replace(&self.folder.join(SESSION_FILE), &bytes).map_err(failed)
    }
}

fn secret(matrix: &Matrix, env: &Lookup) -> Result<SecretString, LoginError> {
    let (what, place) = match &matrix.login {
        Login::Password(place) => ("password", place),
        Login::Token(place) => ("access token", place),
    };
    let none = || LoginError::NoSecret { what, user: matrix.user.clone(), place: place.clone() };
    place.read(|name| env(name)).map_err(LoginError::Secret)?.ok_or_else(none)
}

/// What to do for a secret.
fn set(place: &SecretRef) -> String {
    match place {
        SecretRef::Env(name) => format!("set {name}, or take matrix out of team.yaml"),
        SecretRef::File(path) => format!("write it into {}, or take matrix out of team.yaml", path.display()),
    }
}

fn builder(matrix: &Matrix) -> matrix_sdk::ClientBuilder {
    let encryption = EncryptionSettings { auto_enable_cross_signing: true, ..EncryptionSettings::default() };
    Client::builder()
        .homeserver_url(&matrix.homeserver)
        .respect_login_well_known(false)
        .request_config(RequestConfig::new().timeout(REQUEST_TIMEOUT).max_retry_time(RETRY_EVERY))
        .with_encryption_settings(encryption)
}

/// Asks whom a token belongs to.
async fn whose(matrix: &Matrix, tokens: &SessionTokens) -> Result<SessionMeta, LoginError> {
    let client = builder(matrix).build().await.map_err(|error| LoginError::Store(Box::new(error)))?;
    let somebody = SessionMeta {
        user_id: matrix.user.as_str().try_into().map_err(|_| LoginError::NoUser { user: matrix.user.clone() })?,
        device_id: "unknown".into(),
    };
    client
        .matrix_auth()
        .restore_session(MatrixSession { meta: somebody, tokens: tokens.clone() }, RoomLoadSettings::default())
        .await
        .map_err(|error| LoginError::Unreachable(Box::new(error)))?;
    let answer = client.whoami().await.map_err(|error| classify(error.into(), matrix))?;
    let whoami::v3::Response { user_id, device_id, .. } = answer;
    match device_id {
        Some(device_id) if user_id.as_str() == matrix.user => Ok(SessionMeta { user_id, device_id }),
        _ => Err(LoginError::SomebodyElse { found: user_id.to_string(), wanted: matrix.user.clone() }),
    }
}

fn classify(error: matrix_sdk::Error, matrix: &Matrix) -> LoginError {
    let user = matrix.user.clone();
    match error.client_api_error_kind() {
        Some(ErrorKind::UnknownToken { .. } | ErrorKind::MissingToken) => LoginError::Revoked { user },
        Some(
            ErrorKind::Forbidden | ErrorKind::UserDeactivated | ErrorKind::InvalidUsername | ErrorKind::UserLocked,
        ) => LoginError::Refused { user, source: Box::new(error) },
        _ => LoginError::Unreachable(Box::new(error)),
    }
}

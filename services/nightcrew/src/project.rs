//! The project that a command works on: its files, its keys, and where its state is.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use kit::{clock, crew::Crew, dirs, identity, yaml::Problem};
use sha2::{Digest as _, Sha256};

/// Keys and credentials, relative to the project folder. Never in git.
const HOME: &str = ".nightcrew";

/// Everything that is wrong in the project's files.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Problems(Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "{count} problem{} in the crew's files", if count == 1 { "" } else { "s" })?;
        for problem in &self.0 {
            write!(f, "\n  {problem}")?;
        }
        Ok(())
    }
}

/// A project's folder, as the one path that it has.
pub(crate) fn folder(dir: &Path) -> anyhow::Result<PathBuf> {
    dir.canonicalize().with_context(|| format!("the project folder {} can not be read", dir.display()))
}

/// A project.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The crew's files.
    pub(crate) crew: Arc<Crew>,
    /// Where keys and credentials are.
    home: PathBuf,
    /// Where streams, worktrees and logs are.
    state: PathBuf,
}

impl Project {
    /// Reads the project in `dir`.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Self> {
        let dir = folder(dir)?;
        let crew = Crew::load(&dir).map_err(Problems)?;
        let state = match std::env::var_os("NIGHTCREW_STATE_DIR") {
            Some(state) => PathBuf::from(state),
            None => state_dir(&dir, &crew)?,
        };
        Ok(Self { crew: Arc::new(crew), home: dir.join(HOME), state })
    }

    /// A folder of the project's state.
    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// Where keys and credentials are.
    pub(crate) fn identity_dir(&self) -> PathBuf {
        self.home.join("identity")
    }

    /// The project's identity, made when there is none.
    pub(crate) fn identity(&self) -> anyhow::Result<identity::Identity> {
        std::fs::create_dir_all(&self.home).with_context(|| format!("{} can not be made", self.home.display()))?;
        let ignore = self.home.join(".gitignore");
        if !ignore.exists() {
            std::fs::write(&ignore, "*\n").with_context(|| format!("{} can not be written", ignore.display()))?;
        }
        let spec = identity::Spec {
            project: self.crew.project.as_str(),
            limits: identity::JetStreamLimits::default(),
            now: clock::now(),
        };
        identity::init(&self.identity_dir(), &spec).context("the project's keys can not be made")
    }
}

/// State is kept per project folder, so that two clones of one project never share a log.
fn state_dir(dir: &Path, crew: &Crew) -> anyhow::Result<PathBuf> {
    /// Enough of the digest that two folders of one user never meet.
    const DIGEST_CHARS: usize = 8;
    let digest = data_encoding::HEXLOWER.encode(&Sha256::digest(dir.as_os_str().as_encoded_bytes()));
    let base = dirs::state_dir(&crew.project)?;
    let name = format!("{}-{}", crew.project, &digest[..DIGEST_CHARS]);
    Ok(base.with_file_name(name))
}

//! What the bridge is told by its surroundings. Rooms, accounts and rules are the crew's, in `team.yaml`.

use std::path::{Path, PathBuf};

use kit::config::{Env, Reader};

/// The bridge's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder for Matrix sessions, positions and keys. It must survive a restart: encrypted messages that were sent
    /// to a lost device stay unreadable.
    pub folder: PathBuf,
    /// The environment, in which `team.yaml` may say that a password or token stands.
    pub env: Env,
}

impl Config {
    /// Reads `NIGHTCREW_CHAT_DIR`; `state_dir` is the project's.
    pub fn read(reader: &mut Reader<'_>, env: &Env, state_dir: &Path) -> Self {
        Self { folder: reader.path("CHAT_DIR", &state_dir.join("chat")), env: env.clone() }
    }
}

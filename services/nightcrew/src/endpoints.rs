//! Where the services of a crew that is up can be reached: a small file that `up` writes and commands read.

use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

/// The file's name in the project's state.
const FILE: &str = "endpoints.json";

/// Where services are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoints {
    /// Process that wrote this.
    pub(crate) pid: u32,
    /// The bus.
    pub(crate) nats_url: String,
    /// budget-proxy.
    pub(crate) proxy_url: String,
    /// The rehearsal model, when it runs.
    pub(crate) rehearsal_url: Option<String>,
}

impl Endpoints {
    /// Writes the file whole or not at all.
    pub(crate) fn write(&self, state: &Path) -> anyhow::Result<()> {
        let temporary = state.join(format!("{FILE}.{}", self.pid));
        std::fs::write(&temporary, serde_json::to_vec_pretty(self)?)
            .and_then(|()| std::fs::rename(&temporary, state.join(FILE)))
            .with_context(|| format!("{FILE} can not be written in {}", state.display()))
    }

    /// Reads the file.
    pub(crate) fn read(state: &Path) -> anyhow::Result<Self> {
        let path = state.join(FILE);
        let text = std::fs::read(&path).with_context(|| {
            format!("no crew is up in this project ({} is not there): run `nightcrew up`", path.display())
        })?;
        serde_json::from_slice(&text).with_context(|| format!("{} can not be understood", path.display()))
    }
}

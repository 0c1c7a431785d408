//! What the runner is told by its surroundings.

use std::path::PathBuf;

use kit::crew;

use crate::run::Limits;

/// The runner's configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// This process, unique among all runners that ever were: it stands in `started` and `resumed`.
    pub runner: String,
    /// Where budget-proxy listens.
    pub proxy_url: String,
    /// Where repositories and worktrees are kept. Everything in it can be lost: runs go on from the log.
    pub state_dir: PathBuf,
}

impl Config {
    /// The loop breakers of `team.yaml`, and those that no user should have to think about.
    pub fn limits(&self, team: &crew::Limits) -> Limits {
        Limits {
            max_steps: team.max_steps,
            max_tokens: team.max_tokens,
            max_handoffs: team.max_handoffs,
            max_depth: team.max_handoff_depth,
            max_same_handoff: team.max_repeats,
            max_same_step: team.max_repeats.max(2),
            ..Limits::default()
        }
    }
}

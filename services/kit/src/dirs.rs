//! Where Nightcrew keeps what is not in the project's folder: the XDG base directories, on every Unix.
//!
//! These only name directories; whoever writes there creates them.

use std::path::PathBuf;

use etcetera::base_strategy::{BaseStrategy, Xdg};
use schemas::ProjectId;

/// The folder inside each base directory.
const APP: &str = "nightcrew";

/// There is no home directory to derive a path from.
#[derive(Debug, thiserror::Error)]
#[error("no home directory: set HOME, or XDG_STATE_HOME and XDG_CACHE_HOME")]
pub struct NoHome(#[source] etcetera::HomeDirError);

/// `$XDG_STATE_HOME/nightcrew/<project>`: what must survive a restart and belongs to one project.
pub fn state_dir(project: &ProjectId) -> Result<PathBuf, NoHome> {
    let base = Xdg::new().map_err(NoHome)?;
    let state = base.state_dir().unwrap_or_else(|| base.home_dir().join(".local/state"));
    Ok(state.join(APP).join(project.as_str()))
}

/// `$XDG_CACHE_HOME/nightcrew`: what may be deleted at any time and is shared by all projects.
pub fn cache_dir() -> Result<PathBuf, NoHome> {
    Ok(Xdg::new().map_err(NoHome)?.cache_dir().join(APP))
}

/// `$XDG_CONFIG_HOME/nightcrew`: settings of this user for all projects.
pub fn config_dir() -> Result<PathBuf, NoHome> {
    Ok(Xdg::new().map_err(NoHome)?.config_dir().join(APP))
}

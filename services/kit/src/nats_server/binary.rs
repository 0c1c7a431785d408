//! Finds a nats-server that is new enough.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Environment variable that names the program.
const VARIABLE: &str = "NIGHTCREW_NATS_SERVER";

/// Cron schedules, atomic batches and counters need it.
const REQUIRED: (u32, u32) = (2, 14);

/// There is no fitting nats-server.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// Neither the variable nor the path names one.
    #[error(
        "nats-server was not found: install version {}.{} or later into PATH, or name it in {VARIABLE}",
        REQUIRED.0, REQUIRED.1
    )]
    Missing,
    /// It could not be asked for its version.
    #[error("asking `{}` for its version", path.display())]
    Ask {
        /// The program.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It answered something else.
    #[error("`{}` is no nats-server: asked for its version it said `{said}`", path.display())]
    Foreign {
        /// The program.
        path: PathBuf,
        /// Its answer.
        said: String,
    },
    /// It is too old.
    #[error("`{}` is nats-server {found}, Nightcrew needs {}.{} or later", path.display(), REQUIRED.0, REQUIRED.1)]
    TooOld {
        /// The program.
        path: PathBuf,
        /// Its version.
        found: String,
    },
}

/// The nats-server to use: `NIGHTCREW_NATS_SERVER`, else the first in `PATH`; its version checked.
pub async fn find_binary() -> Result<PathBuf, BinaryError> {
    let named = env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let path = match named {
        Some(named) => PathBuf::from(named),
        None => env::var_os("PATH").and_then(|path| in_path(&path)).ok_or(BinaryError::Missing)?,
    };
    checked(path).await
}

/// `path`, when it is a nats-server that is new enough.
pub(super) async fn checked(path: PathBuf) -> Result<PathBuf, BinaryError> {
    let output = Command::new(&path)
        .arg("--version")
        .output()
        .await
        .map_err(|source| BinaryError::Ask { path: path.clone(), source })?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let Some((found, version)) = parse_version(&said) else {
        return Err(BinaryError::Foreign { path, said });
    };
    if version < REQUIRED {
        return Err(BinaryError::TooOld { path, found: found.to_owned() });
    }
    Ok(path)
}

fn in_path(path: &OsStr) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join("nats-server")).find(|candidate| Path::is_file(candidate))
}

/// `nats-server: v2.15.1` gives `("2.15.1", (2, 15))`.
fn parse_version(said: &str) -> Option<(&str, (u32, u32))> {
    let version = said.strip_prefix("nats-server:")?.trim();
    let version = version.strip_prefix('v').unwrap_or(version);
    let mut parts = version.split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?.parse().ok()?;
    Some((version, (major, minor)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_prints_them() {
        assert_eq!(parse_version("nats-server: v2.15.1"), Some(("2.15.1", (2, 15))));
        assert_eq!(parse_version("nats-server: v2.14.0-RC.1"), Some(("2.14.0-RC.1", (2, 14))));
        assert_eq!(parse_version("GNU bash, version 5.2"), None);
    }
}

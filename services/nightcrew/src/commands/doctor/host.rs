//! What the machine has to have.

use std::{path::PathBuf, time::Duration};

use agent_runner::sandbox::{Bubblewrap, BubblewrapConfig, SandboxError};
use kit::{class::chain, nats_server};
use schemas::cli::Examined;
use tokio::process::Command;

use super::{bad, good, skipped, weak};

/// How long a program may take to say its version.
const VERSION_WITHIN: Duration = Duration::from_secs(5);

/// The oldest git that makes worktrees as agents need them.
const GIT: (u32, u32) = (2, 38);

/// The oldest Python in which the demo's homeserver runs.
const PYTHON: (u32, u32) = (3, 10);

/// How to get bubblewrap.
const GET_BUBBLEWRAP: &str = "install it: `apt install bubblewrap`, `dnf install bubblewrap`, ...";

/// nats-server; not needed when the bus is somebody else's.
pub(super) async fn nats_server(bus_is_given: bool) -> Examined {
    const CHECK: &str = "nats-server";
    match nats_server::find_binary().await {
        Ok(path) => {
            let version = version(&path.to_string_lossy(), &["--version"]).await.unwrap_or_default();
            let version = version.trim_start_matches("nats-server: v").to_owned();
            Examined { version: Some(version), ..good(CHECK, path.display().to_string()) }
        }
        Err(error) if bus_is_given => skipped(CHECK, format!("not needed, because a bus is given: {}", chain(&error))),
        Err(error) => {
            bad(CHECK, chain(&error), "`./justw up` gets it, or: go install github.com/nats-io/nats-server/v2@latest")
        }
    }
}

/// The program under the sandbox.
pub(super) async fn bubblewrap() -> Examined {
    const CHECK: &str = "bubblewrap";
    match version("bwrap", &["--version"]).await {
        Some(said) => {
            let version = said.trim_start_matches("bubblewrap ").to_owned();
            Examined { version: Some(version), ..good(CHECK, "commands of agents can be confined") }
        }
        None => bad(CHECK, "bwrap was not found: agents can not run commands", GET_BUBBLEWRAP),
    }
}

/// Whether the kernel lets bubblewrap do its work: a command is run as those of agents are.
pub(super) async fn sandbox() -> Examined {
    const CHECK: &str = "user namespaces";
    // A folder of its own, so that nothing of a crew that is up is touched.
    let folder = match tempfile::tempdir() {
        Ok(folder) => folder,
        Err(error) => return skipped(CHECK, format!("no folder can be made: {error}")),
    };
    let probed = match Bubblewrap::new(BubblewrapConfig::new(folder.path())) {
        Ok(sandbox) => sandbox.probe().await,
        Err(error) => Err(error),
    };
    match probed {
        Ok(()) => good(CHECK, "a sandbox can be had"),
        Err(SandboxError::ProgramMissing { .. }) => skipped(CHECK, "bubblewrap is missing"),
        Err(error) => bad(
            CHECK,
            format!("no sandbox can be had: {}", chain(&error)),
            "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, \
             or kernel.apparmor_restrict_unprivileged_userns=0; in a container, its seccomp profile",
        ),
    }
}

/// git, with which worktrees are made.
pub(super) async fn git() -> Examined {
    const CHECK: &str = "git";
    match version("git", &["--version"]).await {
        Some(said) => {
            let version = said.trim_start_matches("git version ").to_owned();
            let examined = if is_before(&version, GIT) {
                bad(CHECK, format!("{}.{} or later is needed", GIT.0, GIT.1), "install a later one")
            } else {
                good(CHECK, "worktrees can be made")
            };
            Examined { version: Some(version), ..examined }
        }
        None => {
            bad(CHECK, "it was not found: agents can not work on repositories", "install it: `apt install git`, ...")
        }
    }
}

/// Python, in which the demo's homeserver is written. Nobody else needs it.
pub(super) async fn python() -> Examined {
    const CHECK: &str = "python3";
    match version("python3", &["--version"]).await {
        Some(said) => {
            let version = said.trim_start_matches("Python ").to_owned();
            let examined = if is_before(&version, PYTHON) {
                weak(CHECK, format!("the demo needs {}.{} or later", PYTHON.0, PYTHON.1), "install a later one")
            } else {
                good(CHECK, "the demo's homeserver can run")
            };
            Examined { version: Some(version), ..examined }
        }
        None => weak(
            CHECK,
            "it was not found",
            "only `./justw demo` needs it, for a homeserver of its own: `apt install python3-venv`",
        ),
    }
}

/// The first line of what a program says of itself; none when it can not be run.
async fn version(program: &str, args: &[&str]) -> Option<String> {
    let asked =
        Command::new(PathBuf::from(program)).args(args).stdin(std::process::Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(VERSION_WITHIN, asked).await.ok()?.ok()?;
    let said = String::from_utf8_lossy(&output.stdout);
    output.status.success().then(|| said.lines().next().unwrap_or_default().trim().to_owned())
}

/// Whether a version is certainly earlier than what is needed; one that can not be read is taken on trust.
fn is_before(version: &str, needed: (u32, u32)) -> bool {
    let mut parts = version.split('.').map_while(|part| part.parse().ok());
    let found: Option<(u32, u32)> = parts.next().zip(parts.next());
    found.is_some_and(|found| found < needed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        for (version, before) in
            [("2.9.1", true), ("2.38.0", false), ("2.100", false), ("3.0.1-rc", false), ("odd", false)]
        {
            assert_eq!(is_before(version, GIT), before, "{version}");
        }
    }
}

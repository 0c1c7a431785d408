//! The adapter for bubblewrap.
//!
//! The kernel ends a sandbox when the *thread* that started it ends, which a thread of a shared pool may do at any time. So all
//! sandboxes are started on one thread that lives as long as the adapter: a runtime of one worker that nothing else uses.

use std::{
    env,
    path::{Path, PathBuf},
};

use futures::future::BoxFuture;
use schemas::RunId;
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

use super::{Sandbox, SandboxCommand, SandboxError, SandboxOutput, orphans, process, profile::Profile};

/// What the adapter needs to know.
#[derive(Debug, Clone)]
pub struct BubblewrapConfig {
    /// The program, absolute or searched in `PATH`: usually `bwrap`.
    pub program: PathBuf,
    /// Where the adapter keeps its few files; absolute.
    pub state_dir: PathBuf,
    /// More of the host that commands may read, at the same path: toolchains outside `/usr`. What is absent is left out.
    pub read_only: Vec<PathBuf>,
    /// Folders searched for programs before the usual ones.
    pub path: Vec<PathBuf>,
}

impl BubblewrapConfig {
    /// `bwrap` from `PATH`, and nothing of the host but `/usr`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { program: "bwrap".into(), state_dir: state_dir.into(), read_only: Vec::new(), path: Vec::new() }
    }
}

/// Runs commands under bubblewrap. Dropping it ends all that run.
pub struct Bubblewrap {
    program: PathBuf,
    profile: Profile,
    starter: Option<Runtime>,
}

impl Bubblewrap {
    /// Finds the program, writes the adapter's files, and ends what a killed process left half set up. Whether the kernel agrees is seen by [`Bubblewrap::probe`].
    pub fn new(config: BubblewrapConfig) -> Result<Self, SandboxError> {
        let program = find(&config.program).ok_or(SandboxError::ProgramMissing { program: config.program })?;
        let profile = Profile::prepare(&config.state_dir, config.read_only, config.path)?;
        orphans::sweep(&profile.etc);
        let starter = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("sandbox")
            .enable_all()
            .build()
            .map_err(|source| SandboxError::Io { doing: "starting its thread", source })?;
        Ok(Self { program, profile, starter: Some(starter) })
    }

    /// The program that is used.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Runs a command that does nothing: whether a sandbox can be had here, and if not, why.
    pub async fn probe(&self) -> Result<(), SandboxError> {
        let output = self.run(SandboxCommand::new(RunId::from_uuid(Uuid::nil()), ["true"])).await?;
        if output.exit.success() {
            return Ok(());
        }
        Err(SandboxError::Setup { detail: format!("`true` ended with {:?}: {}", output.exit, output.stderr.text()) })
    }
}

impl Sandbox for Bubblewrap {
    fn run(&self, mut command: SandboxCommand) -> BoxFuture<'_, Result<SandboxOutput, SandboxError>> {
        Box::pin(async move {
            let args = self.profile.arguments(&command)?;
            // Dropped is cancelled, not aborted: a sandbox that is just being set up must be ended in order.
            command.cancel = command.cancel.child_token();
            let _ended_when_dropped = command.cancel.clone().drop_guard();
            let starter = self.starter.as_ref().ok_or(SandboxError::ShutDown)?;
            let running = starter.spawn(process::run(self.program.clone(), args, command));
            running.await.unwrap_or(Err(SandboxError::ShutDown))
        })
    }
}

impl Drop for Bubblewrap {
    fn drop(&mut self) {
        // Waiting for the thread is not allowed inside a runtime; it has nothing to finish but killing.
        if let Some(starter) = self.starter.take() {
            starter.shutdown_background();
        }
    }
}

fn find(program: &Path) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned());
    }
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

//! What the tests of this binary share.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use agent_runner::sandbox::{
    Bubblewrap, BubblewrapConfig, Mount, Sandbox as _, SandboxCommand, SandboxOutput,
};
use schemas::RunId;
use uuid::Uuid;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const RUN: RunId = RunId::from_uuid(Uuid::from_u128(0x0a11));

pub(crate) fn bubblewrap(state_dir: &Path) -> Arc<Bubblewrap> {
    Arc::new(Bubblewrap::new(BubblewrapConfig::new(state_dir)).unwrap())
}

/// A sandbox with one writable folder at `/work`.
pub(crate) struct TestBox {
    pub(crate) state: tempfile::TempDir,
    pub(crate) sandbox: Arc<Bubblewrap>,
}

impl TestBox {
    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("work")).unwrap();
        let sandbox = bubblewrap(state.path());
        Self { state, sandbox }
    }

    pub(crate) fn work(&self) -> PathBuf {
        self.state.path().join("work")
    }

    pub(crate) fn command(&self, script: &str) -> SandboxCommand {
        SandboxCommand {
            mounts: vec![Mount::writable(self.work(), "/work")],
            cwd: "/work".into(),
            merge_stderr: true,
            ..SandboxCommand::new(RUN, ["bash", "-c", script])
        }
    }

    pub(crate) async fn run(&self, script: &str) -> SandboxOutput {
        self.sandbox.run(self.command(script)).await.unwrap()
    }
}

/// Whether a process of this machine has `mark` among its arguments.
pub(crate) fn is_running(mark: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap();
    processes.flatten().any(|process| {
        let arguments = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&arguments).contains(mark)
    })
}

/// Waits for `condition`; panics with `what` when it does not come true.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < DEADLINE, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

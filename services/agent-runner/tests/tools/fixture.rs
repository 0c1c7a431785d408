//! What the tests of this binary share.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use agent_runner::{
    sandbox::{Bubblewrap, BubblewrapConfig, Exit, Mount, Sandbox as _, SandboxCommand, SandboxOutput},
    worktree::{
        Author, BundleError, BundleSource, Repository, Snapshot, SnapshotRef, StartPoint, WORKTREE, Worktree, Worktrees,
    },
};
use bytes::Bytes;
use futures::future::BoxFuture;
use schemas::{AgentName, RunId};
use uuid::Uuid;

/// How long a condition may take to come true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) const RUN: RunId = RunId::from_uuid(Uuid::from_u128(0x0a11));

pub(crate) const CHILD: RunId = RunId::from_uuid(Uuid::from_u128(0xc411d));

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

/// Runs git on a repository of the test.
pub(crate) fn git(repository: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@test.invalid", "-C"])
        .arg(repository)
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

pub(crate) fn author() -> Author {
    Author { agent: AgentName::try_new("coder").unwrap(), at: "2026-11-21T03:00:00Z".parse().unwrap() }
}

/// A machine: a state folder with worktrees, and a source repository that other machines may share.
pub(crate) struct Site {
    pub(crate) state: tempfile::TempDir,
    pub(crate) source: PathBuf,
    pub(crate) repository: Repository,
    pub(crate) sandbox: Arc<Bubblewrap>,
    pub(crate) worktrees: Worktrees,
}

impl Site {
    /// What the source holds, beside a link.
    pub(crate) const CONTENT: [(&str, &str); 3] = [("README", "one\n"), ("link", "one\n"), ("src/lib", "lib\n")];

    pub(crate) fn new() -> Self {
        let state = tempfile::tempdir().unwrap();
        let source = state.path().join("source");
        fs::create_dir_all(source.join("src")).unwrap();
        fs::write(source.join("README"), "one\n").unwrap();
        fs::write(source.join("src/lib"), "lib\n").unwrap();
        std::os::unix::fs::symlink("README", source.join("link")).unwrap();
        git(&source, &["init", "--quiet", "--initial-branch=main"]);
        git(&source, &["add", "--all"]);
        git(&source, &["commit", "--quiet", "--message=first"]);
        Self::at(state, source)
    }

    /// Another machine with an empty disk.
    pub(crate) fn with_source(other: &Self) -> Self {
        Self::at(tempfile::tempdir().unwrap(), other.source.clone())
    }

    fn at(state: tempfile::TempDir, source: PathBuf) -> Self {
        let sandbox = bubblewrap(state.path());
        let worktrees = Worktrees::new(state.path(), sandbox.clone());
        let repository = Repository::try_new("demo", source.to_str().unwrap(), "main").unwrap();
        Self { state, source, repository, sandbox, worktrees }
    }

    pub(crate) async fn ensure(&self, restore: &[SnapshotRef]) -> Worktree {
        let bundles = Bundles::default();
        self.worktrees.ensure(RUN, &self.repository, &StartPoint::Base, restore, &bundles).await.unwrap()
    }

    pub(crate) async fn ensure_from(&self, run: RunId, bundles: &Bundles) -> Worktree {
        self.worktrees.ensure(run, &self.repository, &StartPoint::Base, &bundles.saved, bundles).await.unwrap()
    }

    /// Runs a script as an agent would; its code and what it said.
    pub(crate) async fn shell(&self, worktree: &Worktree, script: &str) -> (i32, String) {
        let command = SandboxCommand {
            mounts: worktree.mounts(),
            cwd: WORKTREE.into(),
            merge_stderr: true,
            ..SandboxCommand::new(RUN, ["bash", "-c", script])
        };
        let output = self.sandbox.run(command).await.unwrap();
        let Exit::Code(code) = output.exit else { panic!("{output:?}") };
        (code, output.stdout.text())
    }
}

/// Where the worktree is outside the sandbox.
pub(crate) fn tree(worktree: &Worktree) -> PathBuf {
    worktree.mounts().into_iter().find(|mount| mount.at == Path::new(WORKTREE)).unwrap().host
}

/// The text of each file, links followed.
pub(crate) fn contents(worktree: &Worktree) -> BTreeMap<PathBuf, String> {
    let state = state(worktree);
    let tree = tree(worktree);
    state.into_keys().map(|path| (path.clone(), fs::read_to_string(tree.join(&path)).unwrap())).collect()
}

/// Each file with what git keeps of its mode, and its content or where it links to.
pub(crate) fn state(worktree: &Worktree) -> BTreeMap<PathBuf, String> {
    let mut state = BTreeMap::new();
    let root = tree(worktree);
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            let text = if kind.is_symlink() {
                format!("120000 {}", fs::read_link(&path).unwrap().display())
            } else if kind.is_dir() {
                folders.push(path);
                continue;
            } else {
                let executable = fs::metadata(&path).unwrap().permissions().mode() & 0o100 != 0;
                let content = fs::read(&path).unwrap();
                let content = content.iter().map(|byte| char::from(*byte)).collect::<String>();
                format!("{} {content}", if executable { "100755" } else { "100644" })
            };
            state.insert(path.strip_prefix(&root).unwrap().to_owned(), text);
        }
    }
    state.remove(Path::new(".git"));
    state
}

/// The blobs: bundles by digest, and the snapshots in the log.
#[derive(Default)]
pub(crate) struct Bundles {
    pub(crate) saved: Vec<SnapshotRef>,
    blobs: HashMap<String, Bytes>,
}

impl Bundles {
    /// Takes a snapshot and journals it, as the runner does.
    pub(crate) async fn save(&mut self, worktree: &Worktree) -> Option<Snapshot> {
        let snapshot = worktree.snapshot(self.saved.last()).await.unwrap()?;
        let digest = format!("blob-{}", self.saved.len());
        self.blobs.insert(digest.clone(), snapshot.bundle.clone());
        self.saved.push(snapshot.reference(digest));
        Some(snapshot)
    }
}

impl BundleSource for Bundles {
    fn bundle<'a>(&'a self, snapshot: &'a SnapshotRef) -> BoxFuture<'a, Result<Bytes, BundleError>> {
        let bundle = self.blobs.get(&snapshot.bundle).cloned().ok_or_else(|| "no such blob".into());
        Box::pin(async move { bundle })
    }
}

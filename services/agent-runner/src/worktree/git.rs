//! git, in the sandbox. Every call that could read what an agent wrote goes through here.

use std::{ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use schemas::RunId;

use super::{GIT_DIR, MIRROR_OBJECTS, WORKTREE, slot::Slot};
use crate::sandbox::{Access, Captured, Exit, Keep, Limits, Mount, Sandbox, SandboxCommand, SandboxError};

/// How long one call may take. A capture of 200,000 files takes some 10 s on a cold cache.
const TIMEOUT: Duration = Duration::from_mins(2);

/// How much of what git says is kept for an error.
const MAX_SAID_BYTES: usize = 2 * 1024;

/// What a call may print when all of it is needed: 200,000 paths of 300 bytes.
pub(super) const MAX_LISTING_BYTES: usize = 64 << 20;

/// Settings that no file can override. Hooks, monitors and remote protocols are how git runs programs; the rest keeps its
/// output as it is parsed here, and its work inside this one repository.
const SETTINGS: [(&str, &str); 15] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "false"),
    ("core.attributesFile", "/dev/null"),
    ("core.excludesFile", "/dev/null"),
    ("core.quotePath", "false"),
    ("core.protectNTFS", "false"),
    ("core.protectHFS", "false"),
    ("core.commitGraph", "false"),
    ("protocol.allow", "never"),
    ("gc.auto", "0"),
    ("maintenance.auto", "false"),
    ("commit.gpgSign", "false"),
    ("diff.ignoreSubmodules", "all"),
    ("submodule.recurse", "false"),
];

/// Git of one run.
#[derive(Clone)]
pub(super) struct Git {
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) run_id: RunId,
    pub(super) slot: Arc<Slot>,
    pub(super) mirror_objects: PathBuf,
}

/// One call: what it runs and what it may touch. Unless said otherwise it reads the repository and sees no worktree.
pub(super) struct Call {
    doing: &'static str,
    argv: Vec<OsString>,
    repository: Access,
    tree: Option<Access>,
    stdin: Bytes,
    env: Vec<(String, OsString)>,
    mounts: Vec<Mount>,
    keep: Keep,
}

impl Call {
    /// One git command. `doing` names it in errors.
    pub(super) fn git(doing: &'static str, args: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self::new(doing, ["git".into()].into_iter().chain(args.into_iter().map(Into::into)).collect())
    }

    /// Several git commands in one sandbox: a bash script of ours and its arguments.
    pub(super) fn script(
        doing: &'static str,
        script: &str,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        let bash = ["bash".into(), "-euo".into(), "pipefail".into(), "-c".into(), script.into(), "git".into()];
        Self::new(doing, bash.into_iter().chain(args.into_iter().map(Into::into)).collect())
    }

    fn new(doing: &'static str, argv: Vec<OsString>) -> Self {
        Self {
            doing,
            argv,
            repository: Access::ReadOnly,
            tree: None,
            stdin: Bytes::new(),
            env: Vec::new(),
            mounts: Vec::new(),
            keep: Keep::All(MAX_LISTING_BYTES),
        }
    }

    /// It changes the repository.
    pub(super) fn writing(mut self) -> Self {
        self.repository = Access::Writable;
        self
    }

    /// It sees the worktree.
    pub(super) fn tree(mut self, access: Access) -> Self {
        self.tree = Some(access);
        self
    }

    pub(super) fn stdin(mut self, stdin: impl Into<Bytes>) -> Self {
        self.stdin = stdin.into();
        self
    }

    pub(super) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    pub(super) fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    pub(super) fn keep(mut self, keep: Keep) -> Self {
        self.keep = keep;
        self
    }
}

impl Git {
    /// What `call` prints; an error when it fails.
    pub(super) async fn run(&self, call: Call) -> Result<Captured, GitError> {
        let doing = call.doing;
        let (exit, stdout, said) = self.start(call).await?;
        if exit.success() { Ok(stdout) } else { Err(GitError::Failed { doing, exit, said }) }
    }

    /// What `call` prints, as lines of words that are known to be ASCII.
    pub(super) async fn words(&self, call: Call) -> Result<Vec<String>, GitError> {
        let text = self.run(call).await?.text();
        Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
    }

    /// Whether `call` ends with 0.
    pub(super) async fn holds(&self, call: Call) -> Result<bool, GitError> {
        Ok(self.start(call).await?.0.success())
    }

    async fn start(&self, call: Call) -> Result<(Exit, Captured, String), GitError> {
        let doing = call.doing;
        let output = self.sandbox.run(self.command(call)).await;
        let output = output.map_err(|source| GitError::Sandbox { doing, source })?;
        let mut said = output.stderr.text();
        said.truncate(said.floor_char_boundary(MAX_SAID_BYTES));
        Ok((output.exit, output.stdout, said.trim().to_owned()))
    }

    fn command(&self, call: Call) -> SandboxCommand {
        let mut mounts = vec![Mount::read_only(&self.mirror_objects, MIRROR_OBJECTS)];
        mounts.push(Mount { host: self.slot.git_dir(), at: GIT_DIR.into(), access: call.repository });
        mounts.extend(call.tree.map(|access| Mount { host: self.slot.tree(), at: WORKTREE.into(), access }));
        mounts.extend(call.mounts);
        let mut env = environment();
        env.extend([("GIT_DIR".into(), GIT_DIR.into()), ("GIT_WORK_TREE".into(), WORKTREE.into())]);
        env.extend(call.env);
        SandboxCommand {
            env,
            mounts,
            cwd: if call.tree.is_some() { WORKTREE.into() } else { "/".into() },
            stdin: call.stdin,
            keep: call.keep,
            keeps: Some(self.slot.clone()),
            limits: Limits { wall: TIMEOUT, ..Limits::default() },
            ..SandboxCommand::new(self.run_id, call.argv)
        }
    }
}

/// The environment of every git that is ours.
pub(super) fn environment() -> Vec<(String, OsString)> {
    let fixed = [
        ("GIT_CONFIG_GLOBAL", "/dev/null"),
        ("GIT_CONFIG_SYSTEM", "/dev/null"),
        ("GIT_CONFIG_NOSYSTEM", "1"),
        ("GIT_ATTR_NOSYSTEM", "1"),
        ("GIT_NO_REPLACE_OBJECTS", "1"),
        ("GIT_LITERAL_PATHSPECS", "1"),
        ("GIT_TERMINAL_PROMPT", "0"),
        ("GIT_PAGER", "cat"),
        ("GIT_EDITOR", "false"),
    ];
    let mut env: Vec<(String, OsString)> = fixed.map(|(name, value)| (name.into(), value.into())).into();
    env.push(("GIT_CONFIG_COUNT".into(), SETTINGS.len().to_string().into()));
    for (n, (key, value)) in SETTINGS.into_iter().enumerate() {
        env.push((format!("GIT_CONFIG_KEY_{n}"), key.into()));
        env.push((format!("GIT_CONFIG_VALUE_{n}"), value.into()));
    }
    env
}

/// Who and when, for a commit.
pub(super) fn identity(name: &str, email: &str, seconds: i64) -> Vec<(&'static str, String)> {
    let date = format!("@{seconds} +0000");
    vec![
        ("GIT_AUTHOR_NAME", name.to_owned()),
        ("GIT_AUTHOR_EMAIL", email.to_owned()),
        ("GIT_AUTHOR_DATE", date.clone()),
        ("GIT_COMMITTER_NAME", name.to_owned()),
        ("GIT_COMMITTER_EMAIL", email.to_owned()),
        ("GIT_COMMITTER_DATE", date),
    ]
}

/// Why git did not do something.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// It could not be run.
    #[error("git could not be run to {doing}")]
    Sandbox {
        /// What it was for.
        doing: &'static str,
        /// Why.
        #[source]
        source: SandboxError,
    },
    /// It failed.
    #[error("git could not {doing} ({exit:?}): {said}")]
    Failed {
        /// What it was for.
        doing: &'static str,
        /// How it ended.
        exit: Exit,
        /// What it said.
        said: String,
    },
    /// It answered what can not be read.
    #[error("git answered {answer:?} when asked to {doing}")]
    Answer {
        /// What it was for.
        doing: &'static str,
        /// What it answered.
        answer: String,
    },
}

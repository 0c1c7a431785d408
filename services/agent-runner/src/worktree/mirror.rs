//! The mirror of a repository, and the only calls of git outside the sandbox.
//!
//! They talk to the source, which a person configured and which may need what the sandbox lacks (the source's own hooks, its
//! alternates, later a network). They never see a worktree nor read a run's configuration: of a run only its objects are used.

use std::{
    collections::HashMap,
    ffi::OsString,
    fs, io,
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    process::Command,
    time::{Instant, timeout},
};

use super::{
    CommitId, Repository,
    capture::clear_locks,
    git::environment,
    lock::{Lock, LockError},
};

/// How long one exchange with a source may take.
const TIMEOUT: Duration = Duration::from_mins(5);

/// How long to wait for another process that fetches the same repository.
const PATIENCE: Duration = Duration::from_mins(6);

/// How much of what git says is kept for an error.
const MAX_SAID_BYTES: usize = 2 * 1024;

/// When each repository was last asked, by this process: runs that start together share one fetch.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<HashMap<PathBuf, LastFetch>>>);

/// When the last fetch began; kept while one is made.
type LastFetch = Arc<tokio::sync::Mutex<Option<Instant>>>;

/// The mirror of one repository.
#[derive(Debug, Clone)]
pub(super) struct Mirror {
    path: PathBuf,
    source: PathBuf,
    follows_head: bool,
}

/// Why a mirror could not be had, or its source not be reached.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// Another process kept it.
    #[error("the mirror is not free")]
    Lock(#[from] LockError),
    /// Its folder could not be used.
    #[error("the mirror {path} can not be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// git could not be run.
    #[error("git could not be run to {doing}")]
    Spawn {
        /// What it was for.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// git failed.
    #[error("git could not {doing}: {said}")]
    Failed {
        /// What it was for.
        doing: &'static str,
        /// What it said.
        said: String,
    },
    /// The source did not answer in time.
    #[error("git could not {doing} within {within:?}")]
    TimedOut {
        /// What it was for.
        doing: &'static str,
        /// How long was waited.
        within: Duration,
    },
    /// The repository has no such commit.
    #[error("the repository has no {revision}")]
    NoCommit {
        /// What was looked for.
        revision: String,
    },
}

impl Mirror {
    /// The mirror of `repository` below `repos`.
    pub(super) fn new(repos: &Path, repository: &Repository) -> Self {
        Self {
            path: repos.join(format!("{}.git", repository.name())),
            source: repository.source().to_owned(),
            follows_head: repository.base() == "HEAD",
        }
    }

    /// Its objects, which runs borrow. Nothing is ever removed from them.
    pub(super) fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// Brings the mirror up to date. A fetch that began after this was asked for is as good as one's own.
    pub(super) async fn fetch(&self, fetches: &Fetches) -> Result<(), MirrorError> {
        let asked = Instant::now();
        let last = {
            let mut all = fetches.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(all.entry(self.path.clone()).or_default())
        };
        let mut last = last.lock().await;
        if last.is_some_and(|began| began >= asked) {
            return Ok(());
        }
        let began = Instant::now();
        self.fetch_now().await?;
        *last = Some(began);
        Ok(())
    }

    async fn fetch_now(&self) -> Result<(), MirrorError> {
        self.make().await?;
        let lock = Lock::take(&self.path.with_extension("lock"), PATIENCE).await?;
        clear_locks(&self.path);
        let source = self.source.as_os_str();
        let args = ["fetch", "--quiet", "--prune", "--no-auto-maintenance", "--no-write-fetch-head", "--no-tags"];
        let args = args
            .into_iter()
            .map(Into::into)
            .chain([source.to_owned()])
            .chain(["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"].map(Into::into))
            // Many a bare repository has a HEAD that points nowhere, and fetching that fails.
            .chain(self.follows_head.then(|| "+HEAD:refs/nightcrew/source".into()));
        // A runner that is stopped while it fetches must not keep the others from it.
        let git = self.command(args, None)?;
        self.finish("fetch from the source", git, lock.hand_over()).await.map(drop)
    }

    /// Makes an empty mirror unless there is one. Whoever is first counts, so it needs no lock.
    async fn make(&self) -> Result<(), MirrorError> {
        if self.path.join("HEAD").exists() {
            return Ok(());
        }
        let folder = self.path.parent().unwrap_or(&self.path);
        fs::create_dir_all(folder).map_err(|source| self.folder(source))?;
        let new = tempfile::tempdir_in(folder).map_err(|source| self.folder(source))?;
        let mirror = Self { path: new.path().join("new"), ..self.clone() };
        mirror.git("make the mirror", ["init", "--quiet", "--bare", "--template="], None).await?;
        match fs::rename(&mirror.path, &self.path) {
            Err(source) if !self.path.join("HEAD").exists() => Err(self.folder(source)),
            _ => Ok(()),
        }
    }

    /// The commit that `revision` (a branch, a tag, a commit, or `HEAD` of the source) names.
    pub(super) async fn resolve(&self, revision: &str) -> Result<CommitId, MirrorError> {
        let names = match revision {
            "HEAD" => vec!["refs/nightcrew/source".to_owned()],
            _ => vec![format!("refs/heads/{revision}"), format!("refs/tags/{revision}"), revision.to_owned()],
        };
        for name in names {
            let args = ["rev-parse", "--quiet", "--verify", "--end-of-options", &format!("{name}^{{commit}}")];
            let found = self.git("find a commit", args, None).await;
            if let Some(commit) = found.ok().and_then(|said| CommitId::try_new(said.trim()).ok()) {
                return Ok(commit);
            }
        }
        Err(MirrorError::NoCommit { revision: revision.to_owned() })
    }

    /// Whether `commit` is here.
    pub(super) async fn has(&self, commit: &CommitId) -> bool {
        let object = format!("{commit}^{{commit}}");
        self.path.exists() && self.git("find a commit", ["cat-file", "-e", &object], None).await.is_ok()
    }

    /// The commit of `branch` at the source; none when there is no such branch.
    pub(super) async fn branch_at_source(&self, branch: &str) -> Result<Option<CommitId>, MirrorError> {
        let args: [OsString; 4] = [
            "ls-remote".into(),
            "--quiet".into(),
            self.source.clone().into_os_string(),
            format!("refs/heads/{branch}").into(),
        ];
        let said = self.git("look at a branch of the source", args, None).await?;
        let commit = said.split_whitespace().next();
        Ok(commit.and_then(|commit| CommitId::try_new(commit).ok()))
    }

    /// Makes `branch` of the source be `commit`, whose objects are in `objects` as far as the mirror lacks them, unless it
    /// is something else than `there` by now.
    pub(super) async fn push(
        &self,
        objects: &Path,
        commit: &CommitId,
        branch: &str,
        there: Option<&CommitId>,
    ) -> Result<(), MirrorError> {
        let args = ["push", "--quiet", "--no-verify", "--no-signed", "--recurse-submodules=no"].map(Into::into);
        let there = there.map(CommitId::as_str).unwrap_or_default();
        let to = [
            format!("--force-with-lease=refs/heads/{branch}:{there}").into(),
            self.source.clone().into_os_string(),
            format!("{commit}:refs/heads/{branch}").into(),
        ];
        self.git("push to the source", args.into_iter().chain(to), Some(objects)).await.map(drop)
    }

    async fn git(
        &self,
        doing: &'static str,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        objects: Option<&Path>,
    ) -> Result<String, MirrorError> {
        let git = self.command(args, objects)?;
        self.finish(doing, git, Stdio::null()).await
    }

    fn command(
        &self,
        args: impl IntoIterator<Item = impl Into<OsString>>,
        objects: Option<&Path>,
    ) -> Result<Command, MirrorError> {
        let mut command = Command::new("git");
        command
            .args(args.into_iter().map(Into::into))
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .envs(environment())
            .envs([("HOME", "/nonexistent"), ("LC_ALL", "C"), ("GIT_ALLOW_PROTOCOL", "file")])
            .env("GIT_CONFIG_GLOBAL", trust(&self.path).map_err(|source| self.folder(source))?)
            .env("GIT_DIR", &self.path)
            .envs(objects.map(|objects| ("GIT_ALTERNATE_OBJECT_DIRECTORIES", quote(objects))));
        Ok(command)
    }

    async fn finish(&self, doing: &'static str, mut git: Command, stdin: Stdio) -> Result<String, MirrorError> {
        git.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let child = git.spawn().map_err(|source| MirrorError::Spawn { doing, source })?;
        // It has what it gave to the child.
        drop(git);
        let output = timeout(TIMEOUT, child.wait_with_output()).await;
        let output = output.map_err(|_| MirrorError::TimedOut { doing, within: TIMEOUT })?;
        let output = output.map_err(|source| MirrorError::Spawn { doing, source })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let mut said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        said.truncate(said.floor_char_boundary(MAX_SAID_BYTES));
        Err(MirrorError::Failed { doing, said })
    }

    fn folder(&self, source: io::Error) -> MirrorError {
        MirrorError::Folder { path: self.path.clone(), source }
    }
}

/// A configuration that lets git use a source that another user owns, as in a container with a mounted folder: a person named it.
/// Settings given by the environment do not reach the git that serves the source; this file does.
fn trust(mirror: &Path) -> io::Result<PathBuf> {
    const CONTENT: &str = "[safe]\n\tdirectory = *\n";
    let path = mirror.with_file_name("gitconfig");
    if !fs::read_to_string(&path).is_ok_and(|there| there == CONTENT) {
        let folder = mirror.parent().unwrap_or(mirror);
        fs::create_dir_all(folder)?;
        let mut new = tempfile::NamedTempFile::new_in(folder)?;
        io::Write::write_all(&mut new, CONTENT.as_bytes())?;
        new.persist(&path).map_err(|error| error.error)?;
    }
    Ok(path)
}

/// A path in a list that is separated by colons.
fn quote(path: &Path) -> OsString {
    let mut quoted = vec![b'"'];
    for byte in path.as_os_str().as_bytes() {
        if matches!(byte, b'"' | b'\\') {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    OsString::from_vec(quoted)
}

//! Making a worktree, or finding the one that is there.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use schemas::RunId;
use tokio::sync::RwLock;

use super::{
    BundleError, BundleSource, CommitId, Files, GIT_DIR, GitError, LockError, MIRROR_OBJECTS, Repository, SnapshotRef,
    StartPoint, WORKTREE, Worktree, Worktrees,
    capture::{INDEX, clear_locks},
    git::{Call, Git},
    mirror::{Mirror, MirrorError},
    slot::Slot,
    snapshot::SNAPSHOT,
};
use crate::sandbox::{Access, Mount, SandboxCommand};

/// Where a bundle appears while it is unpacked.
const BUNDLE: &str = "/nightcrew/bundle";

/// Fills the worktree from commit `$1`, the branch from `$2`. The index of captures (`$3`) knows the former, the other the latter.
const CHECK_OUT: &str = r#"
git update-ref HEAD "$2"
GIT_INDEX_FILE=$GIT_DIR/$3 git read-tree --reset -u "$1"
cp "$GIT_DIR/$3" "$GIT_DIR/index"
if [ "$1" != "$2" ]; then
    git read-tree --reset "$2"
    git update-ref refs/nightcrew/snapshot "$1"
fi
"#;

/// Why a worktree could not be had.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// Its lock could not be used.
    #[error("the worktree's lock can not be used")]
    Lock(#[from] LockError),
    /// Every place for a worktree of this run is used by some holder.
    #[error("all places for worktrees of run {run_id} are in use: holders of it hang")]
    NoPlace {
        /// The run.
        run_id: RunId,
    },
    /// Its folder could not be used.
    #[error("the worktree's folder {path} can not be used")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The repository could not be mirrored.
    #[error("the repository could not be mirrored")]
    Mirror(#[from] MirrorError),
    /// A saved bundle could not be brought.
    #[error("the snapshot {commit} could not be brought")]
    Bundle {
        /// The snapshot's commit.
        commit: CommitId,
        /// Why.
        #[source]
        source: BundleError,
    },
    /// git failed.
    #[error("the worktree could not be made")]
    Git(#[from] GitError),
}

impl Worktrees {
    /// The worktree of `run_id`, made when it is not there.
    ///
    /// `restore` are the snapshots in the log, oldest first; for a run that goes on from another's work, the other's come before its
    /// own. With any, the worktree and the branch are as the last one says, and `start` does not count. What is on this disk already and is
    /// derived from the last one is used as it is, with what a tool call in flight left behind.
    pub async fn ensure(
        &self,
        run_id: RunId,
        repository: &Repository,
        start: &StartPoint,
        restore: &[SnapshotRef],
        bundles: &dyn BundleSource,
    ) -> Result<Worktree, EnsureError> {
        let mut place = Place {
            worktrees: self,
            run_id,
            repository,
            mirror: Mirror::new(&self.state_dir.join("repos"), repository),
            slot: None,
        };
        if let Some(there) = place.find(restore.last()).await? {
            return Ok(there);
        }
        place.make(start, restore, bundles).await
    }

    /// Removes all worktrees of `run_id` that nobody uses, and says whether none is left. Its branch stays where it was
    /// published.
    pub async fn remove(&self, run_id: RunId) -> Result<bool, EnsureError> {
        let run_dir = self.run_dir(run_id);
        if !run_dir.exists() {
            return Ok(true);
        }
        for slot in Slot::free(&run_dir) {
            let slot = slot?;
            self.unlock(run_id, &slot).await?;
            in_background(&run_dir, move || slot.remove()).await?;
        }
        // Not empty means that somebody uses a slot.
        Ok(fs::remove_dir(&run_dir).is_ok())
    }

    /// The runs that have a worktree here.
    pub fn runs(&self) -> io::Result<Vec<RunId>> {
        let entries = match fs::read_dir(self.state_dir.join("runs")) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut runs = Vec::new();
        for entry in entries {
            runs.extend(entry?.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()));
        }
        runs.sort();
        Ok(runs)
    }

    fn run_dir(&self, run_id: RunId) -> PathBuf {
        self.state_dir.join("runs").join(run_id.to_string())
    }

    /// Makes folders removable that a command of the agent made unwritable.
    async fn unlock(&self, run_id: RunId, slot: &Slot) -> Result<(), EnsureError> {
        if rustix::process::geteuid().is_root() || !slot.tree().exists() {
            return Ok(());
        }
        let argv = ["chmod", "--recursive", "--silent", "u+rwX", WORKTREE];
        let mounts = vec![Mount::writable(slot.tree(), WORKTREE)];
        let unlocked = self.sandbox.run(SandboxCommand { mounts, ..SandboxCommand::new(run_id, argv) }).await;
        // Whether it helped shows when the folder is removed.
        unlocked.map(drop).map_err(|source| GitError::Sandbox { doing: "clear a worktree", source }.into())
    }
}

/// Where the worktree of a run is, or will be.
struct Place<'a> {
    worktrees: &'a Worktrees,
    run_id: RunId,
    repository: &'a Repository,
    mirror: Mirror,
    slot: Option<Arc<Slot>>,
}

impl Place<'_> {
    /// A worktree that nobody uses and that holds `wanted`. Otherwise keeps the first free slot.
    async fn find(&mut self, wanted: Option<&SnapshotRef>) -> Result<Option<Worktree>, EnsureError> {
        for slot in Slot::free(&self.worktrees.run_dir(self.run_id)) {
            let slot = Arc::new(slot?);
            let base = fs::read_to_string(slot.ready()).ok().and_then(|base| CommitId::try_new(base).ok());
            let git = self.git(&slot);
            let usable = match (&base, wanted) {
                _ if !self.mirror.objects().is_dir() => false,
                (None, _) => false,
                (Some(_), None) => true,
                (Some(base), Some(wanted)) => *base == wanted.base && is_derived(&git, &wanted.commit).await?,
            };
            if let (true, Some(base)) = (usable, base) {
                clear_locks(&slot.git_dir());
                return self.open(slot, base).map(Some);
            }
            self.slot.get_or_insert(slot);
        }
        Ok(None)
    }

    async fn make(
        mut self,
        start: &StartPoint,
        restore: &[SnapshotRef],
        bundles: &dyn BundleSource,
    ) -> Result<Worktree, EnsureError> {
        let slot = self.slot.take().ok_or(EnsureError::NoPlace { run_id: self.run_id })?;
        let (base, head) = self.base(start, restore.last()).await?;
        self.worktrees.unlock(self.run_id, &slot).await?;
        let slot = lay_out(slot, self.branch()).await?;
        let git = self.git(&slot);
        for snapshot in restore {
            let bundle = bundles.bundle(snapshot).await;
            let bundle = bundle.map_err(|source| EnsureError::Bundle { commit: snapshot.commit.clone(), source })?;
            unpack(&git, &slot, &bundle).await?;
        }
        let commit = restore.last().map_or(&head, |snapshot| &snapshot.commit);
        let check_out = Call::script("check out", CHECK_OUT, [commit.as_str(), head.as_str(), INDEX]);
        git.run(check_out.writing().tree(Access::Writable)).await?;
        finish(&slot, &base).map_err(|source| EnsureError::Folder { path: slot.tree(), source })?;
        self.open(slot, base)
    }

    /// Where the branch began, and where it is now. The mirror has the former.
    async fn base(&self, start: &StartPoint, last: Option<&SnapshotRef>) -> Result<(CommitId, CommitId), EnsureError> {
        let fetches = &self.worktrees.fetches;
        let (base, head) = match (last, start) {
            (Some(last), _) => (&last.base, &last.head),
            (None, StartPoint::Commit(commit)) => (commit, commit),
            (None, StartPoint::Base) => {
                self.mirror.fetch(fetches).await?;
                let base = self.mirror.resolve(self.repository.base()).await?;
                return Ok((base.clone(), base));
            }
        };
        if !self.mirror.has(base).await {
            self.mirror.fetch(fetches).await?;
            self.mirror.resolve(base.as_str()).await?;
        }
        Ok((base.clone(), head.clone()))
    }

    fn open(&self, slot: Arc<Slot>, base: CommitId) -> Result<Worktree, EnsureError> {
        let files = Files::open(&slot.tree(), &slot.scratch());
        let files = files.map_err(|source| EnsureError::Folder { path: slot.tree(), source })?;
        Ok(Worktree {
            run_id: self.run_id,
            repository: self.repository.clone(),
            branch: self.branch(),
            base,
            files: Arc::new(files),
            git: self.git(&slot),
            slot,
            mirror: self.mirror.clone(),
            access: RwLock::new(()),
        })
    }

    fn git(&self, slot: &Arc<Slot>) -> Git {
        Git {
            sandbox: self.worktrees.sandbox.clone(),
            run_id: self.run_id,
            slot: Arc::clone(slot),
            mirror_objects: self.mirror.objects(),
        }
    }

    fn branch(&self) -> String {
        format!("nightcrew/{}", self.run_id)
    }
}

/// Whether what is in the worktree came from `commit`: it is the newest snapshot of this disk, or one before it.
async fn is_derived(git: &Git, commit: &CommitId) -> Result<bool, GitError> {
    git.holds(Call::git("compare snapshots", ["merge-base", "--is-ancestor", commit.as_str(), SNAPSHOT])).await
}

async fn unpack(git: &Git, slot: &Slot, bundle: &[u8]) -> Result<(), EnsureError> {
    let path = slot.scratch().join("bundle");
    fs::write(&path, bundle).map_err(|source| EnsureError::Folder { path: path.clone(), source })?;
    let call = Call::git("unpack a snapshot", ["bundle", "unbundle", BUNDLE]).writing();
    git.run(call.mount(Mount::read_only(&path, BUNDLE))).await?;
    fs::remove_file(&path).map_err(|source| EnsureError::Folder { path, source })
}

/// Folders can be large, and removing them slow.
async fn in_background<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, EnsureError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other);
    done.and_then(|done| done).map_err(|source| EnsureError::Folder { path: path.to_owned(), source })
}

/// Makes an empty worktree and its git folder.
async fn lay_out(slot: Arc<Slot>, branch: String) -> Result<Arc<Slot>, EnsureError> {
    in_background(&slot.tree(), move || {
        slot.clear()?;
        write_folders(&slot, &branch)?;
        Ok(slot)
    })
    .await
}

/// The git folder is written here and not by git, so that nothing is in it but this.
fn write_folders(slot: &Slot, branch: &str) -> io::Result<()> {
    let git = slot.git_dir();
    for folder in ["objects/info", "objects/pack", "refs/heads", "refs/nightcrew", "info"] {
        fs::create_dir_all(git.join(folder))?;
    }
    fs::create_dir_all(slot.tree())?;
    fs::create_dir_all(slot.scratch())?;
    let config = format!(
        "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tsymlinks = true\n\tbare = false\n\tworktree = {WORKTREE}\n\
         \tlogAllRefUpdates = false\n\thooksPath = /dev/null\n\tfsmonitor = false\n[gc]\n\tauto = 0\n"
    );
    fs::write(git.join("config"), config)?;
    fs::write(git.join("HEAD"), format!("ref: refs/heads/{branch}\n"))?;
    fs::write(git.join("objects/info/alternates"), format!("{MIRROR_OBJECTS}\n"))?;
    // Above every .gitattributes: content is never converted and no filter is run.
    fs::write(git.join("info/attributes"), "* -text !eol -filter -ident -working-tree-encoding\n")?;
    fs::write(slot.dot_git(), format!("gitdir: {GIT_DIR}\n"))?;
    // What the sandbox covers with the above.
    fs::write(slot.tree().join(".git"), "")
}

/// Says that the worktree is whole.
fn finish(slot: &Slot, base: &CommitId) -> io::Result<()> {
    let new: &Path = &slot.ready().with_extension("new");
    fs::write(new, base.as_str())?;
    fs::rename(new, slot.ready())
}

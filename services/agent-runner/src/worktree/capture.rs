//! Turning the files of a worktree into a tree of the repository.
//!
//! git is told which files to take: what was found by walking, and tracked files although they are ignored. Left to itself it would
//! look into nested repositories, with their configuration, and fail on some.

use std::{
    collections::{BTreeSet, HashSet},
    ffi::{OsStr, OsString},
    os::unix::ffi::{OsStrExt as _, OsStringExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    FileError, Files, GIT_DIR, Worktree, WorktreePath,
    git::{Call, GitError},
    snapshot::{LeftOut, SnapshotError, Why},
    walk::{Kind, Walk},
};
use crate::sandbox::Access;

/// Files, folders and links that a worktree may hold beside ignored ones. Large repositories have 100,000.
const MAX_ENTRIES: usize = 300_000;

/// Largest new file that is taken: a forge refuses more, and a bundle of it would be too large.
const MAX_FILE_BYTES: u64 = 50 << 20;

/// How many left-out paths are named.
const MAX_LEFT_OUT: usize = 20;

/// The index that knows the worktree as it was last taken. The other one, `index`, stays at the branch's head, so that
/// `git diff` in a shell shows what an agent expects.
pub(super) const INDEX: &str = "capture.index";

/// Updates the index by the two lists on standard input, of which the first has `$1` bytes, and writes the tree.
const CAPTURE: &str = r#"
removed=$1
shift
head -c "$removed" | git update-index -z --force-remove --stdin
git update-index -z --add --remove --replace --stdin
tree=$(git write-tree)
"#;

/// What is done with the tree once it is there, in the same sandbox, because each costs as much as a small git command.
pub(super) struct Then<'a> {
    /// Names it in errors.
    pub(super) doing: &'static str,
    /// A script that finds the tree in `$tree`.
    pub(super) script: &'a str,
    /// The script's arguments.
    pub(super) args: &'a [&'a str],
    /// Who commits.
    pub(super) identity: Vec<(&'static str, String)>,
}

/// What came of taking the worktree.
pub(super) struct Captured {
    /// What the script printed.
    pub(super) words: Vec<String>,
    /// What is not in the tree although it is not ignored.
    pub(super) left_out: Vec<LeftOut>,
}

impl Worktree {
    /// Takes the worktree as it is. The caller has it for itself.
    pub(super) async fn capture(&self, then: Then<'_>) -> Result<Captured, SnapshotError> {
        clear_locks(&self.slot.git_dir());
        let (files, tracked) = (Arc::clone(&self.files), self.tracked().await?);
        let plan = tokio::task::spawn_blocking(move || Plan::make(&files, &tracked)).await;
        let plan = plan.map_err(|_| SnapshotError::Interrupted)??;
        let removed = lines(&plan.remove);
        let size = removed.len().to_string();
        let args = [size.as_str()].into_iter().chain(then.args.iter().copied());
        let script = Call::script(then.doing, &format!("{CAPTURE}{}", then.script), args)
            .writing()
            .tree(Access::ReadOnly)
            .env("GIT_INDEX_FILE", index())
            .stdin([removed, lines(&plan.take)].concat());
        let script = then.identity.into_iter().fold(script, |script, (name, value)| script.env(name, value));
        let words = self.git.words(script).await?;
        Ok(Captured { words, left_out: plan.left_out })
    }

    async fn tracked(&self) -> Result<Vec<Tracked>, GitError> {
        let doing = "list tracked files";
        let call = Call::git(doing, ["ls-files", "-z", "--stage"]).env("GIT_INDEX_FILE", index());
        let listing = self.git.run(call).await?.into_bytes();
        let records = listing.split(|byte| *byte == 0).filter(|record| !record.is_empty());
        records.map(Tracked::parse).collect::<Option<_>>().ok_or_else(|| GitError::Answer { doing, answer: "?".into() })
    }
}

/// The index of captures, as git sees it.
pub(super) fn index() -> OsString {
    format!("{GIT_DIR}/{INDEX}").into()
}

/// A file of the index.
struct Tracked {
    path: PathBuf,
    is_submodule: bool,
}

impl Tracked {
    fn parse(record: &[u8]) -> Option<Self> {
        let tab = record.iter().position(|byte| *byte == b'\t')?;
        let path = PathBuf::from(OsString::from_vec(record[tab + 1..].to_vec()));
        Some(Self { path, is_submodule: record.starts_with(b"160000 ") })
    }
}

/// What git is told to take and to drop.
#[derive(Default)]
struct Plan {
    take: BTreeSet<PathBuf>,
    remove: BTreeSet<PathBuf>,
    left_out: Vec<LeftOut>,
}

impl Plan {
    fn make(files: &Files, tracked: &[Tracked]) -> Result<Self, SnapshotError> {
        let walk = Walk { start: WorktreePath::root(), depth: usize::MAX, ignored: false, max: MAX_ENTRIES };
        let walked = files.walk(&walk).map_err(SnapshotError::Files)?;
        if !walked.complete {
            return Err(SnapshotError::TooManyFiles { limit: MAX_ENTRIES });
        }
        let known: HashSet<&Path> = tracked.iter().map(|tracked| tracked.path.as_path()).collect();
        let submodules: HashSet<&Path> =
            tracked.iter().filter(|tracked| tracked.is_submodule).map(|tracked| tracked.path.as_path()).collect();
        let mut plan = Self::default();
        for found in walked.found {
            let in_submodule = found.path.ancestors().any(|folder| submodules.contains(folder));
            match found.kind {
                Kind::File { .. } | Kind::Link if in_submodule => {
                    plan.leave(&found.path, Why::Submodule);
                }
                // git refuses to follow it, and would refuse to hold it.
                Kind::Link if is_gitmodules(&found.path) => plan.leave(&found.path, Why::Odd),
                Kind::File { bytes } if bytes > MAX_FILE_BYTES && !known.contains(found.path.as_path()) => {
                    return Err(SnapshotError::FileTooLarge { path: found.path, bytes, limit: MAX_FILE_BYTES });
                }
                Kind::File { .. } | Kind::Link => {
                    plan.take.insert(found.path);
                }
                Kind::Folder | Kind::Locked | Kind::Odd => {}
            }
        }
        for odd in walked.odd {
            plan.leave(&odd, Why::Odd);
        }
        for tracked in tracked {
            if tracked.is_submodule || plan.take.contains(&tracked.path) {
                continue;
            }
            let status = |path: &Path| files.status(path).map(Kind::of);
            // This process may be allowed what a command is not.
            let locked = tracked.path.ancestors().skip(1).any(|folder| matches!(status(folder), Ok(Kind::Locked)));
            match status(&tracked.path) {
                _ if locked => {}
                Ok(Kind::File { .. } | Kind::Link) => {
                    plan.take.insert(tracked.path.clone());
                }
                // It stays as it was: not to be read is not the same as gone.
                Ok(Kind::Locked) | Err(FileError::Forbidden { .. }) => {}
                Ok(Kind::Folder | Kind::Odd) | Err(_) => {
                    plan.remove.insert(tracked.path.clone());
                }
            }
        }
        Ok(plan)
    }

    fn leave(&mut self, path: &Path, why: Why) {
        if self.left_out.len() < MAX_LEFT_OUT {
            self.left_out.push(LeftOut { path: path.display().to_string(), why });
        }
    }
}

fn is_gitmodules(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.eq_ignore_ascii_case(OsStr::new(".gitmodules")))
}

fn lines(paths: &BTreeSet<PathBuf>) -> Vec<u8> {
    paths.iter().flat_map(|path| path.as_os_str().as_bytes().iter().copied().chain([0])).collect()
}

/// Removes what a git that was killed left locked. Whoever calls has the git folder for itself.
pub(super) fn clear_locks(git_dir: &Path) {
    let mut folders = vec![git_dir.to_owned(), git_dir.join("refs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension() == Some(OsStr::new("lock")) {
                // Should it stay, git says so.
                std::fs::remove_file(path).ok();
            } else if path.is_dir() && folder != git_dir {
                folders.push(path);
            }
        }
    }
}

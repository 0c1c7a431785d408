//! Finding files: what is there and not ignored, without following links and without asking git.

use std::{
    ffi::OsString,
    io::Read as _,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use ignore::{
    Match,
    gitignore::{Gitignore, GitignoreBuilder},
};
use rustix::fs::{Dir, FileType};

use super::files::{FileError, Files, Status, WorktreePath, is_dot_git};

/// Largest `.gitignore` that is read; a longer one counts up to there.
const MAX_IGNORE_BYTES: u64 = 1 << 20;

/// What to look for.
#[derive(Debug, Clone)]
pub struct Walk {
    /// Where to begin.
    pub start: WorktreePath,
    /// How many folders deep; 1 is what lies directly in `start`.
    pub depth: usize,
    /// Whether ignored files count.
    pub ignored: bool,
    /// How many entries are looked at before giving up.
    pub max: usize,
}

/// What was found.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    /// Everything found, folders before what is in them, names in order.
    pub found: Vec<Found>,
    /// What could not be looked into, or is nothing that a repository holds.
    pub odd: Vec<PathBuf>,
    /// Whether that is all: false when there were more than `max`.
    pub complete: bool,
}

/// A file, folder or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its path from the root of the worktree.
    pub path: PathBuf,
    /// What it is.
    pub kind: Kind,
}

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A file that its owner may read.
    File {
        /// Its size.
        bytes: u64,
    },
    /// A symbolic link.
    Link,
    /// A folder that its owner may look into.
    Folder,
    /// A file or folder that its owner may not read.
    Locked,
    /// A pipe, socket or device.
    Odd,
}

impl Kind {
    /// A command in the sandbox has no privileges, so what counts is what the owner's bits say.
    pub(super) fn of(status: Status) -> Self {
        match status.kind {
            FileType::RegularFile if status.mode & 0o400 != 0 => Self::File { bytes: status.bytes },
            FileType::Directory if status.mode & 0o500 == 0o500 => Self::Folder,
            FileType::RegularFile | FileType::Directory => Self::Locked,
            FileType::Symlink => Self::Link,
            _ => Self::Odd,
        }
    }
}

impl Files {
    /// Looks for files. `.git` is never looked into nor told.
    pub fn walk(&self, walk: &Walk) -> Result<Walked, FileError> {
        let mut walker = Walker { files: self, walk, walked: Walked { complete: true, ..Walked::default() }, seen: 0 };
        let start = walk.start.as_path();
        let mut rules = Rules::default();
        if !walk.ignored && !start.as_os_str().is_empty() {
            for folder in start.ancestors().skip(1).collect::<Vec<_>>().into_iter().rev() {
                rules = rules.and(folder, walker.rules_of(folder));
            }
        }
        walker.folder(start, walk.depth, &rules)?;
        Ok(walker.walked)
    }
}

struct Walker<'a> {
    files: &'a Files,
    walk: &'a Walk,
    walked: Walked,
    seen: usize,
}

impl Walker<'_> {
    fn folder(&mut self, start: &Path, depth: usize, rules: &Rules) -> Result<(), FileError> {
        // A stack of its own: how deep folders are nested is the agent's choice.
        let mut open = vec![(start.to_owned(), depth, rules.clone())];
        while let Some((folder, depth, rules)) = open.pop() {
            let names = match self.names(&folder) {
                Ok(names) => names,
                Err(error) if folder == start => return Err(error),
                Err(_) => {
                    self.walked.odd.push(folder);
                    continue;
                }
            };
            let rules = if self.walk.ignored { rules } else { rules.and(&folder, self.rules_of(&folder)) };
            let mut inner = Vec::new();
            for name in names {
                let path = folder.join(name);
                let Ok(kind) = self.files.status(&path).map(Kind::of) else {
                    self.walked.odd.push(path);
                    continue;
                };
                if rules.ignore(&path, kind == Kind::Folder) {
                    continue;
                }
                match kind {
                    Kind::Odd | Kind::Locked => self.walked.odd.push(path.clone()),
                    Kind::Folder if depth > 1 => {
                        inner.push((path.clone(), depth - 1, rules.clone()));
                    }
                    _ => {}
                }
                self.walked.found.push(Found { path, kind });
            }
            open.extend(inner.into_iter().rev());
            if !self.walked.complete {
                break;
            }
        }
        self.walked.found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }

    /// The names in a folder, up to what is left of the walk's bound.
    fn names(&mut self, folder: &Path) -> Result<Vec<OsString>, FileError> {
        let descriptor = self.files.folder_found(folder)?;
        let mut names = Vec::new();
        for entry in Dir::read_from(descriptor).map_err(|error| FileError::at(folder, error))? {
            let name = entry.map_err(|error| FileError::at(folder, error))?.file_name().to_bytes().to_vec();
            let name = OsString::from_vec(name);
            if name == "." || name == ".." {
                continue;
            }
            if is_dot_git(&name) {
                // That of the worktree itself is ours.
                self.walked.odd.extend((!folder.as_os_str().is_empty()).then(|| folder.join(name)));
                continue;
            }
            if self.seen == self.walk.max {
                self.walked.complete = false;
                break;
            }
            self.seen += 1;
            names.push(name);
        }
        names.sort();
        Ok(names)
    }

    fn rules_of(&self, folder: &Path) -> Option<Gitignore> {
        let file = self.files.read_found(&folder.join(".gitignore")).ok()?;
        let mut bytes = Vec::new();
        file.take(MAX_IGNORE_BYTES).read_to_end(&mut bytes).ok()?;
        let mut builder = GitignoreBuilder::new("");
        for line in String::from_utf8_lossy(&bytes).trim_start_matches('\u{feff}').lines() {
            // As in git, a pattern that is none matches nothing.
            builder.add_line(None, line).ok();
        }
        builder.build().ok().filter(|rules| !rules.is_empty())
    }
}

/// The `.gitignore` files that hold in a folder, outermost first.
#[derive(Clone, Default)]
struct Rules(Vec<Arc<(PathBuf, Gitignore)>>);

impl Rules {
    /// These, and those of `folder`.
    fn and(&self, folder: &Path, rules: Option<Gitignore>) -> Self {
        let own = rules.map(|rules| Arc::new((folder.to_owned(), rules)));
        Self(self.0.iter().cloned().chain(own).collect())
    }

    /// Whether `path` is ignored. The innermost file that says anything decides.
    fn ignore(&self, path: &Path, is_folder: bool) -> bool {
        for (folder, rules) in self.0.iter().rev().map(AsRef::as_ref) {
            match rules.matched(path.strip_prefix(folder).unwrap_or(path), is_folder) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }
}

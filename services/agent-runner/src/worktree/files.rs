//! The files of a worktree, opened beneath it.
//!
//! An agent's command may put a link where a folder was at any moment. So no path is checked and then used: the kernel
//! resolves it beneath the worktree (`openat2`, `RESOLVE_BENEATH`) and refuses what would leave it.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Component, Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
};

use super::WORKTREE;

/// Longest path that is taken, in bytes; the kernel's own limit.
const MAX_PATH_BYTES: usize = 4096;

/// How often a path is tried again that somebody else was just renaming.
const MAX_RETRIES: usize = 16;

/// A path inside a worktree, as an agent may name one: relative, without `..`, and not into a `.git`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorktreePath(PathBuf);

impl WorktreePath {
    /// The worktree itself.
    pub fn root() -> Self {
        Self(PathBuf::new())
    }

    /// Takes `a/b`, `./a/b` and `/work/a/b`.
    pub fn try_new(text: &str) -> Result<Self, FileError> {
        let refused = |why| FileError::Refused { path: text.to_owned(), why };
        if text.len() > MAX_PATH_BYTES {
            return Err(FileError::Refused { path: text.chars().take(100).collect(), why: "it is too long" });
        }
        if text.contains('\0') {
            return Err(refused("it contains a zero byte"));
        }
        let path = Path::new(text);
        let path = path.strip_prefix(WORKTREE).unwrap_or(path);
        let mut clean = PathBuf::new();
        for component in path.components() {
            match component {
                Component::CurDir => {}
                Component::Normal(name) if is_dot_git(name) => {
                    return Err(refused("`.git` is not for files tools: use the git tool"));
                }
                Component::Normal(name) => clean.push(name),
                Component::ParentDir => {
                    return Err(refused("`..` is not allowed: name it from the root of the worktree"));
                }
                Component::RootDir | Component::Prefix(_) => {
                    return Err(refused("it lies outside the worktree, /work"));
                }
            }
        }
        Ok(Self(clean))
    }

    /// The path from the root of the worktree; empty for the root.
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// Whether git could take a file of this name for a git folder.
pub(super) fn is_dot_git(name: &OsStr) -> bool {
    name.eq_ignore_ascii_case(".git")
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The path is not one that may be used.
    #[error("{path} can not be used: {why}")]
    Refused {
        /// The path.
        path: String,
        /// Why, for whoever named it.
        why: &'static str,
    },
    /// There is nothing.
    #[error("{path} does not exist")]
    NotFound {
        /// The path.
        path: PathBuf,
    },
    /// It leads out of the worktree.
    #[error("{path} leads out of the worktree")]
    Outside {
        /// The path.
        path: PathBuf,
    },
    /// It is a folder.
    #[error("{path} is a folder")]
    IsFolder {
        /// The path.
        path: PathBuf,
    },
    /// It is a link, which is not written through.
    #[error("{path} is a symbolic link: write to what it points to")]
    IsLink {
        /// The path.
        path: PathBuf,
    },
    /// It, or what should be a folder on the way to it, is something else.
    #[error("{path} is neither a file nor a folder, or one of its folders is none")]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// Its permissions forbid it.
    #[error("{path} can not be used: its permissions forbid it")]
    Forbidden {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error("{path} can not be used")]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl FileError {
    pub(super) fn at(path: &Path, error: impl Into<io::Error>) -> Self {
        let (path, source) = (path.to_owned(), error.into());
        match Errno::from_io_error(&source) {
            Some(Errno::NOENT) => Self::NotFound { path },
            Some(Errno::XDEV | Errno::LOOP) => Self::Outside { path },
            Some(Errno::ISDIR) => Self::IsFolder { path },
            Some(Errno::NOTDIR | Errno::NXIO) => Self::NotAFile { path },
            Some(Errno::ACCESS | Errno::PERM) => Self::Forbidden { path },
            _ => Self::Io { path, source },
        }
    }
}

/// The files of one worktree.
#[derive(Debug)]
pub struct Files {
    root: OwnedFd,
    scratch: OwnedFd,
    next: AtomicU64,
}

/// What is there, without following a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) kind: FileType,
    pub(super) mode: u32,
    pub(super) bytes: u64,
}

impl Files {
    /// The files below `root`; `scratch` is a folder on the same file system, where new files are made.
    pub(super) fn open(root: &Path, scratch: &Path) -> io::Result<Self> {
        let folder = |path| rustix::fs::openat(CWD, path, FOLDER | OFlags::NOFOLLOW, Mode::empty());
        Ok(Self { root: folder(root)?, scratch: folder(scratch)?, next: AtomicU64::new(0) })
    }

    /// Opens a file for reading. Links are followed as long as they stay inside.
    pub fn read(&self, path: &WorktreePath) -> Result<File, FileError> {
        self.open_file(path.as_path(), ResolveFlags::empty())
    }

    /// Opens a file that was found by walking: no link on the way to it is followed.
    pub(crate) fn read_found(&self, path: &Path) -> Result<File, FileError> {
        self.open_file(path, ResolveFlags::NO_SYMLINKS)
    }

    /// Makes `path` a file with `content`, in one step: whoever looks sees all of it or none. Folders are made as needed; an old
    /// file's permissions are kept. Returns whether there was an old file.
    pub fn replace(&self, path: &WorktreePath, content: &[u8]) -> Result<bool, FileError> {
        let at = path.as_path();
        let (Some(name), Some(parent)) = (at.file_name(), at.parent()) else {
            return Err(FileError::IsFolder { path: at.to_owned() });
        };
        let folder = self.make_folders(parent)?;
        let old = match rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Some(Mode::from_raw_mode(stat.st_mode)),
                FileType::Symlink => {
                    return Err(FileError::IsLink { path: at.to_owned() });
                }
                FileType::Directory => {
                    return Err(FileError::IsFolder { path: at.to_owned() });
                }
                _ => {
                    return Err(FileError::NotAFile { path: at.to_owned() });
                }
            },
            Err(Errno::NOENT) => None,
            Err(error) => return Err(FileError::at(at, error)),
        };
        let mode = old.unwrap_or(Mode::from_raw_mode(0o644)) & Mode::from_raw_mode(0o777);
        self.put(&folder, name, content, mode).map_err(|error| FileError::at(at, error))?;
        Ok(old.is_some())
    }

    fn put(&self, folder: &OwnedFd, name: &OsStr, content: &[u8], mode: Mode) -> io::Result<()> {
        // Two processes never share a scratch folder, so a number is enough; a file left by one that died is overwritten.
        let new = self.next.fetch_add(1, Ordering::Relaxed).to_string();
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&self.scratch, &new, flags, Mode::from_raw_mode(0o600))?);
        let moved = file.write_all(content).and_then(|()| {
            rustix::fs::fchmod(&file, mode)?;
            Ok(rustix::fs::renameat(&self.scratch, &new, folder, name)?)
        });
        if moved.is_err() {
            // The scratch folder is emptied with the worktree; what stays until then harms nobody.
            rustix::fs::unlinkat(&self.scratch, &new, AtFlags::empty()).ok();
        }
        moved
    }

    /// Opens a folder, made with those above it when absent.
    fn make_folders(&self, path: &Path) -> Result<OwnedFd, FileError> {
        let mut made = PathBuf::new();
        for component in path {
            made.push(component);
            match rustix::fs::mkdirat(&self.folder(made.parent().unwrap_or(Path::new("")))?, component, FOLDER_MODE) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(FileError::at(&made, error)),
            }
        }
        self.folder(path)
    }

    /// Opens a folder; links that stay inside are followed.
    fn folder(&self, path: &Path) -> Result<OwnedFd, FileError> {
        self.open_at(path, FOLDER, ResolveFlags::empty()).map_err(|error| FileError::at(path, error))
    }

    /// Opens a folder that was found by walking.
    pub(super) fn folder_found(&self, path: &Path) -> Result<OwnedFd, FileError> {
        self.open_at(path, FOLDER, ResolveFlags::NO_SYMLINKS).map_err(|error| FileError::at(path, error))
    }

    /// What is at `path`, when the way there has no link. Nothing is opened.
    pub(super) fn status(&self, path: &Path) -> Result<Status, FileError> {
        let stat = self
            .open_at(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, ResolveFlags::NO_SYMLINKS)
            .and_then(rustix::fs::fstat)
            .map_err(|error| FileError::at(path, error))?;
        Ok(Status {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode & 0o7777,
            bytes: stat.st_size.try_into().unwrap_or_default(),
        })
    }

    fn open_file(&self, path: &Path, resolve: ResolveFlags) -> Result<File, FileError> {
        // Without NONBLOCK a pipe would hold us until somebody writes to it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let open = || -> Result<_, Errno> {
            let file = self.open_at(path, flags, resolve)?;
            let stat = rustix::fs::fstat(&file)?;
            Ok((file, FileType::from_raw_mode(stat.st_mode)))
        };
        match open().map_err(|error| FileError::at(path, error))? {
            (file, FileType::RegularFile) => Ok(File::from(file)),
            (_, FileType::Directory) => Err(FileError::IsFolder { path: path.to_owned() }),
            _ => Err(FileError::NotAFile { path: path.to_owned() }),
        }
    }

    fn open_at(&self, path: &Path, flags: OFlags, resolve: ResolveFlags) -> Result<OwnedFd, Errno> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let resolve = resolve | ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..MAX_RETRIES {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_or_touch_git_are_refused() {
        for text in ["..", "a/../b", "/etc/passwd", "/workx", ".git", "a/.git/config", "/work/.GIT", "a\0b"] {
            assert!(WorktreePath::try_new(text).is_err(), "{text:?}");
        }
        for (text, clean) in
            [("", ""), (".", ""), ("/work", ""), ("./a//b/", "a/b"), ("/work/a", "a"), (".github", ".github")]
        {
            assert_eq!(WorktreePath::try_new(text).unwrap().as_path(), Path::new(clean));
        }
    }
}

//! What the git tool reads: the state of the branch and its commits.

use super::{
    Changes, Worktree, WorktreePath,
    capture::Then,
    git::{Call, GitError},
    snapshot::{SnapshotError, answer},
};
use crate::sandbox::Keep;

/// What of a log or a commit is shown.
const SHOWN: Keep = Keep::HeadAndTail { head: 32 * 1024, tail: 0 };

/// Longest name of a revision.
const MAX_REVISION_BYTES: usize = 200;

/// What the worktree is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The branch's head: what is not committed.
    Head,
    /// Where the branch started: all that the run did.
    Base,
}

/// Why something could not be read from the repository.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The worktree could not be taken.
    #[error("the worktree could not be compared")]
    Worktree(#[from] SnapshotError),
    /// git failed.
    #[error("the repository could not be read")]
    Git(#[from] GitError),
    /// That is no revision.
    #[error("{revision:?} names no commit: use a commit's hash, a branch, or HEAD~1 and the like")]
    NoRevision {
        /// What was named.
        revision: String,
    },
}

impl Worktree {
    /// What changed since the branch's head or its base, uncommitted and new files included.
    pub async fn diff(&self, from: From, path: Option<&WorktreePath>) -> Result<Changes, HistoryError> {
        let _alone = self.exclusive().await;
        let then = Then { doing: "compare the worktree", script: r#"echo "$tree""#, args: &[], identity: Vec::new() };
        let words = self.capture(then).await?.words;
        let [tree] = <[String; 1]>::try_from(words).map_err(|words| answer("compare the worktree", words.join(" ")))?;
        let from = match from {
            From::Head => "HEAD",
            From::Base => self.base.as_str(),
        };
        let path = path.map(WorktreePath::as_path).filter(|path| !path.as_os_str().is_empty());
        Ok(self.git.changes(from, &tree, path).await?)
    }

    /// How many commits the branch is ahead of its base.
    pub async fn ahead(&self) -> Result<u64, GitError> {
        let call = Call::git("count commits", ["rev-list", "--count", &format!("{}..HEAD", self.base)]);
        Ok(self.git.words(call).await?.pop().and_then(|count| count.parse().ok()).unwrap_or_default())
    }

    /// The newest commits of the branch, for reading.
    pub async fn log(&self, max: usize, path: Option<&WorktreePath>) -> Result<String, GitError> {
        let max = format!("--max-count={max}");
        let mut args = vec!["log".into(), "--no-color".into(), "--date=iso-strict".into(), max.into()];
        args.extend(["--format=%h %ad %an%n    %s".into(), "HEAD".into(), "--".into()]);
        args.extend(path.map(|path| path.as_path().as_os_str().to_owned()).filter(|path| !path.is_empty()));
        Ok(self.git.run(Call::git("read the log", args).keep(SHOWN)).await?.text())
    }

    /// One commit with its diff, for reading.
    pub async fn show(&self, revision: &str, path: Option<&WorktreePath>) -> Result<String, HistoryError> {
        let no_revision = || HistoryError::NoRevision { revision: revision.chars().take(100).collect() };
        if !is_revision(revision) {
            return Err(no_revision());
        }
        let commit = format!("{revision}^{{commit}}");
        if !self.git.holds(Call::git("find a commit", ["rev-parse", "--quiet", "--verify", &commit])).await? {
            return Err(no_revision());
        }
        let form = ["show", "--no-color", "--no-ext-diff", "--no-textconv", "--stat", "--patch", "--format=fuller"];
        let mut args: Vec<_> = form.map(Into::into).into();
        args.extend([commit.into(), "--".into()]);
        args.extend(path.map(|path| path.as_path().as_os_str().to_owned()).filter(|path| !path.is_empty()));
        Ok(self.git.run(Call::git("show a commit", args).keep(SHOWN)).await?.text())
    }
}

/// Whether `text` can be nothing but a revision: no option, no range, no search.
fn is_revision(text: &str) -> bool {
    text.len() <= MAX_REVISION_BYTES
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_/.~^".contains(&byte))
        && !text.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_no_option_and_no_range() {
        for text in ["HEAD", "HEAD~3", "main", "nightcrew/x-1", "0a1b2c^"] {
            assert!(is_revision(text), "{text}");
        }
        for text in ["", "-p", "--output=/x", "a..b", "HEAD:file", ":/x", "a b", "a\nb", "^HEAD"] {
            assert!(!is_revision(text), "{text}");
        }
    }
}

//! Commits on the run's branch, and their way into the source repository.

use jiff::Timestamp;

use super::{
    CommitId, Worktree,
    capture::{INDEX, Then},
    git::{Call, GitError, identity},
    mirror::MirrorError,
    snapshot::{SnapshotError, answer, commit_id},
};
use schemas::AgentName;

/// Longest message of a commit.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

/// The trailer that names the run.
const TRAILER: &str = "Run-Id";

/// Commits the tree with message `$1`, for run `$2`. Index `$3` is then that of the branch's head.
const COMMIT: &str = r#"
head=$(git rev-parse --verify HEAD)
message=$(git interpret-trailers --no-divider --trailer "Run-Id: $2" <<< "$1")
if [ "$(git rev-parse --verify "HEAD^{tree}")" = "$tree" ]; then
    if [ "$(git log -1 --format=%B)" = "$message" ]; then echo again "$head"; else echo nothing "$head"; fi
    exit 0
fi
commit=$(git commit-tree "$tree" -p "$head" <<< "$message")
cp "$GIT_DIR/$3" "$GIT_DIR/index"
git update-ref HEAD "$commit" "$head"
echo made "$commit"
"#;

/// What a commit came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commit {
    /// It was made.
    Made(CommitId),
    /// It was there already, with the same content and message: this is a repeat.
    Again(CommitId),
    /// There was nothing to commit: the branch's head is as the worktree is.
    Nothing {
        /// The branch's head.
        head: CommitId,
    },
}

/// Who commits, and when. The same content, author and time give the same commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// The agent.
    pub agent: AgentName,
    /// The time of the call. One that is made again, where the commit of the first is not on the disk, makes another commit of
    /// the same content, which takes the place of the first on the branch.
    pub at: Timestamp,
}

/// Why something was not committed.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The message is empty.
    #[error("the message is empty: say what changes and why")]
    EmptyMessage,
    /// The message is too long.
    #[error("the message has more than {limit} bytes")]
    MessageTooLong {
        /// The limit.
        limit: usize,
    },
    /// The worktree could not be taken.
    #[error("the worktree could not be committed")]
    Worktree(#[from] SnapshotError),
    /// git failed.
    #[error("the commit could not be made")]
    Git(#[from] GitError),
}

impl Worktree {
    /// Commits everything that is not ignored on the run's branch, with a `Run-Id` trailer.
    pub async fn commit(&self, message: &str, author: &Author) -> Result<Commit, CommitError> {
        let message = clean(message)?;
        let _alone = self.exclusive().await;
        let (name, run_id) = (author.agent.as_str(), self.run_id.to_string());
        let email = format!("{name}@agents.nightcrew.invalid");
        let identity = identity(name, &email, author.at.as_second());
        let args = &[message.as_str(), &run_id, INDEX];
        let words = self.capture(Then { doing: "commit", script: COMMIT, args, identity }).await?.words;
        match <[String; 2]>::try_from(words) {
            Ok([what, commit]) => {
                let commit = commit_id("commit", commit)?;
                match what.as_str() {
                    "made" => Ok(Commit::Made(commit)),
                    "again" => Ok(Commit::Again(commit)),
                    _ => Ok(Commit::Nothing { head: commit }),
                }
            }
            Err(words) => Err(answer("commit", words.join(" ")).into()),
        }
    }

    /// Brings the run's branch into the source repository; `None` when it has no commit of its own.
    ///
    /// Safe to repeat. The branch belongs to this run alone, so it is made to be what it is here, also when it was something
    /// else. `is_held` says whether the run is still ours; it is asked between looking at the branch and changing it from just
    /// what was seen, so that a holder that was stopped in between changes nothing that its successor brought there.
    pub async fn publish<F, H>(&self, is_held: F) -> Result<Option<CommitId>, PublishError>
    where
        F: Fn() -> H + Send,
        H: Future<Output = bool> + Send,
    {
        let head = self.head().await?;
        if head == self.base {
            return Ok(None);
        }
        let there = self.mirror.branch_at_source(&self.branch).await?;
        if !is_held().await {
            return Err(PublishError::NotHeld);
        }
        if there.as_ref() != Some(&head) {
            let objects = self.slot.git_dir().join("objects");
            self.mirror.push(&objects, &head, &self.branch, there.as_ref()).await?;
        }
        Ok(Some(head))
    }

    /// The head of the run's branch.
    pub async fn head(&self) -> Result<CommitId, GitError> {
        let doing = "name the branch's head";
        let mut words = self.git.words(Call::git(doing, ["rev-parse", "--verify", "HEAD"])).await?;
        commit_id(doing, words.pop().unwrap_or_default())
    }
}

/// Why a branch was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// Its head could not be named.
    #[error("the branch's head could not be named")]
    Head(#[from] GitError),
    /// Another runner holds the run.
    #[error("another runner holds the run by now")]
    NotHeld,
    /// The source did not take it.
    #[error("the branch could not be brought into its repository")]
    Push(#[from] MirrorError),
}

/// The message without trailers that claim a run: only the runner says which one it was.
fn clean(message: &str) -> Result<String, CommitError> {
    if message.len() > MAX_MESSAGE_BYTES {
        return Err(CommitError::MessageTooLong { limit: MAX_MESSAGE_BYTES });
    }
    let claims = |line: &&str| {
        let name = line.split_once(':').map_or("", |(name, _)| name.trim());
        !name.eq_ignore_ascii_case(TRAILER)
    };
    let clean: Vec<&str> = message.trim().lines().map(str::trim_end).filter(claims).collect();
    let clean = clean.join("\n").trim().replace('\0', "");
    if clean.is_empty() { Err(CommitError::EmptyMessage) } else { Ok(clean + "\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_can_not_claim_a_run() {
        assert_eq!(clean("fix: x\n\nbody\n\nRun-Id: 1\nrun-id : 2\n").unwrap(), "fix: x\n\nbody\n");
        assert!(matches!(clean(" \n Run-Id: 1"), Err(CommitError::EmptyMessage)));
        assert!(matches!(clean(&"x".repeat(MAX_MESSAGE_BYTES + 1)), Err(CommitError::MessageTooLong { .. })));
    }
}

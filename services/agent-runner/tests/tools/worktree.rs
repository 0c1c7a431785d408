//! Worktrees: made, saved, brought back and published, on real git.

use std::{collections::BTreeMap, path::Path};

use agent_runner::{
    sandbox::{Sandbox as _, SandboxCommand},
    worktree::{Commit, CommitId, EnsureError, From, PublishError, Repository, SnapshotRef, StartPoint, WorktreePath},
};
use schemas::event::FileChange;

use crate::fixture::{Bundles, CHILD, RUN, Site, author, contents, git, state, tree};

#[tokio::test]
async fn a_worktree_is_made_from_the_base_on_a_branch_of_its_own() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    assert_eq!(worktree.branch(), format!("nightcrew/{RUN}"));
    assert_eq!(worktree.base().as_str(), git(&site.source, &["rev-parse", "main"]));
    assert_eq!(contents(&worktree), BTreeMap::from(Site::CONTENT.map(|(path, text)| (path.into(), text.into()))));
    assert!(worktree.snapshot(None).await.unwrap().is_none(), "nothing changed");
}

#[tokio::test]
async fn git_in_a_shell_reads_but_does_not_write() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let ran = site
        .shell(&worktree, "git log --format=%s && echo x >> README && git status --short && git diff | tail -1")
        .await;
    assert_eq!(ran, (0, "first\n M README\n+x\n".into()));
    let (code, said) = site.shell(&worktree, "git commit -am x").await;
    assert!(code != 0 && said.contains("Read-only"), "{said}");
    // A repository of its own is the agent's business.
    let (code, said) = site
        .shell(&worktree, "git init -q /tmp/r && cd /tmp/r && echo a > a && git add a && git -c user.name=a -c user.email=a commit -qm a && git log --format=%s")
        .await;
    assert_eq!((code, said.as_str()), (0, "a\n"));
}

#[tokio::test]
async fn a_snapshot_brings_everything_back_on_an_empty_disk() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let mut bundles = Bundles::default();
    let scripts = [
        "printf 'a\\r\\nb' > mixed && printf '\\0\\377' > binary && echo '#!/bin/sh' > tool && chmod +x tool",
        "rm README && mkdir -p deep/er && echo x > 'deep/er/a name\nwith lines' && ln -s ../tool deep/link",
        "mkdir target && echo secret > target/out && printf 'target/\\n*.log\\n' > .gitignore && echo x > a.log",
        "chmod -x tool && echo more >> src/lib && echo kept > kept.log && sed -i '/log/d' .gitignore",
        "rm -r deep && echo now a file > deep",
    ];
    let mut before = BTreeMap::new();
    for script in scripts {
        assert_eq!(site.shell(&worktree, script).await.0, 0);
        bundles.save(&worktree).await.unwrap();
        before = state(&worktree);
    }
    let commit = worktree.commit("feat: all of it", &author()).await.unwrap();
    assert!(matches!(commit, Commit::Made(_)));
    assert_eq!(site.shell(&worktree, "echo after >> mixed; rm tool").await.0, 0);
    bundles.save(&worktree).await.unwrap();
    before.insert("mixed".into(), "100644 a\r\nbafter\n".into());
    before.remove(Path::new("tool"));

    let other = Site::with_source(&site);
    let restored = other.ensure_from(RUN, &bundles).await;
    let mut after = state(&restored);
    assert!(!after.contains_key(Path::new("target/out")), "ignored files are left out");
    before.remove(Path::new("target/out"));
    assert_eq!(after, before);
    assert_eq!(restored.head().await.unwrap(), worktree.head().await.unwrap());
    assert_eq!(restored.branch(), worktree.branch());
    // And it goes on from there, on a third disk too.
    assert_eq!(other.shell(&restored, "echo again > again").await.0, 0);
    bundles.save(&restored).await.unwrap();
    let third = Site::with_source(&site);
    let again = third.ensure_from(RUN, &bundles).await;
    after.insert("again".into(), "100644 again\n".into());
    assert_eq!(state(&again), after);
    assert_eq!(third.shell(&again, "git status --short | sort").await.1, " D tool\n M mixed\n?? again\n");
}

#[tokio::test]
async fn line_ends_and_filters_of_attributes_change_nothing() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let script = "printf '* text=auto eol=crlf\\n*.x filter=evil ident\\n*.u working-tree-encoding=UTF-16\\n' > .gitattributes; \
                  printf 'a\\nb\\r\\n' > both; printf '$Id$\\n' > i.x; printf 'plain\\n' > e.u";
    assert_eq!(site.shell(&worktree, script).await.0, 0);
    let before = state(&worktree);
    let mut bundles = Bundles::default();
    bundles.save(&worktree).await.unwrap();
    let other = Site::with_source(&site);
    assert_eq!(state(&other.ensure_from(RUN, &bundles).await), before);
}

#[tokio::test]
async fn a_snapshot_says_what_changed() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let mut bundles = Bundles::default();
    let script = "echo two >> README; rm src/lib; echo new > new; printf '\\0' > bin; rm link; echo file > link";
    assert_eq!(site.shell(&worktree, script).await.0, 0);
    let snapshot = bundles.save(&worktree).await.unwrap();
    let seen: Vec<_> = snapshot.changes.files.iter().map(|f| (f.path.as_str(), f.change, f.added, f.removed)).collect();
    let expected = [
        ("README", FileChange::Modified, 1, 0),
        ("bin", FileChange::Added, 0, 0),
        ("link", FileChange::Modified, 1, 1),
        ("new", FileChange::Added, 1, 0),
        ("src/lib", FileChange::Deleted, 0, 1),
    ];
    assert_eq!(seen, expected);
    assert!(
        snapshot.changes.files[0].diff.ends_with("@@ -1 +1,2 @@\n one\n+two\n"),
        "{}",
        snapshot.changes.files[0].diff
    );
    assert!(snapshot.changes.files[2].diff.contains("-README") && snapshot.changes.files[2].diff.contains("+file"));
    // Only what changed since.
    assert_eq!(site.shell(&worktree, "echo three >> README").await.0, 0);
    let next = bundles.save(&worktree).await.unwrap();
    assert_eq!(next.changes.files.len(), 1);
    assert_eq!(next.prerequisite, snapshot.commit);
    assert!(bundles.save(&worktree).await.is_none());
}

#[tokio::test]
async fn the_same_state_gives_the_same_snapshot() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    assert_eq!(site.shell(&worktree, "echo x > x").await.0, 0);
    let first = worktree.snapshot(None).await.unwrap().unwrap();
    let again = worktree.snapshot(None).await.unwrap().unwrap();
    assert_eq!((first.commit, first.head), (again.commit, again.head));
}

#[tokio::test]
async fn what_is_on_disk_is_used_and_what_is_behind_is_not() {
    let site = Site::new();
    let mut bundles = Bundles::default();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "echo one > file; mkdir target; echo target > .gitignore; echo cached > target/x").await;
    bundles.save(&worktree).await.unwrap();
    drop(worktree);
    let same = site.ensure_from(RUN, &bundles).await;
    assert_eq!(site.shell(&same, "cat target/x").await.1, "cached\n", "the disk was used");
    drop(same);

    let other = Site::with_source(&site);
    let elsewhere = other.ensure_from(RUN, &bundles).await;
    other.shell(&elsewhere, "echo two > file").await;
    bundles.save(&elsewhere).await.unwrap();
    let back = site.ensure_from(RUN, &bundles).await;
    assert_eq!(
        site.shell(&back, "cat file; ls target 2>&1").await.1,
        "two\nls: cannot access 'target': No such file or directory\n"
    );
}

#[tokio::test]
async fn two_holders_never_share_a_folder() {
    let site = Site::new();
    let mut bundles = Bundles::default();
    let first = site.ensure(&[]).await;
    site.shell(&first, "echo one > file").await;
    bundles.save(&first).await.unwrap();
    let second = site.ensure_from(RUN, &bundles).await;
    site.shell(&second, "echo two > file").await;
    assert_eq!(site.shell(&first, "cat file").await.1, "one\n");
    site.worktrees.remove(RUN).await.unwrap();
    assert_eq!(site.shell(&second, "cat file").await.1, "two\n", "what is in use is not removed");
    drop((first, second));
    site.worktrees.remove(RUN).await.unwrap();
    assert_eq!(site.worktrees.runs().unwrap(), []);
}

#[tokio::test]
async fn a_folder_in_which_a_command_runs_is_not_given_away() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let command = SandboxCommand {
        mounts: worktree.mounts(),
        keeps: Some(worktree.keep()),
        ..SandboxCommand::new(RUN, ["bash", "-c", "touch /work/running; sleep 600"])
    };
    let (cancel, running) = (command.cancel.clone(), tree(&worktree).join("running"));
    let calls = site.sandbox.run(command);
    let next = async {
        while !running.exists() {
            tokio::task::yield_now().await;
        }
        drop(worktree);
        let next = site.ensure(&[]).await;
        cancel.cancel();
        next
    };
    let (_, next) = tokio::join!(calls, next);
    assert_eq!(site.shell(&next, "ls").await.1, "README\nlink\nsrc\n");
    assert!(running.exists());
}

#[tokio::test]
async fn a_commit_has_the_runs_trailer_and_a_repeat_says_so() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "echo x > x").await;
    let message = "feat: add x\n\nBecause.\n\nRun-Id: 00000000-0000-0000-0000-000000000000\nReviewed-by: somebody\n";
    let Commit::Made(commit) = worktree.commit(message, &author()).await.unwrap() else { panic!("nothing was made") };
    assert_eq!(worktree.commit(message, &author()).await.unwrap(), Commit::Again(commit.clone()));
    let other = worktree.commit("feat: more", &author()).await.unwrap();
    assert_eq!(other, Commit::Nothing { head: commit.clone() });
    let (_, shown) = site.shell(&worktree, "git log -1 --format='%an <%ae> %cI%n%B'; git status --short").await;
    let expected = format!(
        "coder <coder@agents.nightcrew.invalid> 2026-11-21T03:00:00+00:00\n\
         feat: add x\n\nBecause.\n\nReviewed-by: somebody\nRun-Id: {RUN}\n\n"
    );
    assert_eq!(shown.replace("Z\n", "+00:00\n"), expected);
    assert_eq!(worktree.ahead().await.unwrap(), 1);
    assert!(worktree.log(5, None).await.unwrap().contains("feat: add x"));
    let shown = worktree.show(commit.short(), None).await.unwrap();
    assert!(shown.contains("+x") && shown.contains(&format!("Run-Id: {RUN}")), "{shown}");
    assert!(worktree.diff(From::Head, None).await.unwrap().is_empty());
    let all = worktree.diff(From::Base, Some(&WorktreePath::try_new("x").unwrap())).await.unwrap();
    assert_eq!(all.files.len(), 1);
    assert!(worktree.show("no-such-branch", None).await.is_err());
}

#[tokio::test]
async fn the_same_commit_at_the_same_time_is_the_same() {
    let site = Site::new();
    let mut bundles = Bundles::default();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "echo x > x").await;
    bundles.save(&worktree).await.unwrap();
    let other = Site::with_source(&site);
    let elsewhere = other.ensure_from(RUN, &bundles).await;
    let made = worktree.commit("feat: x", &author()).await.unwrap();
    assert_eq!(elsewhere.commit("feat: x", &author()).await.unwrap(), made);
}

#[tokio::test]
async fn publishing_brings_the_branch_to_the_source_and_may_be_repeated() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    assert_eq!(worktree.publish(|| async { true }).await.unwrap(), None);
    site.shell(&worktree, "echo x > x").await;
    let Commit::Made(commit) = worktree.commit("feat: x", &author()).await.unwrap() else { panic!("nothing was made") };
    for _ in 0..2 {
        assert_eq!(worktree.publish(|| async { true }).await.unwrap().as_ref(), Some(&commit));
        assert_eq!(git(&site.source, &["rev-parse", worktree.branch()]), commit.as_str());
    }
    assert_eq!(git(&site.source, &["show", &format!("{commit}:x")]), "x");
    git(&site.source, &["fsck", "--strict"]);
    assert_eq!(git(&site.source, &["rev-parse", "main"]), worktree.base().as_str());
    // One that lost the run leaves the branch alone, also when its successor brought something there just now.
    site.shell(&worktree, "echo y > y").await;
    worktree.commit("feat: y", &author()).await.unwrap();
    let lost = worktree.publish(|| async { false }).await;
    assert!(matches!(lost, Err(PublishError::NotHeld)), "{lost:?}");
    let branch = format!("refs/heads/{}", worktree.branch());
    let overtaken = worktree.publish(|| async {
        git(&site.source, &["update-ref", &branch, "main"]);
        true
    });
    assert!(matches!(overtaken.await, Err(PublishError::Push(_))));
    assert_eq!(git(&site.source, &["rev-parse", &branch]), worktree.base().as_str());
    git(&site.source, &["update-ref", &branch, commit.as_str()]);
    // Another run may start there.
    let (start, none) = (StartPoint::Commit(commit.clone()), Bundles::default());
    let next = site.worktrees.ensure(CHILD, &site.repository, &start, &[], &none).await.unwrap();
    assert_eq!(next.base(), &commit);
}

#[tokio::test]
async fn a_child_goes_on_where_its_parent_stands() {
    let site = Site::new();
    let mut bundles = Bundles::default();
    let parent = site.ensure(&[]).await;
    site.shell(&parent, "echo committed > a").await;
    parent.commit("feat: a", &author()).await.unwrap();
    site.shell(&parent, "echo open > b").await;
    bundles.save(&parent).await.unwrap();
    let other = Site::with_source(&site);
    let child = other.ensure_from(CHILD, &bundles).await;
    assert_eq!(child.branch(), format!("nightcrew/{CHILD}"));
    assert_eq!(child.head().await.unwrap(), parent.head().await.unwrap());
    assert_eq!(other.shell(&child, "cat a b; git status --short").await.1, "committed\nopen\n?? b\n");
    other.shell(&child, "echo more >> b").await;
    let snapshot = bundles.save(&child).await.unwrap();
    assert_eq!(snapshot.changes.files.len(), 1);
}

#[tokio::test]
async fn runs_that_start_together_share_the_mirror() {
    let site = Site::new();
    let runs: Vec<_> = (1..=8).map(|n| schemas::RunId::from_uuid(uuid::Uuid::from_u128(n))).collect();
    let bundles = Bundles::default();
    let ensure = |run| site.worktrees.ensure(run, &site.repository, &StartPoint::Base, &[], &bundles);
    let made = futures::future::join_all(runs.iter().map(|run| ensure(*run))).await;
    assert!(made.iter().all(Result::is_ok));
    assert_eq!(site.worktrees.runs().unwrap(), runs);
}

#[tokio::test]
async fn a_base_is_a_branch_a_tag_a_commit_or_the_sources_own() {
    let site = Site::new();
    let first = git(&site.source, &["rev-parse", "HEAD"]);
    git(&site.source, &["tag", "--annotate", "--message=v1", "v1"]);
    git(&site.source, &["switch", "--quiet", "--create", "feature/x"]);
    git(&site.source, &["commit", "--quiet", "--allow-empty", "--message=second"]);
    let second = git(&site.source, &["rev-parse", "HEAD"]);
    let none = Bundles::default();
    let base_of = async |base: &str| {
        let repository = Repository::try_new("demo", site.source.to_str().unwrap(), base).unwrap();
        site.worktrees.remove(RUN).await.unwrap();
        let made = site.worktrees.ensure(RUN, &repository, &StartPoint::Base, &[], &none).await;
        made.unwrap().base().to_string()
    };
    for (base, commit) in
        [("main", &first), ("v1", &first), (&first, &first), ("feature/x", &second), ("HEAD", &second)]
    {
        assert_eq!(&base_of(base).await, commit, "{base}");
    }
    // A base that moved on is where the next run starts.
    git(&site.source, &["commit", "--quiet", "--allow-empty", "--message=third"]);
    assert_eq!(base_of("feature/x").await, git(&site.source, &["rev-parse", "HEAD"]));
    git(&site.source, &["symbolic-ref", "HEAD", "refs/heads/unborn"]);
    assert_eq!(base_of("main").await, first);
}

#[tokio::test]
async fn what_is_not_there_is_a_typed_error() {
    let site = Site::new();
    let no_branch = Repository::try_new("r", site.source.to_str().unwrap(), "no-such").unwrap();
    let no_source = Repository::try_new("n", "/no/such/folder", "main").unwrap();
    let bundles = Bundles::default();
    for repository in [no_branch, no_source] {
        let made = site.worktrees.ensure(RUN, &repository, &StartPoint::Base, &[], &bundles).await;
        assert!(matches!(made, Err(EnsureError::Mirror(_))), "{:?}", made.err());
    }
    let id = CommitId::try_new("1".repeat(40)).unwrap();
    let lost = SnapshotRef { base: id.clone(), head: id.clone(), commit: id, bundle: "none".into() };
    let made = site.worktrees.ensure(RUN, &site.repository, &StartPoint::Base, &[lost], &bundles).await;
    assert!(made.is_err());
}

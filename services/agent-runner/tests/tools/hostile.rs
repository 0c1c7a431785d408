//! What an agent may plant in its worktree, and what comes of it.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use agent_runner::worktree::{Commit, From, SnapshotError, Why, WorktreePath};

use crate::fixture::{Bundles, RUN, Site, author, tree};

#[tokio::test]
async fn nested_repositories_and_odd_files_do_not_stop_a_snapshot() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let script = "git init -q empty && echo x > empty/file; \
                  git init -q full && cd full && echo y > file && git add . && git -c user.name=a -c user.email=a commit -qm a && cd ..; \
                  mkfifo pipe; echo z > locked && chmod 000 locked; mkdir shut && echo s > shut/file && chmod 000 shut; \
                  ln -s /etc/passwd .gitmodules; echo g > 'git~1'; echo b > 'back\\slash'; echo n > $'new\\nline'; echo u > $'\\xff'";
    assert_eq!(site.shell(&worktree, script).await, (0, String::new()));
    let mut bundles = Bundles::default();
    let snapshot = bundles.save(&worktree).await.unwrap();
    let mut left: Vec<_> = snapshot.left_out.iter().map(|left| (left.path.as_str(), left.why)).collect();
    left.sort_by_key(|left| left.0);
    let odd = [".gitmodules", "empty/.git", "full/.git", "locked", "pipe", "shut"].map(|path| (path, Why::Odd));
    assert_eq!(left, odd);
    let other = Site::with_source(&site);
    let restored = other.ensure_from(RUN, &bundles).await;
    let text = other.shell(&restored, "cat empty/file full/file 'git~1' 'back\\slash' $'new\\nline' $'\\xff'").await.1;
    assert_eq!(text, "x\ny\ng\nb\nn\nu\n");
    site.shell(&worktree, "chmod 700 shut").await;
    drop(worktree);
    site.worktrees.remove(RUN).await.unwrap();
}

#[tokio::test]
async fn a_tracked_file_that_may_not_be_read_is_not_taken_for_deleted() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "chmod 000 src README; echo x > x").await;
    let snapshot = worktree.snapshot(None).await.unwrap().unwrap();
    let paths: Vec<_> = snapshot.changes.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["x"]);
}

#[tokio::test]
async fn what_is_planted_in_the_worktree_never_runs() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let script = "mkdir -p hooks sub && printf '#!/bin/sh\\ntouch /work/ran /nightcrew/git/ran\\n' | tee hooks/pre-commit hooks/post-checkout \
                  hooks/reference-transaction hooks/post-index-change > sub/evil; chmod +x hooks/* sub/evil; \
                  printf '* filter=evil diff=evil merge=evil\\n' > .gitattributes; \
                  printf '[core]\\n\\tfsmonitor = /work/sub/evil\\n\\thooksPath = /work/hooks\\n[filter \"evil\"]\\n\\tclean = /work/sub/evil\\n\\tsmudge = /work/sub/evil\\n\
                  [diff \"evil\"]\\n\\ttextconv = /work/sub/evil\\n\\tcommand = /work/sub/evil\\n' > config; cp config .gitconfig; \
                  git init -q sub/nested && cat config >> sub/nested/.git/config && cp hooks/* sub/nested/.git/hooks/ && echo x > sub/nested/x; \
                  printf '[submodule \"s\"]\\n\\tpath = s\\n\\turl = ext::sh -c touch%% /work/ran\\n\\tupdate = !touch /work/ran\\n' > .gitmodules";
    assert_eq!(site.shell(&worktree, script).await, (0, String::new()));
    let mut bundles = Bundles::default();
    bundles.save(&worktree).await.unwrap();
    worktree.commit("feat: innocent", &author()).await.unwrap();
    worktree.diff(From::Base, None).await.unwrap();
    worktree.show("HEAD", None).await.unwrap();
    worktree.publish(|| async { true }).await.unwrap();
    bundles.save(&worktree).await.unwrap();
    let other = Site::with_source(&site);
    let restored = other.ensure_from(RUN, &bundles).await;
    for (site, worktree) in [(&site, &worktree), (&other, &restored)] {
        let ran = site.shell(worktree, "ls ran /nightcrew/git/ran; git init -q /tmp/x").await.1;
        assert_eq!(ran.matches("No such file").count(), 2, "{ran}");
    }
}

#[tokio::test]
async fn dot_git_can_neither_be_replaced_nor_written() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let head = worktree.head().await.unwrap();
    for script in [
        "rm -f .git",
        "mv .git other",
        "echo gitdir: /tmp > .git",
        "ln -sf /tmp .git",
        "cp -r /nightcrew/git /tmp/g && mv -f /tmp/g .git",
        "echo x > /nightcrew/git/config",
        "echo x > /nightcrew/git/hooks",
        "git config core.pager evil",
        "git update-ref HEAD $(git commit-tree -m x HEAD^{tree})",
        "echo x > /nightcrew/mirror/objects/x",
        "chmod 777 .git",
    ] {
        let (code, said) = site.shell(&worktree, script).await;
        assert_ne!(code, 0, "{script}: {said}");
    }
    assert_eq!(worktree.head().await.unwrap(), head);
    let plain = WorktreePath::try_new("ok").unwrap();
    worktree.files().replace(&plain, b"ok").unwrap();
    assert_eq!(site.shell(&worktree, "git status --short").await.1, "?? ok\n");
}

#[tokio::test]
async fn files_are_not_reached_through_links_out_of_the_worktree() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let secret = site.state.path().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    let tree = tree(&worktree);
    symlink(site.state.path(), tree.join("out")).unwrap();
    symlink(&secret, tree.join("direct")).unwrap();
    symlink("../../../../../secret", tree.join("up")).unwrap();
    symlink("/proc/self/root", tree.join("magic")).unwrap();
    symlink("README", tree.join("inside")).unwrap();
    let files = worktree.files();
    for path in ["out/secret", "direct", "up", "magic/etc/passwd"] {
        assert!(files.read(&WorktreePath::try_new(path).unwrap()).is_err(), "{path}");
        assert!(files.replace(&WorktreePath::try_new(path).unwrap(), b"x").is_err(), "{path}");
    }
    assert!(files.replace(&WorktreePath::try_new("out/new/file").unwrap(), b"x").is_err());
    assert!(files.read(&WorktreePath::try_new("inside").unwrap()).is_ok());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "s3cret");
    assert!(!site.state.path().join("new").exists());
    // Links are saved as links, not as what they point to.
    let snapshot = worktree.snapshot(None).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&snapshot.bundle).contains("s3cret"));
    assert!(snapshot.changes.files.iter().all(|file| !file.diff.contains("s3cret")));
}

#[tokio::test]
async fn replacing_keeps_the_executable_bit_and_makes_folders() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    let (tool, deep) = (WorktreePath::try_new("tool").unwrap(), WorktreePath::try_new("a/b/c").unwrap());
    site.shell(&worktree, "echo old > tool; chmod 755 tool; mkfifo pipe").await;
    assert!(worktree.files().replace(&tool, b"new").unwrap());
    assert!(!worktree.files().replace(&deep, b"deep").unwrap());
    assert_eq!(fs::metadata(tree(&worktree).join("tool")).unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(site.shell(&worktree, "cat tool a/b/c").await.1, "newdeep");
    // Reading a pipe would wait for ever.
    assert!(worktree.files().read(&WorktreePath::try_new("pipe").unwrap()).is_err());
    assert!(worktree.files().replace(&WorktreePath::try_new("a/b").unwrap(), b"x").is_err());
}

#[tokio::test]
async fn too_much_is_refused_with_what_to_do() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "truncate -s 60M big").await;
    let error = worktree.snapshot(None).await.unwrap_err();
    assert!(matches!(error, SnapshotError::FileTooLarge { .. }) && error.is_for_the_agent(), "{error}");
    site.shell(&worktree, "rm big; for i in 1 2; do head -c 40000000 /dev/urandom > part$i; done").await;
    let error = worktree.snapshot(None).await.unwrap_err();
    assert!(matches!(error, SnapshotError::TooMuch { .. }) && error.is_for_the_agent(), "{error}");
    site.shell(&worktree, "rm part*; echo small > small").await;
    assert_eq!(worktree.snapshot(None).await.unwrap().unwrap().changes.files.len(), 1);
}

#[tokio::test]
async fn locks_of_a_git_that_was_killed_do_not_stop_the_next() {
    let site = Site::new();
    let worktree = site.ensure(&[]).await;
    site.shell(&worktree, "echo x > x").await;
    let git_dir = tree(&worktree).with_file_name("git");
    fs::write(git_dir.join("capture.index.lock"), "").unwrap();
    fs::write(git_dir.join(format!("refs/heads/nightcrew/{RUN}.lock")), "").unwrap();
    fs::write(git_dir.join("HEAD.lock"), "").unwrap();
    assert!(matches!(worktree.commit("x", &author()).await.unwrap(), Commit::Made(_)));
}

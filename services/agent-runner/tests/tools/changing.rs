//! The tools that change something: write, edit, shell and git.

use std::{fs, io::Read as _};

use agent_runner::{
    sandbox::{Sandbox, SandboxCommand},
    worktree::WorktreePath,
};
use kit::logs::{Limits, LogSink, LogStore};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::{
    desk::Desk,
    fixture::{Bundles, RUN, Site, git, tree},
};

#[tokio::test]
async fn write_and_edit_change_files() {
    let desk = Desk::new().await;
    assert_eq!(
        desk.ok("write", json!({ "path": "new/file", "content": "a\nb\n" })).await,
        "Wrote new file new/file (2 lines, 4 bytes)."
    );
    assert!(
        desk.ok("write", json!({ "path": "new/file", "content": "a\nb\nc\n" })).await.starts_with("Replaced new/file")
    );
    let edited = desk.ok("edit", json!({ "path": "new/file", "old": "b\n", "new": "x\ny\n" })).await;
    assert_eq!(edited, "Changed new/file:\n     1\ta\n     2\tx\n     3\ty\n     4\tc\n");
    assert_eq!(fs::read_to_string(tree(desk.worktree()).join("new/file")).unwrap(), "a\nx\ny\nc\n");
    assert!(
        desk.refused("edit", json!({ "path": "new/file", "old": "nope", "new": "x" }))
            .await
            .contains("not in the file")
    );
    fs::write(tree(desk.worktree()).join("binary"), b"\xff\xfe").unwrap();
    assert!(desk.refused("edit", json!({ "path": "binary", "old": "a", "new": "b" })).await.contains("UTF-8"));
    for path in ["../x", ".git/config", "link", "src", "/tmp/x"] {
        desk.refused("write", json!({ "path": path, "content": "x" })).await;
    }
    let large = desk.refused("write", json!({ "path": "l", "content": "x".repeat((1 << 20) + 1) })).await;
    assert!(large.contains("1048577 bytes"), "{large}");
}

#[tokio::test]
async fn shell_runs_in_the_sandbox_and_says_how_it_ended() {
    let desk = Desk::new().await;
    assert_eq!(desk.ok("shell", json!({ "command": "cat README; echo $RUN_ID >&2" })).await, format!("one\n{RUN}\n"));
    assert_eq!(desk.ok("shell", json!({ "command": "true" })).await, "[no output]");
    assert_eq!(desk.refused("shell", json!({ "command": "echo no; exit 3" })).await, "no\n[exit code 3]");
    let late = desk.refused("shell", json!({ "command": "echo yes; sleep 60", "timeout_s": 1 })).await;
    assert_eq!(late, "yes\n[ended after 1 s, with all its processes]");
    let flood = desk.call("shell", json!({ "command": "yes | head -c 1000000" })).await;
    assert!(flood.content.len() < 40 * 1024 && flood.content.contains("bytes cut ...]"));
    assert_eq!(flood.truncated.unwrap().of, 1_000_000);
    assert!(desk.refused("shell", json!({ "command": "echo x > /usr/x" })).await.contains("Read-only"));
    assert!(desk.refused("shell", json!({ "command": " " })).await.contains("must be text"));
}

#[tokio::test]
async fn output_of_a_command_is_kept_under_its_run() {
    let mut desk = Desk::new().await;
    let dir = tempfile::tempdir().unwrap();
    let store = LogStore::open(dir.path(), Limits::SHIPPED).unwrap();
    let (sink, guard) = LogSink::start(&store, "test").unwrap();
    desk.context.logs = Some(sink);
    desk.ok("shell", json!({ "command": "echo first; echo second" })).await;
    desk.refused("read", json!({ "path": "none" })).await;
    desk.context.logs = None;
    drop(guard);
    let lines = store.lines_of(RUN).unwrap().lines;
    let seen: Vec<_> = lines.iter().map(|line| (line.target.as_str(), line.message.as_str())).collect();
    assert_eq!(seen[0], ("shell", "first"));
    assert_eq!(seen[1], ("shell", "second"));
    assert!(seen.iter().any(|(tool, text)| *tool == "read" && text.contains("does not exist")), "{seen:?}");
}

#[tokio::test]
async fn git_shows_commits_and_compares() {
    let desk = Desk::new().await;
    let base = desk.worktree().base().short().to_owned();
    let clean = desk.ok("git", json!({ "operation": "status" })).await;
    assert_eq!(
        clean,
        format!("Branch nightcrew/{RUN} at {base}, 0 commits ahead of main ({base}).\nNothing to commit.\n")
    );
    desk.ok("write", json!({ "path": "new", "content": "n\n" })).await;
    desk.ok("edit", json!({ "path": "README", "old": "one", "new": "two" })).await;
    let status = desk.ok("git", json!({ "operation": "status" })).await;
    assert!(status.ends_with("changed README  +1 -1\nadded   new  +1 -0\n"), "{status}");
    let diff = desk.ok("git", json!({ "operation": "diff", "path": "new" })).await;
    assert!(diff.contains("+n\n") && !diff.contains("README"), "{diff}");
    let made = desk.call("git", json!({ "operation": "commit", "message": "feat: new\n\nWhy." })).await;
    let commit = made.commit.clone().unwrap();
    assert_eq!(commit.subject, "feat: new");
    assert_eq!(made.content, format!("Committed {} on nightcrew/{RUN}: feat: new", commit.commit.short()));
    // A call that was in flight and is made again.
    let again = desk.call("git", json!({ "operation": "commit", "message": "feat: new\n\nWhy." })).await;
    assert_eq!(again.commit.as_ref(), Some(&commit));
    let nothing = desk.call("git", json!({ "operation": "commit", "message": "feat: other" })).await;
    assert!(nothing.commit.is_none() && nothing.content.contains("nothing to commit"), "{}", nothing.content);
    assert!(desk.ok("git", json!({ "operation": "log", "max": 1 })).await.contains("coder\n    feat: new"));
    assert!(desk.ok("git", json!({ "operation": "show" })).await.contains(&format!("Run-Id: {RUN}")));
    assert_eq!(desk.ok("git", json!({ "operation": "diff" })).await, "[no difference]");
    assert!(desk.ok("git", json!({ "operation": "diff", "from": "base" })).await.contains("+two"));
    assert!(
        desk.refused("git", json!({ "operation": "show", "revision": "--help" })).await.contains("names no commit")
    );
    assert!(desk.refused("git", json!({ "operation": "commit" })).await.contains("message is empty"));
}

#[tokio::test]
async fn an_agent_that_may_only_read_changes_nothing() {
    let mut desk = Desk::new().await;
    desk.context.read_only = true;
    for (tool, arguments) in [
        ("write", json!({ "path": "x", "content": "x" })),
        ("edit", json!({ "path": "README", "old": "one", "new": "two" })),
        ("shell", json!({ "command": "echo x > x" })),
        ("git", json!({ "operation": "commit", "message": "m" })),
    ] {
        desk.refused(tool, arguments).await;
    }
    assert_eq!(
        desk.ok("shell", json!({ "command": "cat README && ls && git log --format=%s" })).await,
        "one\nREADME\nlink\nsrc\nfirst\n"
    );
    assert!(desk.worktree().snapshot(None).await.unwrap().is_none());
}

#[tokio::test]
async fn calls_at_once_do_not_disturb_each_other() {
    let desk = Desk::new().await;
    let writes = (0..8).map(|n| desk.call("write", json!({ "path": format!("f{n}"), "content": "x" })));
    let shells = (0..4).map(|n| desk.call("shell", json!({ "command": format!("mkdir d{n} && touch d{n}/file") })));
    let (wrote, ran, commit, snapshot) = tokio::join!(
        futures::future::join_all(writes),
        futures::future::join_all(shells),
        desk.call("git", json!({ "operation": "status" })),
        desk.worktree().snapshot(None),
    );
    assert!(wrote.iter().chain(&ran).all(|output| !output.is_error) && !commit.is_error && snapshot.is_ok());
    let done = desk.ok("git", json!({ "operation": "status" })).await;
    assert_eq!(done.matches("added").count(), 12);
}

#[tokio::test]
async fn a_cancelled_command_says_so() {
    let desk = Desk::new().await;
    desk.context.cancel.cancel();
    assert_eq!(desk.refused("shell", json!({ "command": "sleep 60" })).await, "[cancelled]");
}

#[tokio::test]
async fn a_link_swapped_in_by_a_command_leads_nowhere() {
    let desk = Desk::new().await;
    let secret = desk.site.state.path().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    let outside = desk.site.state.path().display().to_string();
    // The same folder is now and then a link out of the worktree while files in it are read and written.
    let swap = format!(
        "cd /work; mkdir -p real; echo inside > real/secret; ln -s {outside} out; \
                        for i in $(seq 400); do ln -sfn {outside} d 2>/dev/null; rm -rf d; cp -r real d; rm -rf d; done; true"
    );
    let context =
        SandboxCommand { mounts: desk.worktree().mounts(), ..SandboxCommand::new(RUN, ["bash", "-c", &swap]) };
    let files = desk.worktree().files().clone();
    let path = WorktreePath::try_new("d/secret").unwrap();
    let swapping = Sandbox::run(&*desk.site.sandbox, context);
    let stopped = CancellationToken::new();
    let stop = stopped.clone().drop_guard();
    let reading = tokio::task::spawn_blocking(move || {
        while !stopped.is_cancelled() {
            if let Ok(mut file) = files.read(&path) {
                let mut text = String::new();
                file.read_to_string(&mut text).unwrap();
                assert_ne!(text, "s3cret");
            }
            files.replace(&path, b"overwritten").ok();
        }
    });
    assert!(swapping.await.unwrap().exit.success());
    drop(stop);
    reading.await.unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "s3cret");
}

#[tokio::test]
async fn the_whole_way_of_a_change() {
    let desk = Desk::new().await;
    desk.ok("shell", json!({ "command": "grep -c one README" })).await;
    desk.ok("edit", json!({ "path": "README", "old": "one", "new": "two" })).await;
    desk.ok("git", json!({ "operation": "commit", "message": "fix: say two" })).await;
    let mut bundles = Bundles::default();
    bundles.save(desk.worktree()).await.unwrap();
    let published = desk.worktree().publish(|| async { true }).await.unwrap().unwrap();
    let other = Site::with_source(&desk.site);
    let restored = other.ensure_from(RUN, &bundles).await;
    assert_eq!(restored.head().await.unwrap(), published);
    let shown =
        git(&desk.site.source, &["log", "-1", "--format=%s%n%(trailers:key=Run-Id,valueonly)", published.as_str()]);
    assert_eq!(shown.trim(), format!("fix: say two\n{RUN}"));
}

//! What a command in the sandbox can and can not do. Each test tries the escape for real.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent_runner::sandbox::{
    Bubblewrap, BubblewrapConfig, Exit, Keep, Limits, Mount, Sandbox as _, SandboxCommand, SandboxError, Stream,
};
use uuid::Uuid;

use crate::fixture::{DEADLINE, RUN, TestBox, bubblewrap, is_running, wait_until};

fn mark() -> String {
    format!("mark-{}", Uuid::new_v4())
}

#[tokio::test]
async fn a_command_has_the_worktree_and_the_tools_of_usr() {
    let inside = TestBox::new();
    let output = inside.run("echo hello > file && cat file && awk 'BEGIN { print 6 * 7 }' && id -un && pwd").await;
    assert_eq!((output.exit, output.stdout.text()), (Exit::Code(0), "hello\n42\nagent\n/work\n".into()));
    assert_eq!(fs::read_to_string(inside.work().join("file")).unwrap(), "hello\n");
}

#[tokio::test]
async fn its_environment_is_small_and_known() {
    let inside = TestBox::new();
    let text = inside.run("env | cut -d= -f1 | sort").await.stdout.text();
    let names: Vec<&str> = text.lines().filter(|name| !["_", "PWD", "OLDPWD", "SHLVL"].contains(name)).collect();
    assert_eq!(names, ["HOME", "LANG", "PATH", "RUN_ID"]);
    let id = inside.run("printf %s $RUN_ID; tr '\\0' '\\n' < /proc/1/environ").await.stdout.text();
    assert_eq!(id, RUN.to_string());
}

#[tokio::test]
async fn nothing_but_the_worktree_is_writable() {
    let inside = TestBox::new();
    for place in [
        "/x",
        "/usr/x",
        "/usr/bin/x",
        "/etc/x",
        "/etc/passwd",
        "/home/x",
        "/dev/x",
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sysrq-trigger",
    ] {
        let output = inside.run(&format!("echo x > {place}")).await;
        assert_eq!(output.exit, Exit::Code(1), "{place}: {}", output.stdout.text());
    }
    assert!(inside.run("touch /tmp/x /dev/shm/x ~/x file").await.exit.success());
}

#[tokio::test]
async fn the_host_is_not_there() {
    let inside = TestBox::new();
    let secret = inside.state.path().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    std::os::unix::fs::symlink(&secret, inside.work().join("link")).unwrap();
    let home = std::env::var("HOME").unwrap();
    for path in
        [secret.to_str().unwrap(), "link", "/work/../secret", "/etc/shadow", &home, "/proc/1/root/root", "/sys", "/run"]
    {
        let output = inside.run(&format!("cat {path} || ls {path}/*")).await;
        assert!(!output.exit.success(), "{path}: {}", output.stdout.text());
    }
    let root = inside.run("ls -1 / | tr '\\n' ' '").await.stdout.text();
    let unexpected: Vec<&str> = root
        .split_whitespace()
        .filter(|name| !name.starts_with("lib"))
        .filter(|name| !["bin", "dev", "etc", "home", "proc", "sbin", "tmp", "usr", "work"].contains(name))
        .collect();
    assert!(unexpected.is_empty(), "{unexpected:?}");
}

#[tokio::test]
async fn loopback_of_the_host_is_not_reached() {
    let inside = TestBox::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let output = inside.run(&format!("exec 3<>/dev/tcp/127.0.0.1/{port}")).await;
    assert!(!output.exit.success());
    assert!(output.stdout.text().contains("refused"), "{}", output.stdout.text());
    assert!(!inside.run("exec 3<>/dev/udp/1.1.1.1/53 && echo x >&3").await.exit.success());
    let devices = inside.run("cut -d: -f1 /proc/net/dev | tail -n +3").await.stdout.text();
    assert_eq!(devices.trim(), "lo");
}

#[tokio::test]
async fn other_processes_are_neither_seen_nor_signalled() {
    let inside = TestBox::new();
    let me = std::process::id();
    let output = inside.run(&format!("ls -d /proc/[0-9]* | wc -l; ls /proc/{me} 2>&1; kill -0 {me} 2>&1")).await;
    let text = output.stdout.text();
    let count: u32 = text.lines().next().unwrap().parse().unwrap();
    assert!(count < 8, "{text}");
    assert!(text.contains("No such"), "{text}");
}

#[tokio::test]
async fn there_are_no_privileges_and_none_to_be_had() {
    let inside = TestBox::new();
    let status = inside.run("grep -E '^(CapEff|CapBnd|CapPrm|NoNewPrivs)' /proc/self/status").await.stdout.text();
    for line in status.lines() {
        let (name, value) = line.split_once(':').unwrap();
        let expected = if name == "NoNewPrivs" { "1" } else { "0000000000000000" };
        assert_eq!(value.trim(), expected, "{name}");
    }
    assert!(!inside.run("unshare --user true").await.exit.success());
    assert!(!inside.run("mount -t tmpfs none /tmp").await.exit.success());
}

#[tokio::test]
async fn no_process_survives_its_call() {
    let inside = TestBox::new();
    let mark = mark();
    let output = inside
        .run(&format!(
            "for i in 1 2 3; do setsid nohup bash -c 'while :; do echo {mark} >> alive; sleep 0.01; done' >/dev/null 2>&1 </dev/null & done; \
             until [ -s alive ]; do :; done; echo started"
        ))
        .await;
    assert_eq!((output.exit, output.stdout.text()), (Exit::Code(0), "started\n".into()));
    // At the moment of the answer: no waiting here.
    assert!(!is_running(&mark));
}

#[tokio::test]
async fn a_timeout_ends_the_whole_tree() {
    let inside = TestBox::new();
    let mark = mark();
    let mut command = inside.command(&format!("echo begun; (exec -a {mark} sleep 600) & exec -a {mark} sleep 600"));
    command.limits.wall = Duration::from_millis(500);
    let began = Instant::now();
    let output = inside.sandbox.run(command).await.unwrap();
    assert_eq!((output.exit, output.stdout.text()), (Exit::TimedOut, "begun\n".into()));
    assert!(began.elapsed() < DEADLINE);
    assert!(!is_running(&mark));
}

#[tokio::test]
async fn what_the_runner_inherited_is_not_passed_on() {
    let inside = TestBox::new();
    let secret = inside.state.path().join("secret");
    fs::write(&secret, "s3cret").unwrap();
    let open = fs::File::open(&secret).unwrap();
    rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
    let text = inside.run("ls /proc/$$/fd; find /proc/1/fd -lname '*secret'").await.stdout.text();
    assert_eq!(text, "0\n1\n2\n");
    drop(open);
}

#[tokio::test]
async fn a_sandbox_that_was_left_half_set_up_is_ended_at_the_next_start() {
    let inside = TestBox::new();
    let mark = mark();
    let etc = inside.state.path().join("sandbox/etc");
    // Without --die-with-parent its first process outlives the other.
    let script = format!("exec -a {mark} sleep 600");
    let mut outer = Command::new("bwrap")
        .args(["--unshare-pid", "--ro-bind", "/", "/", "--ro-bind"])
        .args([&etc, &etc])
        .args(["bash", "-c", &script])
        .spawn()
        .unwrap();
    wait_until("it runs", || is_running(&format!("{mark}\u{0}600")));
    let other = TestBox::new();
    drop(bubblewrap(other.state.path()));
    drop(bubblewrap(inside.state.path()));
    assert!(is_running(&format!("{mark}\u{0}600")), "what has its parent is left alone");
    outer.kill().unwrap();
    outer.wait().unwrap();
    assert!(is_running(&format!("{mark}\u{0}600")));
    drop(bubblewrap(inside.state.path()));
    wait_until("it is ended", || !is_running(&mark));
}

#[tokio::test]
async fn calls_dropped_at_any_moment_leave_nothing_behind() {
    let inside = TestBox::new();
    let mark = mark();
    for micros in (0..12_000).step_by(400) {
        let command = inside.command(&format!("exec -a {mark} sleep 600"));
        let limit = Duration::from_micros(micros);
        drop(tokio::time::timeout(limit, inside.sandbox.run(command)).await);
    }
    wait_until("all are gone", || !is_running(&mark));
}

#[tokio::test]
async fn cancelling_ends_it() {
    let inside = TestBox::new();
    let mark = mark();
    let command = inside.command(&format!("exec -a {mark} sleep 600"));
    let cancel = command.cancel.clone();
    let sandbox = Arc::clone(&inside.sandbox);
    let (output, ()) = tokio::join!(sandbox.run(command), async {
        while !is_running(&mark) {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
    });
    assert_eq!(output.unwrap().exit, Exit::Cancelled);
    assert!(!is_running(&mark));
}

#[tokio::test]
async fn dropping_the_call_ends_it() {
    let inside = TestBox::new();
    let mark = mark();
    let command = inside.command(&format!("exec -a {mark} sleep 600"));
    tokio::select! {
        _ = inside.sandbox.run(command) => panic!("it ended by itself"),
        () = async { while !is_running(&mark) { tokio::task::yield_now().await } } => {}
    }
    wait_until("the command is gone", || !is_running(&mark));
}

#[tokio::test]
async fn output_is_bounded_and_says_what_was_cut() {
    let inside = TestBox::new();
    let mut command = inside.command("echo first; head -c 50000000 /dev/zero | tr '\\0' x; echo; echo last");
    command.keep = Keep::HeadAndTail { head: 100, tail: 100 };
    let output = inside.sandbox.run(command).await.unwrap();
    assert_eq!(output.stdout.head.len() + output.stdout.tail.len(), 200);
    assert_eq!(output.stdout.total, 50_000_012);
    let text = output.stdout.text();
    assert!(text.starts_with("first\n") && text.ends_with("last\n") && text.contains("49999812 bytes cut"), "{text}");
}

#[tokio::test]
async fn more_than_all_is_an_error_and_ends_it() {
    let inside = TestBox::new();
    let mark = mark();
    let mut command = inside.command(&format!("exec -a {mark} cat /dev/zero"));
    command.keep = Keep::All(1 << 20);
    let error = inside.sandbox.run(command).await.unwrap_err();
    assert!(matches!(error, SandboxError::TooMuchOutput { limit: 1_048_576 }), "{error}");
    assert!(!is_running(&mark));
}

#[tokio::test]
async fn limits_hold() {
    let inside = TestBox::new();
    let mut command =
        inside.command("head -c 3000000 /dev/zero > big; stat -c %s big; ulimit -c; ulimit -n; ulimit -n 5000");
    command.limits = Limits { file_bytes: 1 << 20, open_files: 64, ..Limits::default() };
    let output = inside.sandbox.run(command).await.unwrap();
    let text = output.stdout.text();
    assert!(text.contains("1048576\n0\n64\n"), "{text}");
    assert!(!output.exit.success(), "a limit could be raised");
    let full = inside.run("head -c 600000000 /dev/zero > /tmp/x").await;
    assert!(!full.exit.success() && full.stdout.text().contains("No space"), "{}", full.stdout.text());
}

#[tokio::test]
async fn input_and_exit_codes_pass_through() {
    let inside = TestBox::new();
    let mut command = inside.command("cat; exit 7");
    command.stdin = "given\n".into();
    let output = inside.sandbox.run(command).await.unwrap();
    assert_eq!((output.exit, output.stdout.text()), (Exit::Code(7), "given\n".into()));
    assert_eq!(inside.run("kill -TERM $$").await.exit, Exit::Code(128 + 15));
    let missing = SandboxCommand::new(RUN, ["no-such-program"]);
    assert_eq!(inside.sandbox.run(missing).await.unwrap().exit, Exit::Code(127));
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let inside = TestBox::new();
    let mut command = inside.command("exit 3");
    command.stdin = vec![b'x'; 1 << 20].into();
    assert_eq!(inside.sandbox.run(command).await.unwrap().exit, Exit::Code(3));
}

#[tokio::test]
async fn lines_are_logged_while_it_runs() {
    let inside = TestBox::new();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let mut command = inside.command("echo one; until [ -e go ]; do :; done; echo two >&2; printf three");
    command.merge_stderr = false;
    command.on_output = Some({
        let (seen, go) = (Arc::clone(&seen), inside.work().join("go"));
        Arc::new(move |stream, line: &[u8]| {
            // The command waits for this file, so it still runs when its first line arrives.
            fs::write(&go, "").unwrap();
            seen.lock().unwrap().push((stream, String::from_utf8_lossy(line).into_owned()));
        })
    });
    let output = inside.sandbox.run(command).await.unwrap();
    assert!(output.exit.success());
    let mut seen = seen.lock().unwrap().clone();
    seen.sort_by_key(|(stream, _)| *stream == Stream::Stderr);
    let expected = [(Stream::Stdout, "one"), (Stream::Stdout, "three"), (Stream::Stderr, "two")];
    assert_eq!(seen, expected.map(|(stream, line)| (stream, line.to_owned())));
}

#[tokio::test]
async fn a_read_only_mount_can_not_be_written() {
    let inside = TestBox::new();
    fs::create_dir(inside.state.path().join("other")).unwrap();
    let mut command = inside.command("ls /other && touch /other/x");
    command.mounts.push(Mount::read_only(inside.state.path().join("other"), "/other"));
    let output = inside.sandbox.run(command).await.unwrap();
    assert!(!output.exit.success() && output.stdout.text().contains("Read-only"), "{}", output.stdout.text());
}

#[tokio::test]
async fn a_missing_program_is_named() {
    let state = tempfile::tempdir().unwrap();
    let config = BubblewrapConfig { program: "no-such-bwrap".into(), ..BubblewrapConfig::new(state.path()) };
    let error = Bubblewrap::new(config).err().unwrap();
    assert!(
        matches!(error, SandboxError::ProgramMissing { .. }) && error.to_string().contains("bubblewrap"),
        "{error}"
    );
}

#[tokio::test]
async fn without_user_namespaces_nothing_runs() {
    let inside = TestBox::new();
    let program = inside.state.path().join("bwrap");
    // bubblewrap where the kernel allows no further namespace.
    let script = "#!/bin/bash\nexec /usr/bin/unshare --user --map-root-user /bin/bash -c \
                  'echo 0 > /proc/sys/user/max_user_namespaces; exec /usr/bin/bwrap \"$@\"' bwrap \"$@\"\n";
    fs::write(&program, script).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let refusing = Bubblewrap::new(BubblewrapConfig { program, ..BubblewrapConfig::new(inside.state.path()) }).unwrap();
    let error = refusing.run(inside.command("touch ran")).await.unwrap_err();
    assert!(matches!(error, SandboxError::NoUserNamespaces { .. }), "{error}");
    assert!(error.to_string().contains("userns"), "{error}");
    assert!(refusing.probe().await.is_err());
    assert!(!inside.work().join("ran").exists());
    inside.sandbox.probe().await.unwrap();
}

/// Runs a sandboxed command for ever, when the test below starts this binary again to be killed.
#[tokio::test(flavor = "multi_thread")]
async fn helper_that_is_killed() {
    let (Ok(state), Ok(mark)) = (std::env::var("TOOLS_TEST_STATE"), std::env::var("TOOLS_TEST_MARK")) else {
        return;
    };
    let sandbox = bubblewrap(state.as_ref());
    let script = format!("setsid bash -c 'exec -a {mark} sleep 600' & exec -a {mark} sleep 600");
    let mut command = SandboxCommand::new(RUN, ["bash", "-c", &script]);
    command.limits.wall = Duration::from_mins(10);
    drop(sandbox.run(command).await);
}

#[test]
fn commands_die_with_their_runner() {
    let inside = TestBox::new();
    let mark = mark();
    let mut runner = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandbox::helper_that_is_killed"])
        .env("TOOLS_TEST_STATE", inside.state.path())
        .env("TOOLS_TEST_MARK", &mark)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    // bubblewrap's own arguments hold the script, so the sleeping process is looked for by its whole name.
    wait_until("the command runs", || is_running(&format!("{mark}\u{0}600")));
    runner.kill().unwrap();
    runner.wait().unwrap();
    wait_until("the command is gone", || !is_running(&mark));
}

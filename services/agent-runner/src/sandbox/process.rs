//! One bubblewrap process from start to the end of everything it started.
//!
//! bubblewrap forks a first process of the new pid namespace. When that one is gone, the kernel has already ended and
//! reaped everything else in the namespace, however it was daemonised: its pidfd is what says that a call is over.

use std::{ffi::OsString, fs, io, os::fd::OwnedFd, path::PathBuf, process::Stdio, time::Duration};

use bytes::Bytes;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command},
    time::{Instant, timeout},
};

use super::{
    Captured, Exit, LineSink, SandboxCommand, SandboxError, SandboxOutput, Stream,
    capture::{Lines, Recorder},
    profile::{GO, READY},
};

/// How long a sandbox may take to stand. It takes 5 ms; the rest is for a machine that is overloaded.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// How long killed processes may take to be gone. Only one stuck in the kernel takes longer than an instant.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of bubblewrap's own complaint is kept.
const MAX_COMPLAINT_BYTES: u64 = 4 * 1024;

/// Bytes read from a pipe at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Runs bubblewrap with `args` for `command`.
pub(super) async fn run(
    program: PathBuf,
    args: Vec<OsString>,
    command: SandboxCommand,
) -> Result<SandboxOutput, SandboxError> {
    let mut sandbox = start(program, args)?;
    let first = match timeout(SETUP_TIMEOUT, sandbox.stands()).await {
        Ok(first) => first?,
        Err(_) => {
            return Err(SandboxError::Setup { detail: format!("not ready after {SETUP_TIMEOUT:?}") });
        }
    };
    let began = Instant::now();
    let SandboxCommand { stdin, limits, keep, cancel, on_output, keeps: _kept_to_the_end, .. } = command;
    let Started { mut child, stdin: input, stdout, stderr } = sandbox;

    let mut streams = std::pin::pin!(async {
        let out = pump(stdout, Recorder::new(keep), on_output.clone(), Stream::Stdout);
        let err = pump(stderr, Recorder::new(keep), on_output.clone(), Stream::Stderr);
        let (stdout, stderr, ()) = tokio::try_join!(out, err, feed(input, stdin))?;
        Ok::<_, SandboxError>((stdout, stderr))
    });
    let mut read = None;
    let deadline = tokio::time::sleep_until(began + limits.wall);
    let mut deadline = std::pin::pin!(deadline);
    let exit = loop {
        tokio::select! {
            biased;
            status = child.wait() => {
                let status = status.map_err(|source| SandboxError::Io { doing: "waiting for it", source })?;
                break Exit::Code(code_of(status));
            }
            () = cancel.cancelled() => break Exit::Cancelled,
            () = &mut deadline => break Exit::TimedOut,
            result = &mut streams, if read.is_none() => {
                let failed = result.is_err();
                read = Some(result);
                // Nobody reads any more, so it is ended; what matters is the error.
                if failed {
                    break Exit::Cancelled;
                }
            }
        }
    };
    first.end(&mut child).await?;
    let (stdout, stderr) = match read {
        Some(read) => read?,
        // Nobody is left who could hold the pipes open.
        None => timeout(END_TIMEOUT, streams).await.map_err(|_| SandboxError::NotEnded { within: END_TIMEOUT })??,
    };
    Ok(SandboxOutput { exit, stdout, stderr, elapsed: began.elapsed() })
}

/// A bubblewrap process that has not yet said anything.
struct Started {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

fn start(program: PathBuf, args: Vec<OsString>) -> Result<Started, SandboxError> {
    let spawned = Command::new(&program)
        .args(args)
        // bubblewrap's own environment can be read inside, at /proc/1/environ.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = spawned.map_err(|source| SandboxError::Spawn { program, source })?;
    match (child.stdin.take(), child.stdout.take(), child.stderr.take()) {
        (Some(stdin), Some(stdout), Some(stderr)) => Ok(Started { child, stdin, stdout, stderr }),
        _ => Err(SandboxError::Io { doing: "taking its pipes", source: io::ErrorKind::BrokenPipe.into() }),
    }
}

impl Started {
    /// Waits until the prelude speaks; nothing of the command has run yet.
    async fn stands(&mut self) -> Result<FirstProcess, SandboxError> {
        let said = self.stdout.read_u8().await;
        if !matches!(said, Ok(READY)) {
            return Err(self.complaint().await);
        }
        FirstProcess::of(&self.child).map_err(|source| SandboxError::Io { doing: "finding its first process", source })
    }

    async fn complaint(&mut self) -> SandboxError {
        let mut said = Vec::new();
        // What can not be read is not said.
        drop((&mut self.stderr).take(MAX_COMPLAINT_BYTES).read_to_end(&mut said).await);
        let detail = String::from_utf8_lossy(&said).trim().to_owned();
        if is_about_user_namespaces(&detail) {
            SandboxError::NoUserNamespaces { detail }
        } else {
            SandboxError::Setup { detail }
        }
    }
}

/// bubblewrap has no code for it, only words.
fn is_about_user_namespaces(complaint: &str) -> bool {
    ["new namespace", "user namespace", "uid map", "gid map"].iter().any(|words| complaint.contains(words))
}

/// The first process of the pid namespace: when it is gone, all are.
///
/// It is not our child, so whoever takes up orphans reaps it: an init has to be process 1 of a container.
struct FirstProcess(OwnedFd);

impl FirstProcess {
    fn of(child: &Child) -> io::Result<Self> {
        let parent = child.id().ok_or(io::ErrorKind::NotFound)?;
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"))?;
        let pid = children.split_whitespace().next().and_then(|pid| pid.parse().ok()).and_then(Pid::from_raw);
        // It can not have been replaced by another: it waits for the prelude, which waits for us.
        Ok(Self(pidfd_open(pid.ok_or(io::ErrorKind::NotFound)?, PidfdFlags::empty())?))
    }

    /// Kills what is left and waits until nothing is.
    async fn end(self, child: &mut Child) -> Result<(), SandboxError> {
        let doing = "waiting for its end";
        // On a thread that may block: this crate forbids what it takes to watch a foreign descriptor.
        let gone = tokio::task::spawn_blocking(move || self.kill_and_wait()).await;
        match gone.map_err(io::Error::other).and_then(|gone| gone) {
            Ok(true) => {}
            Ok(false) => {
                return Err(SandboxError::NotEnded { within: END_TIMEOUT });
            }
            Err(source) => return Err(SandboxError::Io { doing, source }),
        }
        // Its parent ends with it.
        match timeout(END_TIMEOUT, child.wait()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(source)) => Err(SandboxError::Io { doing, source }),
            Err(_) => Err(SandboxError::NotEnded { within: END_TIMEOUT }),
        }
    }

    /// Whether it is gone in time.
    fn kill_and_wait(&self) -> io::Result<bool> {
        // An error means that it is gone already.
        pidfd_send_signal(&self.0, Signal::KILL).ok();
        let deadline = std::time::Instant::now() + END_TIMEOUT;
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn code_of(status: std::process::ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}

async fn feed(mut input: ChildStdin, stdin: Bytes) -> Result<(), SandboxError> {
    let written = async {
        input.write_all(GO).await?;
        input.write_all(&stdin).await?;
        input.shutdown().await
    };
    match written.await {
        // A command need not read what it is given.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(SandboxError::Io { doing: "writing its input", source: error })
        }
        _ => Ok(()),
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut recorder: Recorder,
    sink: Option<LineSink>,
    stream: Stream,
) -> Result<Captured, SandboxError> {
    let mut lines = Lines::new(sink, stream);
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = from.read(&mut chunk).await;
        match read.map_err(|source| SandboxError::Io { doing: "reading its output", source })? {
            0 => break,
            n => {
                lines.push(&chunk[..n]);
                recorder.push(&chunk[..n])?;
            }
        }
    }
    lines.finish();
    Ok(recorder.finish())
}

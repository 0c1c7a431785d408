//! Runs a nats-server as a child: found, checked, started, awaited, stopped.
//!
//! The child's standard input is a locked file. The lock lives as long as the server does, also when the
//! process that started it is gone, so two servers can never share one store: a start that finds the lock
//! taken reports the server that holds it. A thread of its own starts and awaits the child, because Linux
//! ties "die with your parent" to the thread that forked, and a pool's threads come and go.

mod binary;
mod child;
mod ready;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub use binary::{BinaryError, find_binary};
use child::Child;
use ready::Endpoint;

/// Time for a server to recover its streams and listen: a store of millions of messages takes seconds.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Time for a server to flush and end after SIGTERM before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// Time for an earlier server of the same store to be gone: one that died with its parent needs a moment.
const LOCK_WITHIN: Duration = Duration::from_secs(5);

/// Between two looks at a condition that has no event.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What becomes of the server when this process is gone without having stopped it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// It is killed, whatever ended this process (Linux with `setpriv`; elsewhere only a regular drop).
    WithParent,
    /// It lives on.
    Outlives,
}

/// How to run a server.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its configuration, of which all paths are relative to `state_dir`.
    pub config_file: PathBuf,
    /// Its working directory: streams, resolver, ports and log. Made when absent.
    pub state_dir: PathBuf,
    /// The client port, or any free one.
    pub port: Option<u16>,
    /// What becomes of it without us.
    pub lifetime: Lifetime,
    /// The program, or the one that `find_binary` finds.
    pub binary: Option<PathBuf>,
}

/// A server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No fitting program.
    #[error(transparent)]
    Binary(#[from] BinaryError),
    /// Its folder can not be prepared.
    #[error("preparing `{}` for nats-server", path.display())]
    Prepare {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another server works on this store.
    #[error("another nats-server ({}) already runs on `{}`", pid.map_or("pid unknown".to_owned(), |pid| format!("pid {pid}")), state_dir.display())]
    AlreadyRunning {
        /// Its process, as far as it was noted.
        pid: Option<u32>,
        /// The store.
        state_dir: PathBuf,
    },
    /// The program could not be executed.
    #[error("executing `{}`", binary.display())]
    Spawn {
        /// The program.
        binary: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended at once.
    #[error("nats-server ended before it was ready ({status}):\n{log}")]
    Ended {
        /// How it ended.
        status: String,
        /// The end of what it said.
        log: String,
    },
    /// It did not get ready.
    #[error("nats-server was not ready within {READY_WITHIN:?}; it said:\n{log}")]
    NotReady {
        /// The end of what it said.
        log: String,
    },
}

/// A server could not be stopped in an orderly way.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It could not be signalled.
    #[error("signalling nats-server (pid {pid})")]
    Signal {
        /// Its process.
        pid: u32,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It had to be killed. What it had acknowledged is synced nevertheless.
    #[error("nats-server (pid {pid}) did not end within {STOP_WITHIN:?} and was killed")]
    Killed {
        /// Its process.
        pid: u32,
    },
}

/// A running nats-server. Dropping it kills it, unless it is to outlive us.
#[derive(Debug)]
pub struct NatsServer {
    settings: Settings,
    endpoint: Endpoint,
    child: Child,
}

impl NatsServer {
    /// Starts a server and returns once it answers clients.
    pub async fn start(mut settings: Settings) -> Result<Self, StartError> {
        let binary = match settings.binary.take() {
            Some(binary) => binary::checked(binary).await?,
            None => find_binary().await?,
        };
        settings.binary = Some(binary.clone());
        prepare(&settings)?;
        let lock = lock(&settings.state_dir).await?;
        ready::forget_ports(&settings.state_dir);
        let mut child = Child::spawn(&binary, &settings, lock).await?;
        note_pid(&settings.state_dir, child.pid());
        let endpoint = match ready::wait(&settings.state_dir, &mut child, READY_WITHIN).await {
            Ok(endpoint) => endpoint,
            Err(problem) => return Err(give_up(&settings, &mut child, problem).await),
        };
        Ok(Self { settings, endpoint, child })
    }

    /// Address for clients, `nats://127.0.0.1:PORT`. It stays the same over a `restart`.
    pub fn url(&self) -> String {
        format!("nats://{}", self.endpoint.address)
    }

    /// The client port.
    pub fn port(&self) -> u16 {
        self.endpoint.address.port()
    }

    /// The server's version as it tells clients.
    pub fn version(&self) -> &str {
        &self.endpoint.version
    }

    /// Process id of the running or last child.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Where it works.
    pub fn state_dir(&self) -> &Path {
        &self.settings.state_dir
    }

    /// Returns when the child has ended, for an owner that has to end with it.
    pub async fn exited(&self) -> Option<ExitStatus> {
        self.child.exited().await.status()
    }

    /// Ends it in order (SIGTERM): clients are told, streams are flushed. Kills it when that takes too long.
    pub async fn stop(&mut self) -> Result<(), StopError> {
        self.signal(Signal::TERM)?;
        if tokio::time::timeout(STOP_WITHIN, self.child.exited()).await.is_ok() {
            return Ok(());
        }
        self.kill().await?;
        Err(StopError::Killed { pid: self.pid() })
    }

    /// Kills it (SIGKILL) and returns when it is gone.
    pub async fn kill(&mut self) -> Result<(), StopError> {
        self.signal(Signal::KILL)?;
        self.child.exited().await;
        Ok(())
    }

    /// Stops it in its tracks (SIGSTOP), as a machine that hangs would.
    pub fn pause(&self) -> Result<(), StopError> {
        self.signal(Signal::STOP)
    }

    /// Lets a paused one go on.
    pub fn unpause(&self) -> Result<(), StopError> {
        self.signal(Signal::CONT)
    }

    /// Starts it again on the same store and port, after `stop`, `kill`, or an end of its own; one that
    /// still runs is killed first.
    pub async fn restart(&mut self) -> Result<(), StartError> {
        // Refused when it is gone already, which is what is wanted.
        let _ = self.kill().await;
        let settings = Settings { port: Some(self.port()), ..self.settings.clone() };
        *self = Self::start(settings).await?;
        Ok(())
    }

    fn signal(&self, signal: Signal) -> Result<(), StopError> {
        self.child.signal(signal)
    }
}

/// The server that still runs on `state_dir` from an earlier process, by its pid, when there is one.
pub fn running(state_dir: &Path) -> Option<u32> {
    let file = OpenOptions::new().read(true).open(lock_file(state_dir)).ok()?;
    matches!(file.try_lock(), Err(TryLockError::WouldBlock)).then(|| noted_pid(state_dir))?
}

/// Ends a server that an earlier process has left behind (SIGTERM) and returns when its store is free.
pub async fn stop_running(state_dir: &Path) -> Result<(), StopError> {
    let Some(pid) = running(state_dir) else {
        return Ok(());
    };
    signal_pid(pid, Signal::TERM)?;
    let deadline = Instant::now() + STOP_WITHIN;
    while running(state_dir).is_some() {
        if Instant::now() > deadline {
            signal_pid(pid, Signal::KILL)?;
            return Err(StopError::Killed { pid });
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn signal_pid(pid: u32, signal: Signal) -> Result<(), StopError> {
    let failed = |source| StopError::Signal { pid, source };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let raw = raw.ok_or_else(|| failed(io::ErrorKind::InvalidInput.into()))?;
    kill_process(raw, signal).map_err(|errno| failed(errno.into()))
}

fn prepare(settings: &Settings) -> Result<(), StartError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let dir = &settings.state_dir;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|source| StartError::Prepare { path: dir.clone(), source })
}

async fn lock(state_dir: &Path) -> Result<File, StartError> {
    let path = lock_file(state_dir);
    let failed = |source| StartError::Prepare { path: path.clone(), source };
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(failed)?;
    let deadline = Instant::now() + LOCK_WITHIN;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
            Err(TryLockError::WouldBlock) if Instant::now() > deadline => {
                return Err(StartError::AlreadyRunning { pid: noted_pid(state_dir), state_dir: state_dir.to_owned() });
            }
            Err(TryLockError::WouldBlock) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

fn lock_file(state_dir: &Path) -> PathBuf {
    state_dir.join("nats-server.lock")
}

fn pid_file(state_dir: &Path) -> PathBuf {
    state_dir.join("nats-server.pid")
}

/// The pid is only a hint in messages and for `running`; a start does not fail for it.
fn note_pid(state_dir: &Path, pid: u32) {
    if let Err(error) = fs::write(pid_file(state_dir), pid.to_string()) {
        tracing::warn!(%error, "the pid of nats-server could not be noted");
    }
}

fn noted_pid(state_dir: &Path) -> Option<u32> {
    fs::read_to_string(pid_file(state_dir)).ok()?.trim().parse().ok()
}

async fn give_up(settings: &Settings, child: &mut Child, problem: ready::Problem) -> StartError {
    let log = ready::log_tail(&settings.state_dir);
    match problem {
        ready::Problem::Ended(exit) => StartError::Ended { status: exit.to_string(), log },
        ready::Problem::Late => {
            if child.signal(Signal::KILL).is_ok() {
                child.exited().await;
            }
            StartError::NotReady { log }
        }
    }
}

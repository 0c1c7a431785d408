//! The child process and the thread that owns it.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use rustix::process::Signal;
use tokio::sync::{oneshot, watch};

use super::{Lifetime, Settings, StartError, StopError, signal_pid};

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    Status(ExitStatus),
    /// It could not be awaited; it is gone for all that is known.
    Unknown(String),
}

impl Exit {
    pub(super) fn status(&self) -> Option<ExitStatus> {
        match self {
            Self::Status(status) => Some(*status),
            Self::Unknown(_) => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(status) => status.fmt(f),
            Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

/// A started child. Fate: its thread ends with it, and dropping this kills it unless it is to outlive us.
#[derive(Debug)]
pub(super) struct Child {
    pid: u32,
    exit: watch::Receiver<Option<Exit>>,
    lifetime: Lifetime,
}

impl Child {
    pub(super) async fn spawn(binary: &Path, settings: &Settings, lock: File) -> Result<Self, StartError> {
        let failed = |source| StartError::Spawn { binary: binary.to_owned(), source };
        let mut command = command(binary, settings, lock).map_err(failed)?;
        let (started, start) = oneshot::channel();
        let (ended, exit) = watch::channel(None);
        std::thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || {
                let spawned = command.spawn();
                // It holds our end of the lock, which only the server may have from here on.
                drop(command);
                match spawned {
                    Ok(mut child) => {
                        let _ = started.send(Ok(child.id()));
                        let exit = child.wait().map_or_else(|error| Exit::Unknown(error.to_string()), Exit::Status);
                        let _ = ended.send(Some(exit));
                    }
                    Err(error) => {
                        let _ = started.send(Err(error));
                    }
                }
            })
            .map_err(failed)?;
        let gone = |_| std::io::Error::other("the thread that starts it is gone");
        let pid = start.await.map_err(gone).and_then(|started| started);
        Ok(Self { pid: pid.map_err(failed)?, exit, lifetime: settings.lifetime })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid
    }

    pub(super) fn ended(&self) -> Option<Exit> {
        self.exit.borrow().clone()
    }

    pub(super) async fn exited(&self) -> Exit {
        let mut exit = self.exit.clone();
        match exit.wait_for(Option::is_some).await.map(|exit| exit.clone()) {
            Ok(Some(exit)) => exit,
            _ => Exit::Unknown("the thread that awaits it is gone".to_owned()),
        }
    }

    /// Signals it, unless it has ended: its pid may be another's by then.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), StopError> {
        if self.ended().is_some() {
            return Ok(());
        }
        signal_pid(self.pid, signal)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.lifetime == Lifetime::WithParent {
            // Nothing is left to do about a child that can not be signalled.
            let _ = self.signal(Signal::KILL);
        }
    }
}

fn command(binary: &Path, settings: &Settings, lock: File) -> std::io::Result<Command> {
    let mut command = match settings.lifetime {
        Lifetime::WithParent if cfg!(target_os = "linux") && has_setpriv() => {
            // It executes the server in its own place, so the pid is the server's.
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(binary);
            command
        }
        Lifetime::WithParent | Lifetime::Outlives => Command::new(binary),
    };
    let config = std::path::absolute(&settings.config_file)?;
    command.arg("--config").arg(config);
    if let Some(port) = settings.port {
        command.arg("--port").arg(port.to_string());
    }
    // What it says before its own log is open, such as errors in its configuration.
    let errors =
        OpenOptions::new().create(true).write(true).truncate(true).open(settings.state_dir.join("nats-server.err"))?;
    command
        .current_dir(&settings.state_dir)
        .stdin(Stdio::from(lock))
        .stdout(Stdio::from(errors.try_clone()?))
        .stderr(Stdio::from(errors));
    Ok(command)
}

fn has_setpriv() -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join("setpriv").is_file()));
    if !found {
        tracing::warn!("no setpriv (util-linux): nats-server survives a SIGKILL of this process");
    }
    found
}

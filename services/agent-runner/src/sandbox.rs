//! Where a tool's process runs: the port, and its bubblewrap adapter.
//!
//! A command that an agent chose is untrusted. It sees what its [`SandboxCommand`] mounts and nothing else, has no
//! network, and nothing that it starts outlives the call or this process. The port is narrow (a command in, its bounded
//! output back), so that a container of a Kubernetes Job can stand behind it as well.
//!
//! A command that fails, runs too long or is cancelled is an outcome ([`Exit`]). An error ([`SandboxError`]) means that the sandbox
//! could not be had, and then the command never ran: there is no way to run one outside.
//!
//! This module must never know runs' state, git or the bus.

mod bubblewrap;
mod capture;
mod orphans;
mod process;
mod profile;

use std::{
    any::Any,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::future::BoxFuture;
use schemas::RunId;
use tokio_util::sync::CancellationToken;

pub use bubblewrap::{Bubblewrap, BubblewrapConfig};
pub use capture::{Captured, Keep};

/// A place to run one untrusted command.
pub trait Sandbox: Send + Sync {
    /// Runs `command` to its end.
    ///
    /// When this returns, no process of the command is left. Dropping the future ends them too.
    fn run(&self, command: SandboxCommand) -> BoxFuture<'_, Result<SandboxOutput, SandboxError>>;
}

/// One command, and all that it may see.
#[derive(Clone)]
pub struct SandboxCommand {
    /// The run that this is for: `RUN_ID` in the command's environment.
    pub run_id: RunId,
    /// Program and arguments, as seen inside.
    pub argv: Vec<OsString>,
    /// Working directory, as seen inside.
    pub cwd: PathBuf,
    /// Variables beside `PATH`, `HOME`, `LANG` and `RUN_ID`.
    pub env: Vec<(String, OsString)>,
    /// What the command reads from its standard input.
    pub stdin: Bytes,
    /// Host paths that are visible inside; later ones cover earlier ones.
    pub mounts: Vec<Mount>,
    /// Bounds of the command.
    pub limits: Limits,
    /// How much of each output stream is kept.
    pub keep: Keep,
    /// Whether standard error goes where standard output goes, in the order it was written.
    pub merge_stderr: bool,
    /// Ends the command, and all that it started, when cancelled.
    pub cancel: CancellationToken,
    /// Gets each line of output while the command runs.
    pub on_output: Option<LineSink>,
    /// Kept until the last process is gone, also when the call was dropped: a lock on what is mounted.
    pub keeps: Option<Arc<dyn Any + Send + Sync>>,
}

impl SandboxCommand {
    /// A command without mounts, input or variables of its own, under the default limits.
    pub fn new(run_id: RunId, argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self {
            run_id,
            argv: argv.into_iter().map(Into::into).collect(),
            cwd: PathBuf::from("/"),
            env: Vec::new(),
            stdin: Bytes::new(),
            mounts: Vec::new(),
            limits: Limits::default(),
            keep: Keep::default(),
            merge_stderr: false,
            cancel: CancellationToken::new(),
            on_output: None,
            keeps: None,
        }
    }
}

/// A host path that a command sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// The file or folder outside.
    pub host: PathBuf,
    /// Where it appears inside.
    pub at: PathBuf,
    /// What may be done with it.
    pub access: Access,
}

impl Mount {
    /// Readable only.
    pub fn read_only(host: impl AsRef<Path>, at: impl AsRef<Path>) -> Self {
        Self { host: host.as_ref().into(), at: at.as_ref().into(), access: Access::ReadOnly }
    }

    /// Readable and writable.
    pub fn writable(host: impl AsRef<Path>, at: impl AsRef<Path>) -> Self {
        Self { host: host.as_ref().into(), at: at.as_ref().into(), access: Access::Writable }
    }
}

/// What may be done with a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Read.
    ReadOnly,
    /// Read and write.
    Writable,
}

/// Bounds of one command. All but the wall clock hold for each of its processes; bounds over all of them need cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Wall clock; at its end every process of the command is killed.
    pub wall: Duration,
    /// Largest file that may be written, in bytes.
    pub file_bytes: u64,
    /// Private memory of a process, in bytes.
    pub data_bytes: u64,
    /// Open files of a process.
    pub open_files: u64,
    /// Processes and threads. The kernel does not count them for a runner that is root.
    pub processes: u64,
    /// Size of each of `/tmp`, `/dev/shm` and the home folder, which are in memory, in bytes.
    pub tmp_bytes: u64,
}

impl Default for Limits {
    /// Enough to build and test a mid-sized project, too little to take a laptop down by mistake.
    fn default() -> Self {
        Self {
            wall: Duration::from_mins(2),
            file_bytes: 1 << 30,
            data_bytes: 4 << 30,
            open_files: 4096,
            processes: 4096,
            tmp_bytes: 512 << 20,
        }
    }
}

/// Gets lines of output, without their line end, as they come. It must not block: all commands share one thread.
pub type LineSink = Arc<dyn Fn(Stream, &[u8]) + Send + Sync>;

/// Where a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxOutput {
    /// How it ended.
    pub exit: Exit,
    /// Its standard output.
    pub stdout: Captured,
    /// Its standard error; empty when it was merged.
    pub stderr: Captured,
    /// How long it ran.
    pub elapsed: Duration,
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code; 128 + n when signal n ended it.
    Code(i32),
    /// Its wall clock ran out.
    TimedOut,
    /// It was cancelled.
    Cancelled,
}

impl Exit {
    /// Whether it ended by itself with code 0.
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }
}

/// Why a command could not be run, or its output not be had.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The sandbox program is not there.
    #[error(
        "{program} was not found: install bubblewrap 0.8 or newer (Debian, Ubuntu, Fedora, Arch: package `bubblewrap`)"
    )]
    ProgramMissing {
        /// What was looked for.
        program: PathBuf,
    },
    /// The kernel or its policy forbids user namespaces. Nothing runs without them.
    #[error(
        "user namespaces are not allowed here, so no command can be run: set sysctl kernel.unprivileged_userns_clone=1 (Debian), \
         user.max_user_namespaces above 0, or allow bwrap in AppArmor (kernel.apparmor_restrict_unprivileged_userns=0 on \
         Ubuntu) ({detail})"
    )]
    NoUserNamespaces {
        /// What the sandbox program said.
        detail: String,
    },
    /// The sandbox could not be set up.
    #[error("the sandbox could not be set up: {detail}")]
    Setup {
        /// What the sandbox program said.
        detail: String,
    },
    /// A path is not fit to be mounted.
    #[error("{path} is not an absolute path")]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// The adapter's own files could not be made.
    #[error("the sandbox's files at {path} could not be written")]
    Files {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The sandbox program could not be started.
    #[error("{program} could not be started")]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command's pipes or state could not be read.
    #[error("the sandboxed command could not be followed while {doing}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More output came than may come, where every byte is needed.
    #[error("the command wrote more than the {limit} bytes that are allowed")]
    TooMuchOutput {
        /// The limit.
        limit: usize,
    },
    /// Its processes were killed and are still there.
    #[error("the command's processes did not end within {within:?} of being killed")]
    NotEnded {
        /// How long was waited.
        within: Duration,
    },
    /// The sandbox was shut down under the command.
    #[error("the sandbox was shut down")]
    ShutDown,
}

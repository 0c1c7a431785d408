//! Sandboxes that nobody will ever finish.
//!
//! A command dies with its runner from the moment it begins. Before, for a few milliseconds, bubblewrap's first process waits to be
//! set up by its parent, and when that is killed just then it waits for ever. It has run nothing of the command and never
//! will, but it is there; so the next start on the same state folder ends it.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// What the kernel calls the processes of bubblewrap.
const NAME: &str = "bwrap";

/// Ends the orphans among the sandboxes whose `/etc` is `etc`: others are not ours.
pub(super) fn sweep(etc: &Path) {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in processes.filter_map(|process| process.file_name().to_str()?.parse().ok()) {
        if is_orphan(pid, etc) {
            end(pid, etc);
        }
    }
}

/// Kills the process if it still is the one that was seen.
fn end(pid: i32, etc: &Path) {
    let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        return;
    };
    if is_orphan(pid, etc) {
        tracing::warn!(pid, "a sandbox that was left behind is ended");
        // An error means that it is gone.
        pidfd_send_signal(&pidfd, Signal::KILL).ok();
    }
}

/// Whether this is the first process of a sandbox with our `etc`, and bubblewrap's other process, its parent, is gone.
fn is_orphan(pid: i32, etc: &Path) -> bool {
    name(pid).is_some_and(|name| name == NAME)
        && is_first_of_namespace(pid)
        && has_argument(pid, etc)
        && field(pid, "PPid:")
            .and_then(|parent| parent.parse().ok())
            .and_then(name)
            .is_some_and(|parent| parent != NAME)
}

fn name(pid: i32) -> Option<String> {
    fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| name.trim_end().to_owned())
}

fn field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
}

fn is_first_of_namespace(pid: i32) -> bool {
    let ids = field(pid, "NSpid:").unwrap_or_default();
    // As this process sees it, and as it is seen inside.
    ids.split_whitespace().skip(1).last() == Some("1")
}

fn has_argument(pid: i32, argument: &Path) -> bool {
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    arguments.split(|byte| *byte == 0).any(|one| one == argument.as_os_str().as_bytes())
}

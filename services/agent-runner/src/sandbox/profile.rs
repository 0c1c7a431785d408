//! What every command sees: the arguments of bubblewrap. Pure, so that a test can read them.
//!
//! The root is empty but for `/usr` (read-only, with the links into it that the host has), a `/proc` of its own, a minimal
//! `/dev`, an `/etc` made here, memory-backed `/tmp`, `/dev/shm` and home, and what the command mounts. Two folders of the
//! host's `/etc` are shown because programs below `/usr` are links through them (`alternatives`) or load through them
//! (`ld.so.cache`); neither holds a secret.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
};

use super::{Access, Limits, SandboxCommand, SandboxError};

/// The user that a command seems to be. Not root, because many programs act differently for it.
const USER: &str = "1000";

/// The command's home, in memory.
const HOME: &str = "/home/agent";

/// Where programs are looked for.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Links and folders beside `/usr` that programs are started and loaded through.
const USR_LINKS: [&str; 6] = ["/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];

/// Read-only parts of the host's `/etc`: a link farm and the loader's cache.
const HOST_ETC: [&str; 2] = ["alternatives", "ld.so.cache"];

/// Folders of `/proc` that are not of the namespace but of the machine. For a runner that is root the command has the user id of
/// root outside, which is all that the kernel asks of who writes there (`core_pattern` names a program that root runs).
const READ_ONLY_PROC: [&str; 4] = ["/proc/sys", "/proc/fs", "/proc/driver", "/proc/acpi"];

/// Files of `/proc` that tell of the machine's kernel or act on it.
const HIDDEN_PROC: [&str; 11] = [
    "/proc/kallsyms",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/mtrr",
    "/proc/pagetypeinfo",
    "/proc/slabinfo",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/vmallocinfo",
];

/// The first process inside. It lowers its limits, closes what the runner's own parent may have left open, says that the sandbox stands (one byte), and goes on only when told to.
///
/// Until then nothing of the command has run. Both processes of bubblewrap have by then asked to die with their parent,
/// so a runner that is killed at any moment leaves nothing behind: either the word never comes, or the kill does.
/// A limit that can not be set is one that already is lower.
const PRELUDE: &str = r#"
ulimit -c 0
ulimit -f "$1" 2>/dev/null
ulimit -d "$2" 2>/dev/null
ulimit -n "$3" 2>/dev/null
ulimit -u "$4" 2>/dev/null
if [ "$5" = merge ]; then exec 2>&1; fi
shift 5
for fd in /proc/self/fd/*; do
    fd=${fd##*/}
    if [ "$fd" -gt 2 ]; then eval "exec $fd>&-"; fi
done
printf '\001'
IFS= read -r _ || exit 125
exec "$@"
"#;

/// The byte by which the prelude says that the sandbox stands.
pub(super) const READY: u8 = 1;

/// The line that lets the command begin.
pub(super) const GO: &[u8] = b"\n";

/// What is the same for all commands.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    /// The made-up `/etc`.
    pub(super) etc: PathBuf,
    /// More of the host that may be read, at the same path: toolchains outside `/usr`.
    pub(super) read_only: Vec<PathBuf>,
    /// Folders searched for programs before the usual ones.
    pub(super) path: Vec<PathBuf>,
}

impl Profile {
    /// Writes the made-up `/etc` below `state_dir`.
    pub(super) fn prepare(state_dir: &Path, read_only: Vec<PathBuf>, path: Vec<PathBuf>) -> Result<Self, SandboxError> {
        for path in read_only.iter().chain(&path).chain([&state_dir.to_path_buf()]) {
            if !path.is_absolute() {
                return Err(SandboxError::NotAbsolute { path: path.clone() });
            }
        }
        let etc = state_dir.join("sandbox").join("etc");
        write_etc(&etc).map_err(|source| SandboxError::Files { path: etc.clone(), source })?;
        Ok(Self { etc, read_only, path })
    }

    /// The arguments of bubblewrap for `command`.
    pub(super) fn arguments(&self, command: &SandboxCommand) -> Result<Vec<OsString>, SandboxError> {
        let mut args = Arguments::default();
        args.isolate();
        args.system(self, command.limits.tmp_bytes);
        for mount in &command.mounts {
            if let Some(path) = [&mount.host, &mount.at].into_iter().find(|path| !path.is_absolute()) {
                return Err(SandboxError::NotAbsolute { path: path.clone() });
            }
            let flag = match mount.access {
                Access::ReadOnly => "--ro-bind",
                Access::Writable => "--bind",
            };
            args.push([flag.as_ref(), mount.host.as_os_str(), mount.at.as_os_str()]);
        }
        // Last, because each mount point is made in it.
        args.push(["--remount-ro", "/dev", "--remount-ro", "/"]);
        args.environment(self, command);
        args.push(["--chdir".as_ref(), command.cwd.as_os_str()]);
        args.push(["--", "/usr/bin/bash", "-c", PRELUDE, "nightcrew"]);
        args.limits(&command.limits);
        args.push([if command.merge_stderr { "merge" } else { "apart" }]);
        args.push(&command.argv);
        Ok(args.0)
    }
}

#[derive(Default)]
struct Arguments(Vec<OsString>);

impl Arguments {
    fn push(&mut self, args: impl IntoIterator<Item = impl Into<OsString>>) {
        self.0.extend(args.into_iter().map(Into::into));
    }

    fn isolate(&mut self) {
        self.push(["--unshare-user", "--disable-userns", "--unshare-pid", "--unshare-net", "--unshare-ipc"]);
        self.push(["--unshare-uts", "--unshare-cgroup-try", "--hostname", "nightcrew"]);
        // bubblewrap always sets no_new_privs. A session of its own keeps it off the runner's terminal.
        self.push(["--die-with-parent", "--new-session", "--cap-drop", "ALL", "--uid", USER, "--gid", USER]);
    }

    fn system(&mut self, profile: &Profile, tmp_bytes: u64) {
        self.push(["--ro-bind", "/usr", "/usr"]);
        for link in USR_LINKS {
            match fs::read_link(link) {
                Ok(target) => self.push(["--symlink".as_ref(), target.as_os_str(), link.as_ref()]),
                Err(_) => self.push(["--ro-bind-try", link, link]),
            }
        }
        self.push(["--ro-bind".as_ref(), profile.etc.as_os_str(), "/etc".as_ref()]);
        for name in HOST_ETC {
            let path = format!("/etc/{name}");
            self.push(["--ro-bind-try", &path, &path]);
        }
        for path in &profile.read_only {
            self.push(["--ro-bind-try".as_ref(), path.as_os_str(), path.as_os_str()]);
        }
        self.push(["--proc", "/proc", "--dev", "/dev"]);
        for folder in READ_ONLY_PROC.into_iter().filter(|folder| Path::new(folder).exists()) {
            self.push(["--ro-bind", folder, folder]);
        }
        for file in HIDDEN_PROC.into_iter().filter(|file| Path::new(file).exists()) {
            self.push(["--ro-bind", "/dev/null", file]);
        }
        for folder in ["/dev/shm", "/tmp", HOME] {
            self.push(["--size", &tmp_bytes.to_string(), "--tmpfs", folder]);
        }
    }

    fn environment(&mut self, profile: &Profile, command: &SandboxCommand) {
        let mut path = OsString::new();
        for folder in &profile.path {
            path.push(folder);
            path.push(":");
        }
        path.push(PATH);
        self.push(["--clearenv"]);
        let run_id = command.run_id.to_string().into();
        let known = [("PATH", path), ("HOME", HOME.into()), ("LANG", "C.UTF-8".into())];
        let given = command.env.iter().map(|(name, value)| (name.as_str(), value.clone()));
        for (name, value) in known.into_iter().chain(given).chain([("RUN_ID", run_id)]) {
            self.push(["--setenv".into(), name.into(), value]);
        }
    }

    fn limits(&mut self, limits: &Limits) {
        let kib = |bytes: u64| bytes.div_ceil(1024);
        for limit in [kib(limits.file_bytes), kib(limits.data_bytes), limits.open_files, limits.processes] {
            self.push([limit.to_string()]);
        }
    }
}

/// Names for the one user, no name service but files, and the mount points for [`HOST_ETC`].
fn write_etc(etc: &Path) -> io::Result<()> {
    fs::create_dir_all(etc.join("alternatives"))?;
    let files = [
        ("passwd", format!("agent:x:{USER}:{USER}:agent:{HOME}:/bin/bash\n")),
        ("group", format!("agent:x:{USER}:\n")),
        ("hosts", "127.0.0.1 localhost nightcrew\n::1 localhost nightcrew\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n".to_owned()),
        ("ld.so.cache", String::new()),
    ];
    for (name, content) in files {
        let path = etc.join(name);
        if fs::read(&path).is_ok_and(|there| there == content.as_bytes()) {
            continue;
        }
        // By rename, because another process may be mounting it.
        let mut new = tempfile::NamedTempFile::new_in(etc)?;
        io::Write::write_all(&mut new, content.as_bytes())?;
        fs::set_permissions(new.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        new.persist(path).map_err(|error| error.error)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use schemas::RunId;
    use uuid::Uuid;

    use super::*;
    use crate::sandbox::Mount;

    #[test]
    fn run_id_can_not_be_overridden_and_root_is_sealed_after_the_mounts() {
        let state = tempfile::tempdir().unwrap();
        let profile = Profile::prepare(state.path(), vec![], vec!["/opt/bin".into()]).unwrap();
        let mut command = SandboxCommand::new(RunId::from_uuid(Uuid::from_u128(7)), ["true"]);
        command.env.push(("RUN_ID".into(), "other".into()));
        command.mounts.push(Mount::writable("/a", "/work"));
        let args = profile.arguments(&command).unwrap();
        let at = |what: &str| args.iter().rposition(|arg| arg == what).unwrap();
        assert_eq!(args[at("RUN_ID") + 1], OsString::from(command.run_id.to_string()));
        assert!(at("--remount-ro") > at("/work"));
        assert!(args[at("PATH") + 1].to_str().unwrap().starts_with("/opt/bin:"));
        assert!(!args.contains(&OsString::from("--share-net")));
    }

    #[test]
    fn a_relative_mount_is_refused() {
        let state = tempfile::tempdir().unwrap();
        let profile = Profile::prepare(state.path(), vec![], vec![]).unwrap();
        let mut command = SandboxCommand::new(RunId::from_uuid(Uuid::from_u128(7)), ["true"]);
        command.mounts.push(Mount::read_only("a", "/work"));
        assert!(matches!(profile.arguments(&command), Err(SandboxError::NotAbsolute { .. })));
    }
}

//! A crew as a person starts it: `nightcrew up` as a process of its own, which can be killed and measured.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kit::{
    bus::{Bus, BusConfig},
    identity::{Identity, Service},
    nats_server,
};
use rustix::process::{Pid, Signal, kill_process};
use schemas::ProjectId;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::PATIENCE;
use crate::restarts::{LISTEN, Room};

/// The project's name.
const PROJECT: &str = "bench";

/// What `nightcrew up` prints first when every service has started.
const READY: &str = "the crew of bench is up";

/// Between two looks at whether a process is gone.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// A project and its state.
pub(super) struct Project {
    folder: TempDir,
    program: PathBuf,
}

/// `nightcrew up`.
pub(super) struct Up {
    child: Child,
    /// How long it took from exec until every service had started.
    pub(super) ready_after: Duration,
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Project {
    /// A project whose model plays `scenario`, with no state yet. Nobody but a terminal talks to it.
    pub(super) fn new(scenario: &str) -> anyhow::Result<Self> {
        Self::with(scenario, &team(""), "terminal")
    }

    /// The same with a bot in the rooms of a homeserver.
    pub(super) fn in_rooms(scenario: &str, chat: &Chat<'_>) -> anyhow::Result<Self> {
        let heard = chat.rooms.iter().filter(|room| room.mode != LISTEN);
        let names = heard.map(|room| room.name).collect::<Vec<_>>().join(", ");
        let project = Self::with(scenario, &team(&chat.channel()), &format!("{names}, terminal"))?;
        std::fs::write(project.dir().join(PASSWORD_FILE), chat.password)?;
        Ok(project)
    }

    fn with(scenario: &str, team: &str, rooms: &str) -> anyhow::Result<Self> {
        let folder = TempDir::with_prefix("nightcrew-bench-")?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let dir = folder.path().join("project");
        crate::demo::copy_tree(&source.join("agents"), &dir.join("agents"))?;
        in_the_rooms(&dir.join("agents"), rooms)?;
        std::fs::copy(source.join("models.yaml"), dir.join("models.yaml"))?;
        std::fs::write(dir.join("team.yaml"), team)?;
        std::fs::write(dir.join("scenario.yaml"), scenario)?;
        let repository = folder.path().join("repository");
        std::fs::create_dir_all(&repository)?;
        crate::demo::git(&repository, &["init", "--quiet", "--initial-branch", "main"])?;
        let author = ["-c", "user.name=ada", "-c", "user.email=ada@bench.invalid"];
        crate::demo::git(
            &repository,
            &[&author[..], &["commit", "--quiet", "--allow-empty", "--message", "Begin"]].concat(),
        )?;
        Ok(Self { folder, program: program()? })
    }

    fn dir(&self) -> PathBuf {
        self.folder.path().join("project")
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("up.log")
    }

    /// Starts the crew and returns once it is ready. No key of the person's own is used: no real model is asked.
    pub(super) async fn up(&self) -> anyhow::Result<Up> {
        self.up_with(&[]).await
    }

    /// The same without a service, which is to run as a process of its own.
    pub(super) async fn up_without(&self, service: &str) -> anyhow::Result<Up> {
        self.up_with(&["--without", service]).await
    }

    async fn up_with(&self, options: &[&str]) -> anyhow::Result<Up> {
        let mut command = self.command()?;
        command.args(["up", "--scenario", "scenario.yaml"]).args(options).stdout(Stdio::piped());
        let began = Instant::now();
        let mut child = command.spawn().with_context(|| format!("{} can not be started", self.program.display()))?;
        let stdout = child.stdout.take().context("a child has a standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                if line.starts_with(READY) {
                    return anyhow::Ok(true);
                }
            }
            anyhow::Ok(false)
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await.context("`nightcrew up` is not ready in time")??;
        let ready_after = began.elapsed();
        if !ready {
            let said = std::fs::read_to_string(self.log()).unwrap_or_default();
            bail!("`nightcrew up` ended early: {}", said.lines().last().unwrap_or_default());
        }
        Ok(Up { child, ready_after, _lines: lines })
    }

    /// Starts a service of the crew that is up, as a process of its own.
    pub(super) fn service(&self, name: &str) -> anyhow::Result<Child> {
        let mut command = self.command()?;
        command.args(["service", name]).stdout(Stdio::null());
        command.spawn().with_context(|| format!("the service {name} can not be started"))
    }

    /// The program in the project, with no model key of the person's own.
    fn command(&self) -> anyhow::Result<Command> {
        let errors = std::fs::OpenOptions::new().create(true).append(true).open(self.log())?;
        let mut command = Command::new(&self.program);
        command
            .current_dir(self.dir())
            .env("NIGHTCREW_STATE_DIR", self.state())
            .env_remove("ANTHROPIC_API_KEY")
            .env_remove("OPENAI_API_KEY")
            .stdin(Stdio::null())
            .stderr(errors)
            .kill_on_drop(true);
        Ok(command)
    }

    /// The bus of the crew that is up, as the command line.
    pub(super) async fn bus(&self) -> anyhow::Result<Bus> {
        let identity = Identity::open(&self.dir().join(".nightcrew/identity"))?;
        let config = BusConfig {
            urls: vec![self.endpoint("nats_url")?],
            creds: Some(identity.creds_file(Service::Nightcrew)),
            service: Service::Nightcrew.name().to_owned(),
            project: id()?,
        };
        Ok(Bus::connect(&config).await?)
    }

    /// Opens a gate of the rehearsal model.
    pub(super) async fn open_gate(&self, name: &str) -> anyhow::Result<()> {
        let url = format!("{}/rehearsal/gates/{name}/open", self.endpoint("rehearsal_url")?);
        reqwest::Client::new().post(url).send().await?.error_for_status()?;
        Ok(())
    }

    /// Where a part of the crew is, as `nightcrew up` wrote it down.
    fn endpoint(&self, name: &str) -> anyhow::Result<String> {
        let endpoints = std::fs::read(self.state().join("endpoints.json")).context("the crew wrote where it is")?;
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints)?;
        Ok(endpoints[name].as_str().with_context(|| format!("the crew has no {name}"))?.to_owned())
    }

    /// Ends the crew and its bus with SIGKILL; the kernel takes the bus with its parent.
    pub(super) async fn kill(&self, mut up: Up) -> anyhow::Result<()> {
        up.child.kill().await?;
        let bus_gone = async {
            while nats_server::running(&self.state().join("nats")).is_some() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::time::timeout(PATIENCE, bus_gone).await.context("nats-server outlived its parent")
    }
}

impl Up {
    /// Resident memory in megabytes.
    pub(super) fn resident(&self) -> anyhow::Result<f64> {
        let pid = self.child.id().context("the crew is up")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("a process has a size")?;
        let kibibytes: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kibibytes * 1_024.0 / 1_000_000.0)
    }

    /// Ends it in order.
    pub(super) async fn stop(mut self) -> anyhow::Result<()> {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        kill_process(pid.context("the crew ended by itself")?, Signal::TERM)?;
        let status = tokio::time::timeout(PATIENCE, self.child.wait()).await.context("the crew does not end")??;
        ensure!(status.success(), "the crew ended with {status}");
        Ok(())
    }
}

/// The project's id.
pub(super) fn id() -> anyhow::Result<ProjectId> {
    Ok(ProjectId::try_new(PROJECT)?)
}

/// Puts the agents into these rooms in place of those that they are in.
pub(crate) fn in_the_rooms(agents: &Path, rooms: &str) -> anyhow::Result<()> {
    for agent in std::fs::read_dir(agents)? {
        let path = agent?.path().join("capabilities.yaml");
        if path.exists() {
            let text = std::fs::read_to_string(&path)?;
            std::fs::write(&path, text.replace("rooms: [crew, terminal]", &format!("rooms: [{rooms}]")))?;
        }
    }
    Ok(())
}

/// The program: the copy that `NIGHTCREW_BIN` names, or the one beside this one.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("NIGHTCREW_BIN") {
        return Ok(program.into());
    }
    let program = std::env::current_exe()?.with_file_name("nightcrew");
    ensure!(program.exists(), "{} is not built: run ./justw bench", program.display());
    Ok(program)
}

/// The file with the bot's password, in the project's folder.
const PASSWORD_FILE: &str = "matrix-password";

/// Where people talk to the crew besides the terminal.
pub(super) struct Chat<'a> {
    /// The homeserver.
    pub(super) homeserver: &'a str,
    /// The bot.
    pub(super) user: &'a str,
    /// Its password.
    pub(super) password: &'a str,
    /// Who may wake the crew.
    pub(super) allow: &'a [&'a str],
    /// The rooms.
    pub(super) rooms: &'a [Room],
}

impl Chat<'_> {
    /// The channel as `team.yaml` has it.
    fn channel(&self) -> String {
        let Self { homeserver, user, .. } = self;
        let allow = self.allow.iter().map(|person| format!("{person:?}")).collect::<Vec<_>>().join(", ");
        let mut channel = format!(
            "  matrix:\n    homeserver: {homeserver}\n    user: {user:?}\n    password_file: {PASSWORD_FILE}\n    \
             allow: [{allow}]\n    rooms:\n"
        );
        for Room { name, id, mode } in self.rooms {
            let agents = if *mode == LISTEN { "" } else { ", agents: [lead, scout], default: lead" };
            // Writing to a string does not fail.
            let _ = writeln!(channel, "      - {{ name: {name}, id: {id:?}, mode: {mode}{agents} }}");
        }
        channel
    }
}

/// The team, which is at the terminal and in `channels`.
fn team(channels: &str) -> String {
    format!(
        r#"project: {PROJECT}
time_zone: UTC
agents:
  - {{ name: lead, description: "takes requests, hands work on and answers" }}
  - {{ name: scout, description: "reads and finds" }}
  - {{ name: coder, description: "edits, tests and commits" }}
repositories:
  nightcrew: {{ source: ../repository, base: main }}
channels:
  terminal: {{ allow: local, agents: [lead, scout, coder], default: lead }}
{channels}limits:
  max_steps: 60
  max_handoff_depth: 2
  max_handoffs: 8
  max_repeats: 3
  deadline: 30m
  max_tokens: 2000000
  max_messages_without_human: 20
"#
    )
}

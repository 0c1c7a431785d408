//! The crew's processes: `nightcrew up` with everything but the runner, and the runner that is killed.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, ensure};
use kit::{
    bus::BusConfig,
    identity::{Identity, Service},
};
use rehearsal::Outcome;
use rustix::process::{Pid, Signal, kill_process};
use schemas::{ProjectId, RunId};
use tokio::{
    io::{AsyncBufReadExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::{PATIENCE, stage::Stage, tell};
use crate::process::children_of;

/// Between two looks at what the crew is at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The processes of the crew.
pub(crate) struct Crew {
    program: PathBuf,
    project: PathBuf,
    state: PathBuf,
    up: Child,
    runner: Option<Child>,
    _lines: Lines<BufReader<ChildStdout>>,
}

impl Crew {
    /// Starts everything but the runner.
    pub(crate) async fn start(stage: &Stage) -> anyhow::Result<Self> {
        let program = program()?;
        let (project, state) = (stage.project(), stage.dir().join("state"));
        let mut up = Command::new(&program);
        up.args(["up", "--without", "agent-runner", "--scenario", "scenario.yaml"]);
        let mut up = in_project(up, &project, &state)
            .stdout(Stdio::piped())
            .stderr(log_file(stage, "up")?)
            .spawn()
            .with_context(|| format!("{} can not be started", program.display()))?;
        let stdout = up.stdout.take().context("a child has a standard output")?;
        let mut lines = BufReader::new(stdout).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await? {
                tell(&format!("nightcrew: {line}"));
                if line.contains("rehearsal") {
                    return anyhow::Ok(true);
                }
            }
            anyhow::Ok(false)
        };
        let ready = tokio::time::timeout(PATIENCE, ready).await.context("`nightcrew up` is not ready in time")??;
        ensure!(ready, "`nightcrew up` ended early: see {}", stage.dir().join("up.log").display());
        Ok(Self { program, project, state, up, runner: None, _lines: lines })
    }

    /// Starts a runner.
    pub(crate) fn start_runner(&mut self) -> anyhow::Result<()> {
        let mut runner = Command::new(&self.program);
        runner.args(["service", "agent-runner"]);
        let log =
            std::fs::OpenOptions::new().create(true).append(true).open(self.state.with_file_name("runner.log"))?;
        self.runner = Some(in_project(runner, &self.project, &self.state).stdout(Stdio::null()).stderr(log).spawn()?);
        Ok(())
    }

    /// Ends the runner with SIGKILL and waits until it is gone.
    pub(crate) async fn kill_runner(&mut self) -> anyhow::Result<()> {
        let mut runner = self.runner.take().context("a runner is up")?;
        runner.kill().await.context("the runner can not be killed")
    }

    /// Waits until the rehearsal model is at work on a request of an agent's step.
    pub(crate) async fn wait_until_asked(&self, agent: &str, step: u32) -> anyhow::Result<()> {
        let url = format!("{}/rehearsal/requests", self.endpoint("rehearsal_url")?);
        let client = reqwest::Client::new();
        until(&format!("the model is asked by {agent}"), async || {
            let requests: rehearsal::Requests = client.get(&url).send().await?.error_for_status()?.json().await?;
            let asked = |request: &rehearsal::Record| {
                request.agent.as_deref() == Some(agent)
                    && request.step == step
                    && request.outcome == Outcome::InProgress
            };
            Ok(requests.requests.iter().any(asked))
        })
        .await
    }

    /// Waits until a command runs in the runner's sandbox.
    pub(crate) async fn wait_until_sandboxed(&self) -> anyhow::Result<()> {
        /// What the kernel calls a sandbox.
        const SANDBOX: &str = "bwrap";
        let runner = self.runner.as_ref().and_then(Child::id).context("a runner is up")?;
        until("a command runs in the sandbox", async || Ok(children_of(runner, Some(SANDBOX))? > 0)).await
    }

    /// `nightcrew timeline RUN --tree`, as a person reads it.
    pub(crate) async fn timeline(&self, run: RunId) -> anyhow::Result<String> {
        self.ask(&["timeline", &run.to_string(), "--tree"]).await
    }

    /// Runs a command of the program and gives what it prints.
    pub(crate) async fn ask(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        command.args(args);
        let output = in_project(command, &self.project, &self.state).output().await?;
        ensure!(output.status.success(), "nightcrew {args:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// How to look around.
    pub(crate) fn hints(&self, run: RunId) -> String {
        let nightcrew = format!("{} -C {}", self.program.display(), self.project.display());
        format!(
            "Look around in another terminal:\n  export NIGHTCREW_STATE_DIR={}\n  {nightcrew} runs\n  \
             {nightcrew} timeline {run} --tree\n  {nightcrew} say lead \"what have you learnt?\"",
            self.state.display(),
        )
    }

    /// An address that the crew wrote down, such as `nats_url`.
    pub(crate) fn endpoint(&self, name: &str) -> anyhow::Result<String> {
        let endpoints = std::fs::read(self.state.join("endpoints.json")).context("the crew wrote where it is")?;
        let endpoints: serde_json::Value = serde_json::from_slice(&endpoints)?;
        Ok(endpoints[name].as_str().with_context(|| format!("the crew has no {name}"))?.to_owned())
    }

    /// The way to its bus, as the command line.
    pub(crate) fn bus_config(&self) -> anyhow::Result<BusConfig> {
        let identity = Identity::open(&self.project.join(".nightcrew/identity"))?;
        Ok(BusConfig {
            urls: vec![self.endpoint("nats_url")?],
            creds: Some(identity.creds_file(Service::Nightcrew)),
            service: Service::Nightcrew.name().to_owned(),
            project: ProjectId::try_new("demo")?,
        })
    }

    /// Ends everything in order.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        for mut child in self.runner.into_iter().chain([self.up]) {
            let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).unwrap_or(0)));
            if let Some(pid) = pid {
                kill_process(pid, Signal::TERM)?;
            }
            tokio::time::timeout(PATIENCE, child.wait()).await.context("a process does not end")??;
        }
        Ok(())
    }
}

/// Waits until `look` says yes.
async fn until(what: &str, look: impl AsyncFn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let looks = async {
        while !look().await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(PATIENCE, looks).await.with_context(|| format!("it did not happen in time: {what}"))?
}

/// The program: the copy that `justw` made, or the one beside this one.
fn program() -> anyhow::Result<PathBuf> {
    if let Some(program) = std::env::var_os("NIGHTCREW_BIN") {
        return Ok(program.into());
    }
    let own = std::env::current_exe()?;
    let program = own.with_file_name("nightcrew");
    ensure!(program.exists(), "{} is not built: run ./justw demo", program.display());
    Ok(program)
}

/// A command in the project, with no model key of the person's own: the demo never asks a real model.
fn in_project(mut command: Command, project: &std::path::Path, state: &std::path::Path) -> Command {
    command
        .current_dir(project)
        .env("NIGHTCREW_STATE_DIR", state)
        .env_remove("ANTHROPIC_API_KEY")
        .env_remove("OPENAI_API_KEY")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

fn log_file(stage: &Stage, name: &str) -> anyhow::Result<std::fs::File> {
    Ok(std::fs::File::create(stage.dir().join(format!("{name}.log")))?)
}

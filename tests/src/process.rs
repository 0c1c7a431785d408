//! A runner as a process of its own, to be killed and stopped: by a test from outside, or by itself at a point between
//! an effect and its place in the journal.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use agent_runner::probe::{Point, Probe};
use anyhow::{Context as _, bail, ensure};
use kit::{
    bus::{Bus, BusConfig},
    crew::Crew,
    service::{self, Context},
    telemetry::{self, Format, TelemetryConfig},
};
use rustix::process::{Pid, Signal, getpid, kill_process};
use schemas::ProjectId;
use serde::{Deserialize, Serialize};

/// The environment variable with the process' [`Spec`].
const SPEC: &str = "NIGHTCREW_TEST_RUNNER";

/// What the process says once it takes wakes.
const READY: &str = "ready";

/// How long a process may take to start or to end.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks whether a process has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How long a thread that stopped its own process may run on.
const STOPS_WITHIN: Duration = Duration::from_millis(100);

/// What a runner's process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Spec {
    /// Its name in `started` and `resumed`.
    pub runner: String,
    /// The bus.
    pub urls: Vec<String>,
    /// The runner's credentials.
    pub creds: PathBuf,
    /// The bus's project.
    pub project: ProjectId,
    /// The crew's files.
    pub crew: PathBuf,
    /// Where budget-proxy listens.
    pub proxy_url: String,
    /// Its worktrees.
    pub state_dir: PathBuf,
    /// Where its log lines go.
    pub log: PathBuf,
    /// Where it writes the points that it reached, one a line, before it does anything else there.
    pub points: Option<PathBuf>,
    /// The point at which it ends itself with SIGKILL.
    pub crash_at: Option<String>,
    /// The point at which it stops itself with SIGSTOP.
    pub freeze_at: Option<String>,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    spec: Spec,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Starts `program`, which calls [`main`], and returns once it takes wakes.
    pub async fn start(program: &Path, spec: Spec) -> anyhow::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
        let mut child = Command::new(program)
            .env(SPEC, serde_json::to_string(&spec)?)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can not be started", program.display()))?;
        let stdout = child.stdout.take().context("a child has a standard output")?;
        let process = Self { child, spec, ended: None };
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let said = tokio::time::timeout(PATIENCE, said).await.context("a runner is not ready in time")???;
        if said.trim() != READY {
            bail!("a runner did not start: {}", process.log());
        }
        Ok(process)
    }

    /// What it was told.
    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::KILL)?;
        self.exited().await.map(drop)
    }

    /// Stops it in its tracks (SIGSTOP), as a machine that hangs would.
    pub fn freeze(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets one that was stopped go on.
    pub fn thaw(&mut self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until it has stopped itself.
    pub async fn frozen(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_frozen()? {
            if Instant::now() > deadline || !self.is_running()? {
                bail!("a runner did not stop itself: {}", self.log());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    fn is_frozen(&self) -> anyhow::Result<bool> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        Ok(state_and_parent(&stat)[0] == "T")
    }

    /// Waits until its log has as many lines as `wanted` that hold `text`.
    pub async fn logged(&self, text: &str, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let log = self.log();
            if log.lines().filter(|line| line.contains(text)).count() >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("a runner did not say {text:?} {wanted} times: {log}");
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it has as many processes of its own, such as the sandboxes of its commands, as `wanted` allows.
    pub async fn children(&self, wanted: impl Fn(usize) -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = children_of(self.child.id(), None)?;
            if wanted(children) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("a runner has {children} processes: {}", self.log());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> anyhow::Result<bool> {
        self.ended = match self.ended {
            None => self.child.try_wait()?,
            ended => ended,
        };
        Ok(self.ended.is_none())
    }

    /// Waits for its end.
    pub async fn exited(&mut self) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.is_running()?;
            if let Some(ended) = self.ended {
                return Ok(ended);
            }
            if Instant::now() > deadline {
                bail!("a runner does not end: {}", self.log());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Waits until it has ended itself at `point`, and not by anything else or anywhere else.
    pub async fn killed_at(&mut self, point: &str) -> anyhow::Result<()> {
        let ended = self.exited().await?;
        let last = self.points()?.pop();
        ensure!(
            ended.signal() == Some(Signal::KILL.as_raw()) && last.as_deref() == Some(point),
            "a runner should have ended itself at {point}; it ended with {ended}, at {last:?}: {}",
            self.log()
        );
        Ok(())
    }

    /// The points that it reached.
    pub fn points(&self) -> anyhow::Result<Vec<String>> {
        let path = self.spec.points.as_ref().context("the runner was not asked for its points")?;
        Ok(std::fs::read_to_string(path)?.lines().map(str::to_owned).collect())
    }

    /// Its log lines.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.spec.log).unwrap_or_default()
    }

    fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        if !self.is_running()? {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).context("a process has an id")?;
        Ok(kill_process(pid, signal)?)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that ended already is no error.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many processes a process has started that run still, or those of them that are called `name`.
pub(crate) fn children_of(pid: u32, name: Option<&str>) -> anyhow::Result<usize> {
    let name = name.map(|name| format!("({name})"));
    let mut children = 0;
    for entry in std::fs::read_dir("/proc")? {
        // What is no process has no such file, and a process may end meanwhile.
        let stat = std::fs::read_to_string(entry?.path().join("stat")).unwrap_or_default();
        let [state, parent] = state_and_parent(&stat);
        let named = name.as_ref().is_none_or(|name| stat.contains(name));
        // One that has ended, and was not awaited yet, does nothing any more.
        children += usize::from(named && parent == pid.to_string() && state != "Z");
    }
    Ok(children)
}

/// `pid (name) state parent ...`; a name may hold anything but is the last thing in parentheses.
fn state_and_parent(stat: &str) -> [&str; 2] {
    let mut rest = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    [rest.next().unwrap_or_default(), rest.next().unwrap_or_default()]
}

/// The process. It ends when whoever started it does.
pub fn main() -> ExitCode {
    let run = || {
        let spec = std::env::var(SPEC).context("this is a part of tests, and started by them")?;
        let spec: Spec = serde_json::from_str(&spec)?;
        std::thread::spawn(|| {
            let _ = std::io::stdin().read(&mut [0]);
            signal_self(Signal::KILL);
        });
        tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(serve(spec))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the end of a process that could not do its work")]
fn complain(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

async fn serve(spec: Spec) -> anyhow::Result<()> {
    let log = TelemetryConfig {
        service: "agent-runner".to_owned(),
        format: Format::Text,
        filter: telemetry::DEFAULT_FILTER.to_owned(),
        log_dir: None,
    };
    let _guard = telemetry::init(&log)?;
    let crew = Crew::load(&spec.crew).map_err(|problems| anyhow::anyhow!("the crew is not valid: {problems:?}"))?;
    let bus = BusConfig {
        urls: spec.urls.clone(),
        creds: Some(spec.creds.clone()),
        service: kit::identity::Service::AgentRunner.name().to_owned(),
        project: spec.project.clone(),
    };
    let deps = agent_runner::Deps { bus: Bus::connect(&bus).await?, crew: Arc::new(crew), logs: None };
    let config = agent_runner::Config {
        runner: spec.runner.clone(),
        proxy_url: spec.proxy_url.clone(),
        state_dir: spec.state_dir.clone(),
    };
    let context = Context::new("agent-runner");
    let own = context.child("agent-runner");
    context.spawn_vital("run", agent_runner::run_probed(config, deps, probe(spec)?, own));
    let body = async {
        context.ready();
        context.health.until_ready().await;
        writeln!(std::io::stdout(), "{READY}")?;
        context.shutdown.cancelled().await;
        anyhow::Ok(())
    };
    service::run(&context, service::GRACE, body).await.map_err(|error| match error {
        service::RunError::Service(error) => error,
        other => anyhow::anyhow!("{other}"),
    })
}

/// Notes each point, and ends this process at the one that the spec names.
fn probe(spec: Spec) -> anyhow::Result<Probe> {
    let Some(path) = spec.points else { return Ok(Probe::default()) };
    let reached = Reached { file: File::create(path)?, times: BTreeMap::new() };
    let reached = Mutex::new(reached);
    Ok(Probe::new(move |point| {
        // Whoever else reaches a point waits here while this one ends or stops the process.
        let mut reached = reached.lock().unwrap_or_else(PoisonError::into_inner);
        let name = Some(reached.note(&point));
        if name == spec.crash_at {
            signal_self(Signal::KILL);
        }
        if name == spec.freeze_at {
            signal_self(Signal::STOP);
            // Another thread may be the first to see the signal: this one must not get anywhere meanwhile.
            std::thread::sleep(STOPS_WITHIN);
        }
    }))
}

/// The points that were reached so far.
struct Reached {
    file: File,
    times: BTreeMap<String, u32>,
}

impl Reached {
    /// Names the point: who, where, what, and the how manieth of these it is.
    fn note(&mut self, point: &Point<'_>) -> String {
        let name = format!("{} {:?} {}", point.agent, point.place, point.what);
        let times = self.times.entry(name.clone()).or_default();
        *times += 1;
        let name = format!("{name} #{times}");
        // A file that can not be written shows as a point that was not reached.
        let _ = writeln!(self.file, "{name}");
        name
    }
}

/// SIGKILL: no destructor runs, nothing is flushed. SIGSTOP: nothing goes on, and nobody is told.
fn signal_self(signal: Signal) {
    let _ = kill_process(getpid(), signal);
}

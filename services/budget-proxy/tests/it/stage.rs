//! A bus, an issuer, a rehearsal model and a proxy, and conditions to wait for.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use budget_proxy::probe::Probe;
use budget_proxy::{Config, Deps, Patience};
use jiff::SignedDuration;
use kit::bus::Bus;
use kit::crew::{Crew, ReadError};
use kit::for_test::{PROJECT, TestBus};
use kit::identity::Service;
use kit::service::{Context, HealthReport};
use rehearsal::{Outcome, Record, Scenario, Server};
use schemas::ask::{Answer, MintReply, MintRequest};
use schemas::call::ModelCall;
use schemas::{ProjectId, RunId};
use tokio::runtime::Runtime;

use crate::client::Caller;
use crate::journal::Run;

/// Nothing that is awaited in a test takes this long.
pub(crate) const SOON: Duration = Duration::from_secs(20);

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const TEAM: &str = "
project: test
time_zone: UTC
agents: [{name: coder}]
repositories: {}
channels: {terminal: {allow: local, agents: [coder], default: coder}}
limits: {max_steps: 10, max_handoff_depth: 1, max_handoffs: 1, max_repeats: 2, deadline: 1h, max_tokens: 100000, max_messages_without_human: 5}
";

const CAPABILITIES: &str = "
harness: native
lifecycle: resident
models: [MODELS]
tools: [read]
rooms: [terminal]
repositories: []
";

/// Played by the rehearsal model, because nobody sets that key.
const REHEARSED: &str = "
routes:
  claude: {provider: anthropic, model: claude-test, context_window: 200000, max_output_tokens: 3000, key_env: NIGHTCREW_NO_SUCH_KEY}
  gpt: {provider: openai, model: gpt-test, context_window: 200000, max_output_tokens: 3000, key_env: NIGHTCREW_NO_SUCH_KEY}
  foreign: {provider: openai, model: gpt-test, context_window: 200000, max_output_tokens: 3000, key_env: NIGHTCREW_NO_SUCH_KEY}
";

const PRICES: &str = "
prices:
  - {from: 2020-01-01, model: claude-test, input: '3', output: '15', cache_write: '3.75', cache_read: '0.30'}
  - {from: 2021-01-01, model: claude-test, input: '30', output: '150', cache_write: '37.50', cache_read: '3'}
  - {from: 2999-01-01, model: claude-test, input: '9', output: '9', cache_write: '9', cache_read: '9'}
  - {from: 2020-01-01, model: gpt-test, input: '1', output: '2', cache_write: '1', cache_read: '1'}
";

/// How a stage differs from the usual one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Setting {
    /// Routes beside the rehearsed ones, in the words of `models.yaml`.
    pub(crate) routes: String,
    /// Less patience than is shipped.
    pub(crate) patience: Option<Patience>,
    /// Looks at calls of the first proxy.
    pub(crate) probe: Probe,
}

/// Everything that a call passes through.
pub(crate) struct Stage {
    pub(crate) proxy: Proxy,
    pub(crate) model: Server,
    pub(crate) runner: Bus,
    crew: Arc<Crew>,
    patience: Patience,
    issuer: Context,
    // Last, so that the server goes when nobody needs it any more.
    pub(crate) bus: TestBus,
}

impl Stage {
    /// The rehearsal model plays `rules`.
    pub(crate) async fn playing(rules: &str) -> Self {
        Self::with(rules, Setting::default()).await
    }

    pub(crate) async fn with(rules: &str, setting: Setting) -> Self {
        let scenario = format!("name: test\nrules:\n{rules}");
        let scenario = Scenario::parse("test.yaml", &scenario).unwrap();
        let model = Server::start(vec![scenario], LOOPBACK).await.unwrap();
        let bus = TestBus::with_streams().await;
        let issuer = issue(&bus).await;
        let crew = crew(bus.folder(), &setting.routes);
        let patience = setting.patience.unwrap_or(Patience::SHIPPED);
        let proxy = Proxy::begin(&bus, &crew, &model, patience, setting.probe).await;
        soon("the proxy is ready", proxy.context.health.until_ready()).await;
        let runner = bus.bus(Service::AgentRunner).await;
        Self { proxy, model, runner, crew, patience, issuer, bus }
    }

    /// A run that is held, and a caller with its bearer.
    pub(crate) async fn caller(&self) -> (Run, Caller) {
        let run = Run::held(&self.runner).await;
        let caller = self.caller_of(&run).await;
        (run, caller)
    }

    /// A caller with the bearer of the run's present epoch.
    pub(crate) async fn caller_of(&self, run: &Run) -> Caller {
        Caller::new(&self.proxy.url, &self.mint(run.id, run.epoch).await)
    }

    pub(crate) async fn mint(&self, run_id: RunId, epoch: u64) -> String {
        let request = MintRequest {
            run_id,
            root_run_id: run_id,
            agent: "coder".parse().unwrap(),
            epoch,
            deadline: kit::clock::now() + SignedDuration::from_hours(1),
        };
        let body = serde_json::to_vec(&request).unwrap();
        let asked = self.runner.client().request("swarm.ask.issuer.mint", body.into());
        let answer: Answer<MintReply> = serde_json::from_slice(&asked.await.unwrap().payload).unwrap();
        answer.into_result().unwrap().token
    }

    /// The requests that reached the rehearsal model.
    pub(crate) fn asked(&self) -> Vec<Record> {
        self.model.requests(0).requests
    }

    /// Waits until one of the model's requests ended so.
    pub(crate) async fn until_model(&self, outcome: Outcome) -> Record {
        let ended = || async {
            let asked = self.asked();
            asked.into_iter().find(|record| record.outcome == outcome)
        };
        until("the model's end", ended).await
    }

    /// Waits until a request waits at a gate of the model.
    pub(crate) async fn until_waiting(&self, gate: &str) {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("{}/rehearsal/gates", self.model.url());
        let waiting = || async {
            let gates = http.get(&url).send().await.ok()?.text().await.ok()?;
            let gates: serde_json::Value = serde_json::from_str(&gates).ok()?;
            let found = gates.as_array()?.iter().find(|found| found["name"] == gate)?;
            (!found["waiting"].as_array()?.is_empty()).then_some(())
        };
        until("a request at the gate", waiting).await;
    }

    /// The records of a run, once there are so many.
    pub(crate) async fn records(&self, run: RunId, many: usize) -> Vec<ModelCall> {
        let journal = kit::journal::Journal::new(&self.runner);
        let found = || async {
            let calls = journal.calls(run, 0).await.ok()?;
            (calls.len() >= many).then_some(calls)
        };
        let calls = until("call records", found).await;
        assert_eq!(calls.len(), many, "records: {calls:#?}");
        calls.iter().map(|call| call.decode().unwrap()).collect()
    }

    /// The one record of a run.
    pub(crate) async fn record(&self, run: RunId) -> ModelCall {
        self.records(run, 1).await.remove(0)
    }

    /// How many calls of a run are on record by now.
    pub(crate) async fn recorded(&self, run: RunId) -> usize {
        kit::journal::Journal::new(&self.runner).calls(run, 0).await.unwrap().len()
    }

    /// Ends the proxy as a SIGKILL would, and starts another one.
    pub(crate) async fn kill_proxy(&mut self) {
        self.proxy.kill();
        self.start_proxy().await;
    }

    pub(crate) async fn start_proxy(&mut self) {
        self.proxy = self.begin_proxy().await;
        soon("the proxy is ready", self.proxy.context.health.until_ready()).await;
    }

    /// Another proxy, which may not be ready yet.
    pub(crate) async fn begin_proxy(&self) -> Proxy {
        Proxy::begin(&self.bus, &self.crew, &self.model, self.patience, Probe::default()).await
    }

    pub(crate) async fn stop_issuer(&self) {
        self.issuer.begin_shutdown();
        assert!(self.issuer.drain(SOON).await);
    }

    pub(crate) async fn start_issuer(&mut self) {
        self.issuer = issue(&self.bus).await;
    }

    /// Waits until a check of the proxy is as wanted.
    pub(crate) async fn until_health(&self, wanted: impl Fn(&HealthReport) -> bool) {
        let found = || async { wanted(&self.proxy.context.health.report()).then_some(()) };
        until("the proxy's health", found).await;
    }
}

/// A proxy in a runtime of its own, which can be torn down in the middle of everything.
pub(crate) struct Proxy {
    pub(crate) url: String,
    pub(crate) context: Context,
    runtime: Option<Runtime>,
}

impl Proxy {
    async fn begin(bus: &TestBus, crew: &Arc<Crew>, model: &Server, patience: Patience, probe: Probe) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let context = Context::new("budget-proxy");
        let (bus, crew) = (bus.bus_config(Service::BudgetProxy), Arc::clone(crew));
        let config = Config { rehearsal_url: Some(model.url()) };
        let own = context.clone();
        let started = runtime.spawn(async move {
            let (listener, address) = kit::http::bind(LOOPBACK).await.unwrap();
            let deps =
                Deps { bus: Bus::connect(&bus).await.unwrap(), crew, listener: Arc::new(Mutex::new(Some(listener))) };
            let running = budget_proxy::run_with(patience, probe, config, deps, own.clone());
            own.spawn_vital("run", running);
            format!("http://{address}")
        });
        Self { url: soon("the proxy listens", started).await.unwrap(), context, runtime: Some(runtime) }
    }

    /// Everything in it stops where it stands.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn issue(bus: &TestBus) -> Context {
    let config = issuer::Config {
        project: ProjectId::try_new(PROJECT).unwrap(),
        key_file: bus.identity().bearer_key_file(),
        max_lifetime: issuer::DEFAULT_MAX_LIFETIME,
    };
    let deps = issuer::Deps { client: bus.bus(Service::Issuer).await.client().clone(), now: kit::clock::now };
    let context = Context::new("issuer");
    context.spawn_vital("issuer", issuer::run(config, deps, context.clone()));
    soon("the issuer is ready", context.health.until_ready()).await;
    context
}

fn crew(folder: &Path, routes: &str) -> Arc<Crew> {
    let models = format!("{REHEARSED}{routes}{PRICES}");
    // All but `foreign`.
    let own = routes.lines().filter_map(|line| Some(line.trim().split_once(':')?.0));
    let granted = ["claude", "gpt"].into_iter().chain(own).collect::<Vec<_>>().join(", ");
    let crew = Crew::assemble(folder, |path| match path {
        "team.yaml" => Ok(TEAM.to_owned()),
        "models.yaml" => Ok(models.clone()),
        "agents/coder/persona.md" => Ok("You code.".to_owned()),
        "agents/coder/capabilities.yaml" => Ok(CAPABILITIES.replace("MODELS", &granted)),
        _ => Err(ReadError::Io(std::io::ErrorKind::NotFound.into())),
    });
    Arc::new(crew.unwrap())
}

/// Waits until `condition` gives something.
pub(crate) async fn until<T, F, Fut>(what: &str, condition: F) -> T
where
    F: Fn() -> Fut,
    Fut: Future<Output = Option<T>>,
{
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// The result of `future`, which must come soon.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(SOON, future).await;
    done.unwrap_or_else(|_| panic!("not in time: {what}"))
}

//! Starting each service, from the same pieces in one process and in many.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use clap::ValueEnum;
use kit::{
    bus::{Bus, BusConfig},
    clock,
    config::Env,
    http,
    identity::Identity,
    logs::{self, LogSink, LogStore},
    service::{self, Context},
};
use tokio::net::TcpListener;

use crate::project::Project;

/// A service that this program can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Name {
    /// Mints the credentials of runs.
    Issuer,
    /// The only way to a model.
    BudgetProxy,
    /// Runs agents.
    AgentRunner,
    /// Tells what happened: summaries, archives.
    RunCorrelator,
    /// Brings chat rooms and the crew together.
    ChatBridge,
    /// Plays a model when no key is configured.
    Rehearsal,
}

impl Name {
    /// All of them, in the order in which they start.
    pub const ALL: [Self; 6] =
        [Self::Rehearsal, Self::Issuer, Self::BudgetProxy, Self::RunCorrelator, Self::AgentRunner, Self::ChatBridge];

    /// The service's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Issuer => "issuer",
            Self::BudgetProxy => "budget-proxy",
            Self::AgentRunner => "agent-runner",
            Self::RunCorrelator => "run-correlator",
            Self::ChatBridge => "chat-bridge",
            Self::Rehearsal => "rehearsal",
        }
    }
}

/// What services of one process share.
#[derive(Debug, Clone)]
pub(crate) struct Surroundings {
    /// The project.
    pub project: Project,
    /// Its keys and credentials.
    pub identity: Identity,
    /// The bus.
    pub nats_url: String,
    /// Where budget-proxy is.
    pub proxy_url: String,
    /// Where the rehearsal model is.
    pub rehearsal_url: Option<String>,
    /// Where the runner works.
    pub(crate) worktrees: PathBuf,
    /// Stored log lines.
    pub logs: Option<LogSink>,
}

impl Surroundings {
    /// A connection as the service's own user.
    pub(crate) async fn connect(&self, user: kit::identity::Service) -> anyhow::Result<Bus> {
        let config = BusConfig {
            urls: kit::bus::urls(&self.nats_url),
            creds: Some(self.identity.creds_file(user)),
            service: user.name().to_owned(),
            project: self.project.crew.project.clone(),
        };
        Bus::connect(&config).await.with_context(|| format!("{user} can not connect to the bus"))
    }

    /// A connection by which whoever asks is told from now on how the service is.
    async fn answering(&self, user: kit::identity::Service, context: &Context) -> anyhow::Result<Bus> {
        let bus = self.connect(user).await?;
        let answering = service::answer_health(bus.client(), context).await;
        answering.with_context(|| format!("{user} can not be asked how it is"))?;
        Ok(bus)
    }

    /// Starts `name` as a vital part of `process`.
    pub(crate) async fn start(
        &self,
        name: Name,
        process: &Context,
        listener: Option<TcpListener>,
    ) -> anyhow::Result<()> {
        use kit::identity::Service;
        let context = process.child(name.as_str());
        let own = context.clone();
        match name {
            Name::Rehearsal => anyhow::bail!("the rehearsal model is started by its own function"),
            Name::Issuer => {
                let bus = self.answering(Service::Issuer, &context).await?;
                let config = issuer::Config {
                    project: self.project.crew.project.clone(),
                    key_file: self.identity.bearer_key_file(),
                    max_lifetime: issuer::DEFAULT_MAX_LIFETIME,
                };
                let deps = issuer::Deps { client: bus.client().clone(), now: clock::now };
                context.spawn_vital("run", issuer::run(config, deps, own));
            }
            Name::BudgetProxy => {
                let deps = budget_proxy::Deps {
                    bus: self.answering(Service::BudgetProxy, &context).await?,
                    crew: Arc::clone(&self.project.crew),
                    listener: Arc::new(std::sync::Mutex::new(listener)),
                };
                let config = budget_proxy::Config { rehearsal_url: self.rehearsal_url.clone() };
                context.spawn_vital("run", budget_proxy::run(config, deps, own));
            }
            Name::AgentRunner => {
                let deps = agent_runner::Deps {
                    bus: self.answering(Service::AgentRunner, &context).await?,
                    crew: Arc::clone(&self.project.crew),
                    logs: self.logs.clone(),
                };
                let config = agent_runner::Config {
                    runner: clock::uuid7().to_string(),
                    proxy_url: self.proxy_url.clone(),
                    state_dir: self.worktrees.clone(),
                };
                context.spawn_vital("run", agent_runner::run(config, deps, own));
            }
            Name::RunCorrelator => {
                let store = LogStore::at(self.project.state("logs"), logs::Limits::SHIPPED);
                let deps = run_correlator::Deps {
                    bus: self.answering(Service::RunCorrelator, &context).await?,
                    logs: Arc::new(store),
                };
                context.spawn_vital("run", run_correlator::run(run_correlator::Config::SHIPPED, deps, own));
            }
            Name::ChatBridge => {
                let deps = chat_bridge::Deps {
                    bus: self.answering(Service::ChatBridge, &context).await?,
                    crew: Arc::clone(&self.project.crew),
                };
                let config = chat_bridge::Config { folder: self.project.state("chat"), env: Env::from_process() };
                context.spawn_vital("run", chat_bridge::run(config, deps, own));
            }
        }
        Ok(())
    }
}

/// Takes a place for budget-proxy to listen at.
pub(crate) async fn bind_proxy(address: SocketAddr) -> anyhow::Result<(TcpListener, String)> {
    let (listener, bound) = http::bind(address).await?;
    Ok((listener, format!("http://{bound}")))
}

//! `up` and `service`.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use kit::{
    bus::{Bus, BusConfig},
    crew::Upstream,
    identity,
    nats_server::{self, Lifetime, NatsServer, StartError},
    service::{self, Check, Context},
    streams::{self, StreamOptions},
    telemetry,
};
use schemas::cli::Running;

use crate::{
    cli::{ServiceOptions, UpOptions},
    endpoints::Endpoints,
    output::{Output, PrintError, Tone},
    project::Project,
    services::{Name, Surroundings, bind_proxy},
    settings::Settings,
    visible,
};

/// How long a service may take to start before the others are announced without it. One that waits for a server that is
/// away has no end.
const STARTED_WITHIN: Duration = Duration::from_secs(10);

/// A nats-server that ends within this time of being started again would end once more: its disk is full, or its store is
/// broken.
const NATS_STAYS_UP: Duration = Duration::from_mins(1);

/// Starts everything and stays until a signal comes.
pub(crate) async fn up(project: Project, options: UpOptions, out: &Output) -> anyhow::Result<()> {
    let identity = project.identity()?;
    std::fs::create_dir_all(project.state(""))
        .with_context(|| format!("{} can not be made", project.state("").display()))?;
    let settings = Settings::read(&project, "nightcrew")?;
    let guard = telemetry::init(&settings.telemetry)?;
    settings.tell();
    let left_out: BTreeSet<Name> = options.without.iter().copied().collect();
    let (mut listener, proxy_url) = if left_out.contains(&Name::BudgetProxy) {
        let url = settings.proxy_url.clone();
        (None, url.context("--without budget-proxy: NIGHTCREW_PROXY_URL says where it is")?)
    } else {
        let (listener, url) = bind_proxy(settings.proxy_listen).await?;
        (Some(listener), url)
    };
    let (mut nats, nats_url) = if let Some(url) = options.nats_url.clone() {
        (None, url)
    } else {
        let nats = start_nats(&project, &identity).await?;
        let url = nats.url();
        (Some(nats), url)
    };
    ensure_streams(&project, &identity, &nats_url, &settings.streams).await?;
    let process = Context::new("nightcrew");
    let rehearsed = !rehearsal_routes(&project).is_empty() && !left_out.contains(&Name::Rehearsal);
    let rehearsal = if rehearsed { Some(start_rehearsal(&settings, options.scenario.clone()).await?) } else { None };
    let Settings { rehearsal_url, worktrees, .. } = settings;
    let rehearsal_url = rehearsal.as_ref().map(rehearsal::Server::url).or(rehearsal_url);
    let logs = guard.logs();
    let surroundings = Surroundings { project, identity, nats_url, proxy_url, rehearsal_url, worktrees, logs };
    endpoints(&surroundings).write(&surroundings.project.state(""))?;
    let body = async {
        for name in Name::ALL.into_iter().filter(|name| *name != Name::Rehearsal && !left_out.contains(name)) {
            let listener = if name == Name::BudgetProxy { listener.take() } else { None };
            Box::pin(surroundings.start(name, &process, listener)).await?;
        }
        process.ready();
        if !started(&process).await {
            return Ok(());
        }
        announce(&running(&surroundings, &process), options.json, out)?;
        if !options.json {
            hint(&surroundings, out)?;
        }
        process.shutdown.cancelled().await;
        anyhow::Ok(())
    };
    let ended = tokio::select! {
        ended = service::run(&process, service::GRACE, body) => ended.map_err(flatten),
        error = keep_up(&mut nats) => Err(error),
    };
    if let Some(rehearsal) = rehearsal {
        rehearsal.stop().await;
    }
    if let Some(nats) = &mut nats {
        nats.stop().await?;
    }
    ended
}

/// Starts nats-server again when it ends by itself, where it was: services reconnect, and go on from the log. Gives the reason
/// when that is no use.
async fn keep_up(nats: &mut Option<NatsServer>) -> anyhow::Error {
    let Some(nats) = nats else { return std::future::pending().await };
    let mut restarted: Option<Instant> = None;
    loop {
        let status = nats.exited().await.map_or_else(|| "nobody knows how".to_owned(), |status| status.to_string());
        if restarted.is_some_and(|restarted| restarted.elapsed() < NATS_STAYS_UP) {
            return anyhow!("nats-server ended again ({status}) within {NATS_STAYS_UP:?}; its log says why");
        }
        tracing::error!(status, "nats-server ended, and is started again");
        restarted = Some(Instant::now());
        if let Err(error) = nats.restart().await {
            return anyhow::Error::new(error).context("nats-server ended and can not be started again");
        }
    }
}

/// Runs one service against a bus that is up.
pub(crate) async fn service(project: Project, options: ServiceOptions, out: &Output) -> anyhow::Result<()> {
    let identity =
        identity::Identity::open(&project.identity_dir()).context("the project has no keys: run `nightcrew init`")?;
    let settings = Settings::read(&project, options.name.as_str())?;
    let guard = telemetry::init(&settings.telemetry)?;
    settings.tell();
    if options.name == Name::Rehearsal {
        let server = rehearsal::Server::configured(rehearsal_config(&settings, options.scenario)).await?;
        let serving = async {
            out.line(&server.url())?;
            std::future::pending::<anyhow::Result<()>>().await
        };
        tokio::select! {
            // Signals first: whoever is told where it is may end it at once.
            biased;
            _ = service::until_signal() => {}
            failed = serving => failed?,
        }
        server.stop().await;
        return Ok(());
    }
    let known = Endpoints::read(&project.state("")).ok();
    let missing =
        "no crew is up in this project: run `nightcrew up`, or give NIGHTCREW_NATS_URL and NIGHTCREW_PROXY_URL";
    let surroundings = Surroundings {
        nats_url: options.nats_url.or_else(|| known.as_ref().map(|known| known.nats_url.clone())).context(missing)?,
        proxy_url: settings
            .proxy_url
            .or_else(|| known.as_ref().map(|known| known.proxy_url.clone()))
            .unwrap_or_default(),
        rehearsal_url: settings.rehearsal_url.or_else(|| known.and_then(|known| known.rehearsal_url)),
        worktrees: settings.worktrees,
        project,
        identity,
        logs: guard.logs(),
    };
    let process = Context::new(options.name.as_str());
    let body = async {
        let listener = match options.name {
            Name::BudgetProxy => Some(bind_proxy(settings.proxy_listen).await?.0),
            _ => None,
        };
        Box::pin(surroundings.start(options.name, &process, listener)).await?;
        process.ready();
        if started(&process).await {
            if options.name == Name::BudgetProxy {
                let Running { rehearsed, problems, .. } = running(&surroundings, &process);
                no_real_model(&rehearsed).into_iter().chain(problems).for_each(|line| tracing::warn!("{line}"));
            }
            tracing::info!("ready");
        }
        process.shutdown.cancelled().await;
        anyhow::Ok(())
    };
    service::run(&process, service::GRACE, body).await.map_err(flatten)
}

async fn start_nats(project: &Project, identity: &identity::Identity) -> anyhow::Result<NatsServer> {
    let settings = nats_server::Settings {
        config_file: identity.config_file(),
        state_dir: project.state("nats"),
        port: None,
        lifetime: Lifetime::WithParent,
        binary: None,
    };
    NatsServer::start(settings).await.map_err(|error| match &error {
        StartError::AlreadyRunning { .. } => {
            anyhow::Error::new(error).context("this project's crew is up already, in another terminal or folder")
        }
        _ => error.into(),
    })
}

async fn ensure_streams(
    project: &Project,
    identity: &identity::Identity,
    nats_url: &str,
    options: &StreamOptions,
) -> anyhow::Result<()> {
    let user = identity::Service::Setup;
    let config = BusConfig {
        urls: kit::bus::urls(nats_url),
        creds: Some(identity.creds_file(user)),
        service: user.name().to_owned(),
        project: project.crew.project.clone(),
    };
    let bus = Bus::connect(&config).await.context("the bus can not be set up")?;
    let report = streams::ensure(&bus, options).await?;
    tracing::info!(
        created = report.created.len(),
        updated = report.updated.len(),
        unchanged = report.unchanged,
        "streams are in order"
    );
    Ok(())
}

/// A rehearsal model as it is set, with the scenarios of the command line if that names any.
fn rehearsal_config(settings: &Settings, scenarios: Vec<PathBuf>) -> rehearsal::Config {
    let config = settings.rehearsal.clone();
    if scenarios.is_empty() { config } else { rehearsal::Config { scenarios, ..config } }
}

/// The rehearsal model of a crew: its own proxy has no key to show.
async fn start_rehearsal(settings: &Settings, scenarios: Vec<PathBuf>) -> anyhow::Result<rehearsal::Server> {
    let config = rehearsal::Config { require_key: None, ..rehearsal_config(settings, scenarios) };
    Ok(rehearsal::Server::configured(config).await?)
}

/// Routes that lead to the rehearsal model, because they say so or have no key.
pub(crate) fn rehearsal_routes(project: &Project) -> Vec<String> {
    let models = &project.crew.models;
    let rehearsed =
        |route: &&String| matches!(models.effective(route, |name| std::env::var(name).ok()), Ok(Upstream::Rehearsal));
    models.routes.keys().filter(rehearsed).cloned().collect()
}

fn endpoints(surroundings: &Surroundings) -> Endpoints {
    Endpoints {
        pid: std::process::id(),
        nats_url: surroundings.nats_url.clone(),
        proxy_url: surroundings.proxy_url.clone(),
        rehearsal_url: surroundings.rehearsal_url.clone(),
    }
}

/// Waits until every service has started, or for long enough. False when the end comes first.
async fn started(process: &Context) -> bool {
    let _ = tokio::select! {
        biased;
        () = process.shutdown.cancelled() => return false,
        started = tokio::time::timeout(STARTED_WITHIN, until_started(process)) => started,
    };
    true
}

/// Waits until every service has started. One that has, and is not well, does not keep the others from being used.
async fn until_started(process: &Context) {
    let mut checks = process.health.subscribe();
    while checks.borrow_and_update().values().any(|check| *check == Check::Starting) {
        if checks.changed().await.is_err() {
            return;
        }
    }
}

/// The service's own error as it is; the others as errors.
fn flatten(error: service::RunError<anyhow::Error>) -> anyhow::Error {
    match error {
        service::RunError::Service(error) => error,
        service::RunError::Ended(ended) => ended.into(),
        service::RunError::Grace { grace } => {
            anyhow::anyhow!("not everything was done within {grace:?}; it goes on from the log")
        }
    }
}

/// What is up.
fn running(surroundings: &Surroundings, process: &Context) -> Running {
    let crew = &surroundings.project.crew;
    let (mut rehearsed, mut problems) = (rehearsal_routes(&surroundings.project), process.health.report().problems());
    if surroundings.rehearsal_url.is_none() {
        let refused =
            |route| format!("model {route}: it has no key and no rehearsal model runs, so its calls are refused");
        problems.extend(rehearsed.drain(..).map(refused));
    }
    Running {
        project: crew.project.clone(),
        agents: crew.agents.iter().map(|agent| agent.name.clone()).collect(),
        nats_url: surroundings.nats_url.clone(),
        proxy_url: surroundings.proxy_url.clone(),
        rehearsed,
        problems,
    }
}

/// Says that the crew is up, plainly when no model will answer, and what to do next. A reader that hung up is no reason to
/// end.
fn announce(running: &Running, json: bool, out: &Output) -> Result<(), PrintError> {
    let printed =
        if json { out.json_line(running) } else { announcement(running).iter().try_for_each(|l| out.line(l)) };
    hung_up_is_fine(printed)
}

fn hung_up_is_fine(printed: Result<(), PrintError>) -> Result<(), PrintError> {
    match printed {
        Err(PrintError::Closed) => Ok(()),
        printed => printed,
    }
}

/// What to do next: words to the agent that the terminal's talk goes to.
fn hint(surroundings: &Surroundings, out: &Output) -> Result<(), PrintError> {
    if surroundings.project.crew.channels.terminal.is_none() {
        return Ok(());
    }
    let line = format!("from another terminal: {} say \"what is in this repo?\"", own_name());
    hung_up_is_fine(out.line(&out.tone(Tone::Quiet, &visible::line(&line))))
}

/// How this program is called at a prompt: by its name where the shell finds it so.
fn own_name() -> String {
    const NAME: &str = "nightcrew";
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(NAME).is_file()));
    match std::env::current_exe() {
        Ok(own) if !found => own.display().to_string(),
        _ => NAME.to_owned(),
    }
}

fn announcement(running: &Running) -> Vec<String> {
    let Running { project, agents, nats_url, proxy_url, rehearsed, problems } = running;
    let names = agents.iter().map(schemas::AgentName::as_str).collect::<Vec<_>>().join(", ");
    let mut lines =
        vec![format!("the crew of {project} is up: {names}"), format!("bus {nats_url}, models {proxy_url}")];
    lines.extend(no_real_model(rehearsed));
    lines.extend(problems.iter().map(|problem| format!("not well: {}", visible::line(problem))));
    lines
}

/// Says plainly when no real model will answer.
fn no_real_model(routes: &[String]) -> Option<String> {
    let plural = if routes.len() == 1 { "" } else { "s" };
    (!routes.is_empty()).then(|| {
        format!(
            "no key is configured for model route{plural} {}: the rehearsal model answers, and no real model is asked",
            routes.join(", ")
        )
    })
}

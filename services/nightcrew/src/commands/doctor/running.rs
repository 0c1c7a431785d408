//! The crew, if it is up: its bus, the room in its log, its services, what they could not handle.

use std::time::Duration;

use kit::{bus::Bus, class::chain, dead, fill::REFUSE_AT_PERCENT, journal::STREAM, service::ask_health};
use schemas::cli::{Examined, Verdict};

use super::{bad, good, skipped, weak};
use crate::{
    cli::Reach, commands::show, connected::Connected, endpoints::Endpoints, project::Project, services::Name, up,
};

/// From here on the log is being archived.
const ARCHIVES_AT_PERCENT: u64 = 60;

/// Parked messages that are counted.
const MOST_PARKED: usize = 1000;

/// How long the rehearsal model may take to answer: it is on this machine.
const REHEARSAL_WITHIN: Duration = Duration::from_secs(2);

/// Everything about a crew that is up.
pub(super) async fn crew(project: Project, reach: &Reach) -> Vec<Examined> {
    let is_up = reach.nats_url.is_some() || Endpoints::read(&project.state("")).is_ok();
    let crew = match Connected::open(project, reach).await {
        Ok(crew) => crew,
        Err(error) => {
            let bus = if is_up && reach.nats_url.is_some() {
                bad(
                    "bus",
                    format!("{error:#}"),
                    "is NIGHTCREW_NATS_URL right, and has it loaded what `nightcrew init` prints?",
                )
            } else {
                skipped("bus", format!("{error:#}"))
            };
            return vec![bus, skipped("services", "there is no bus to ask them by")];
        }
    };
    let mut checks = vec![bus(&crew.bus), log(&crew.bus).await];
    if reach.nats_url.is_none() {
        checks.extend(rehearsal(&crew.project).await);
    }
    for name in Name::ALL.into_iter().filter(|name| *name != Name::Rehearsal) {
        checks.push(service(&crew.bus, name).await);
    }
    checks.push(parked(&crew.bus).await);
    checks
}

fn bus(bus: &Bus) -> Examined {
    let info = bus.client().server_info();
    let at = format!("{}:{}", info.host, info.port);
    Examined {
        version: Some(info.version.clone()),
        ..good("bus", format!("nats-server at {at}, as user {}", bus.service()))
    }
}

/// How full the log is.
async fn log(bus: &Bus) -> Examined {
    const CHECK: &str = "log";
    let stream = match bus.jetstream().get_stream(STREAM).await {
        Ok(stream) => stream,
        Err(error) => return bad(CHECK, format!("there is no log: {}", chain(&error)), "`nightcrew up` makes it"),
    };
    let info = stream.cached_info();
    let most = u64::try_from(info.config.max_bytes).unwrap_or(0);
    let percent = info.state.bytes.saturating_mul(100).checked_div(most).unwrap_or(0);
    let found = format!("{percent} % full, {}", show::counted(info.state.messages, "message"));
    match percent {
        percent if percent >= REFUSE_AT_PERCENT => bad(
            CHECK,
            format!("{found}: new runs are refused"),
            "let run-correlator archive ended runs, or give it more room: NIGHTCREW_LOG_BYTES of `nightcrew up`",
        ),
        percent if percent >= ARCHIVES_AT_PERCENT => weak(CHECK, found, "ended runs are being archived"),
        _ => good(CHECK, found),
    }
}

/// The rehearsal model of a crew on this machine. It is on no bus, so it is asked where `up` wrote that it listens.
async fn rehearsal(project: &Project) -> Option<Examined> {
    let check = Name::Rehearsal.as_str();
    let advice = "start the crew with it: `nightcrew up`; or give the crew the models' keys";
    let Some(url) = Endpoints::read(&project.state("")).ok()?.rehearsal_url else {
        // Whether the crew has the keys can not be seen from another terminal.
        let played = up::rehearsal_routes(project);
        let found = format!("it does not run, and no key for {} is seen from here", played.join(", "));
        return (!played.is_empty()).then(|| weak(check, found, advice));
    };
    let asked = async {
        let client = reqwest::Client::builder().no_proxy().timeout(REHEARSAL_WITHIN).build()?;
        client.get(format!("{url}/rehearsal/health")).send().await?.error_for_status()
    };
    Some(match asked.await {
        Ok(_) => good(check, format!("listens at {url}")),
        Err(error) => bad(check, chain(&error), advice),
    })
}

/// A service, by what it says of itself.
async fn service(bus: &Bus, name: Name) -> Examined {
    let (check, spare) = (name.as_str(), is_spare(name));
    match ask_health(bus, check).await {
        Ok(report) if report.ready => good(check, "ready"),
        Ok(report) => {
            let verdict = if spare { Verdict::Weak } else { Verdict::Bad };
            Examined { verdict, ..bad(check, report.problems().join("\n"), "its log lines say more") }
        }
        Err(error) => bad(check, chain(&error), format!("start it: `nightcrew up`, or `nightcrew service {check}`")),
    }
}

/// Whether runs go on while the service runs and is not well: a room is silent, or a summary is late.
const fn is_spare(name: Name) -> bool {
    matches!(name, Name::ChatBridge | Name::RunCorrelator)
}

/// What could not be handled.
async fn parked(bus: &Bus) -> Examined {
    const CHECK: &str = "parked messages";
    match dead::list(bus, 1, MOST_PARKED).await {
        Ok(parked) if parked.is_empty() => good(CHECK, "none"),
        Ok(parked) => {
            weak(CHECK, show::counted(parked.len() as u64, "message"), "`nightcrew dead list`, then replay or drop")
        }
        Err(error) => weak(CHECK, chain(&error), "`nightcrew dead list`"),
    }
}

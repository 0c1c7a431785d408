//! The crew, if it is up: its bus, the room in its log, its services, what they could not handle.

use kit::{
    bus::Bus,
    class::chain,
    consumer::{self, Durable},
    dead,
    fill::REFUSE_AT_PERCENT,
    journal::STREAM,
    service::{HealthAskError, ask_health},
};
use schemas::cli::{Examined, Verdict};

use super::{bad, good, skipped, weak};
use crate::{
    cli::Reach,
    commands::{agents::is_pulled, show},
    connected::Connected,
    project::Project,
};

/// From here on the log is being archived.
const ARCHIVES_AT_PERCENT: u64 = 60;

/// Parked messages that are counted.
const MOST_PARKED: usize = 1000;

/// Services, whether the crew can do without them for a while, and a consumer that each pulls from.
const SERVICES: [(&str, bool, Option<Durable>); 5] = [
    ("issuer", false, None),
    ("budget-proxy", false, None),
    ("agent-runner", false, Some(consumer::RUNNER_WAKE)),
    ("chat-bridge", true, Some(consumer::CHAT_TERMINAL)),
    ("run-correlator", true, Some(consumer::CORRELATOR_RUNS)),
];

/// Everything about a crew that is up.
pub(super) async fn crew(project: Project, reach: &Reach) -> Vec<Examined> {
    let is_up = reach.nats_url.is_some() || crate::endpoints::Endpoints::read(&project.state("")).is_ok();
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
    for (name, spare, durable) in SERVICES {
        checks.push(service(&crew.bus, name, spare, durable).await);
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
            "let run-correlator archive ended runs, or give it more room",
        ),
        percent if percent >= ARCHIVES_AT_PERCENT => weak(CHECK, found, "ended runs are being archived"),
        _ => good(CHECK, found),
    }
}

/// A service by what it says of itself; one that does not say is looked for where it works.
async fn service(bus: &Bus, name: &str, spare: bool, durable: Option<Durable>) -> Examined {
    let missing = |found: String| {
        let advice = format!("start it: `nightcrew up`, or `nightcrew service {name}`");
        if spare { weak(name, found, advice) } else { bad(name, found, advice) }
    };
    match ask_health(bus, name).await {
        Ok(report) if report.ready => good(name, "ready"),
        Ok(report) => {
            let problems = report.problems().join("\n");
            let advice = "its log lines say more";
            Examined { verdict: if spare { Verdict::Weak } else { Verdict::Bad }, ..bad(name, problems, advice) }
        }
        Err(HealthAskError::Absent(_)) => match durable {
            Some(durable) if is_pulled(bus, &durable).await == Some(true) => {
                good(name, "works, and does not say how it is")
            }
            _ => missing("nobody answers".to_owned()),
        },
        Err(error) => missing(chain(&error)),
    }
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

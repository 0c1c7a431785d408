//! What is parked is told.

use std::io;

use kit::dead;
use kit::logs::{Level, Limits, LogStore};
use kit::service::{Check, Context};
use kit::telemetry::{self, Format, Output, TelemetryConfig};
use run_correlator::Config;

use crate::log::*;
use crate::story::*;

async fn until_check(service: &Context, wanted: impl Fn(&Check) -> bool) {
    eventually("check of dead letters", async || {
        let report = service.health.report();
        report.checks.get("dead letters").filter(|check| wanted(check)).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn what_is_parked_makes_health_red_and_is_a_line_of_its_runs_log() {
    let log = Log::start().await;
    let folder = log.logs.dir().with_file_name("told");
    let config = TelemetryConfig {
        service: "run-correlator".to_owned(),
        format: Format::Json,
        filter: "info".to_owned(),
        log_dir: Some(folder.clone()),
    };
    let (subscriber, guard) = telemetry::subscriber(&config, Output::json(io::sink())).unwrap();
    let _logging = tracing::subscriber::set_default(subscriber);
    let service = log.serve(Config::SHIPPED);
    until_check(&service, |check| *check == Check::Green).await;

    let run = run_of(1);
    let story = Story::asked("x");
    let first = &story.evidence.journal[0];
    let trigger = decision_message(run, own_id(run, &first.id), &first.decision);
    dead::park_outgoing(&log.runner, &trigger, "unroutable", "nobody is there").await.unwrap();
    until_check(&service, |check| matches!(check, Check::Warn(why) if why.contains("1 message"))).await;
    let letter = dead::list(&log.cli, 1, 10).await.unwrap().remove(0);
    dead::drop(&log.cli, letter.sequence).await.unwrap();
    until_check(&service, |check| *check == Check::Green).await;
    stop(service).await;
    drop(guard);

    let lines = LogStore::at(folder, Limits::SHIPPED).lines_of(run).unwrap().lines;
    let told: Vec<_> = lines.iter().filter(|line| line.target.ends_with("parked")).collect();
    assert_eq!(told.len(), 1, "{lines:#?}");
    assert_eq!(told[0].level, Level::Error);
    assert_eq!((&told[0].fields["code"], &told[0].fields["reason"]), (&"unroutable".into(), &"nobody is there".into()));
    assert!(told[0].message.contains(&format!("nightcrew dead show {}", letter.sequence)), "{}", told[0].message);
}

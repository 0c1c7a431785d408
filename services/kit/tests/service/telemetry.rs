//! Log lines carry their run, in text, in JSON and in the store.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

use kit::{
    logs::{Level, Limits, LogStore},
    telemetry::{self, Format, Output, TelemetryConfig, TelemetryError},
};
use schemas::{AgentName, RunId};
use tracing::subscriber::with_default;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn config(filter: &str) -> TelemetryConfig {
    TelemetryConfig { service: "test-service".into(), format: Format::Auto, filter: filter.into(), log_dir: None }
}

fn run() -> (RunId, AgentName) {
    (RunId::from_uuid(kit::clock::uuid7()), AgentName::try_new("coder").unwrap())
}

/// What `write` logs, as text without colours.
fn text(filter: &str, write: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let (subscriber, _guard) = telemetry::subscriber(&config(filter), Output::text(buffer.clone(), false)).unwrap();
    with_default(subscriber, write);
    buffer.text()
}

/// What `write` logs, as JSON values.
fn json(write: impl FnOnce()) -> Vec<serde_json::Value> {
    let buffer = Buffer::default();
    let (subscriber, _guard) = telemetry::subscriber(&config("info"), Output::json(buffer.clone())).unwrap();
    with_default(subscriber, write);
    buffer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_line_inside_a_run_carries_it_after_the_target() {
    let (run, agent) = run();
    let text = text("info", || {
        tracing::info!("outside");
        let _entered = telemetry::run_span(run, &agent).entered();
        let _inner = tracing::info_span!("step", step = 3).entered();
        tracing::warn!(tool = "shell", millis = 12, note = "two words", "called");
    });

    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].ends_with("INFO service::telemetry outside"), "{text}");
    let expected =
        format!("WARN service::telemetry [run={run}] called agent=coder millis=12 note=\"two words\" tool=shell");
    assert!(lines[1].ends_with(&expected), "{text}\nshould end with\n{expected}");
}

#[test]
fn no_filter_loses_the_run() {
    let (run, agent) = run();
    let text = text("error", || {
        let _entered = telemetry::run_span(run, &agent).entered();
        tracing::info!("filtered out");
        tracing::error!("bad");
    });
    assert_eq!(text.lines().count(), 1);
    assert!(text.contains(&format!("[run={run}] bad")), "{text}");
}

#[test]
fn json_has_the_run_and_the_service_at_the_top() {
    let (run, agent) = run();
    let lines = json(|| {
        let _service = telemetry::service_span("agent-runner").entered();
        let _entered = telemetry::run_span(run, &agent).entered();
        tracing::info!(attempt = 2, "resumed");
    });
    assert_eq!(lines[0]["run_id"], run.to_string());
    assert_eq!(lines[0]["service"], "agent-runner");
    assert_eq!(lines[0]["level"], "info");
    assert_eq!(lines[0]["message"], "resumed");
    assert_eq!(lines[0]["fields"]["attempt"], 2);
    assert_eq!(lines[0]["fields"]["agent"], "coder");
}

#[test]
fn a_run_named_by_the_event_itself_counts() {
    let (run, _) = run();
    let lines = json(|| {
        tracing::info!(%run, "about a run");
        tracing::info!(run = "not an id", "about something else");
    });
    assert_eq!(lines[0]["run_id"], run.to_string());
    assert_eq!(lines[1].get("run_id"), None);
    assert_eq!(lines[1]["fields"]["run"], "not an id");
}

#[test]
fn an_error_is_logged_with_all_of_its_causes() {
    #[derive(Debug, thiserror::Error)]
    #[error("can not save the worktree")]
    struct Outer(#[source] io::Error);

    let error = Outer(io::Error::other("disk full"));
    let lines = json(|| tracing::error!(error = &error as &dyn std::error::Error, "gave up"));
    assert_eq!(lines[0]["fields"]["error"], "can not save the worktree: disk full");
}

#[test]
fn a_message_can_not_pretend_to_be_several_lines() {
    let text = text("info", || {
        tracing::info!(error = "one\ntwo", "first\n2026-01-01T00:00:00Z ERROR forged \x1b[2J");
    });
    let wanted = "first\\n2026-01-01T00:00:00Z ERROR forged \\u{1b}[2J error=\"one\\ntwo\"\n";
    assert!(text.ends_with(wanted) && text.lines().count() == 1, "{text}");
}

#[test]
fn a_panic_is_one_line_under_its_run() {
    let (run, agent) = run();
    let before = std::panic::take_hook();
    let text = text("info", || {
        telemetry::log_panics();
        let _entered = telemetry::run_span(run, &agent).entered();
        std::panic::catch_unwind(|| panic!("out of\nluck")).unwrap_err();
    });
    std::panic::set_hook(before);
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains(&format!("[run={run}] panicked")), "{text}");
    assert!(text.contains("reason=\"out of\\nluck\"") && text.contains("telemetry.rs:"), "{text}");
}

#[test]
fn colours_are_used_only_when_asked_for() {
    let buffer = Buffer::default();
    let (subscriber, _guard) = telemetry::subscriber(&config("info"), Output::text(buffer.clone(), true)).unwrap();
    with_default(subscriber, || tracing::info!("hello"));
    assert!(buffer.text().contains('\x1b'));
    assert!(!text("info", || tracing::info!("hello")).contains('\x1b'));
}

#[test]
fn lines_of_a_run_are_in_the_store() {
    let dir = tempfile::tempdir().unwrap();
    let (run, agent) = run();
    let config = TelemetryConfig { log_dir: Some(dir.path().join("logs")), ..config("info") };
    let (subscriber, guard) = telemetry::subscriber(&config, Output::text(io::sink(), false)).unwrap();
    with_default(subscriber, || {
        tracing::info!("of nobody");
        let _entered = telemetry::run_span(run, &agent).entered();
        tracing::error!("of the run");
    });
    drop(guard);

    let found = LogStore::open(dir.path().join("logs"), Limits::SHIPPED).unwrap().lines_of(run).unwrap();
    assert_eq!(found.lines.len(), 1);
    assert_eq!(found.lines[0].message, "of the run");
    assert_eq!(found.lines[0].level, Level::Error);
    assert_eq!(found.expired_before, None);
}

#[test]
fn a_filter_that_is_none_is_an_error() {
    let result = telemetry::subscriber(&config("agent_runner=loud"), Output::text(io::sink(), false));
    assert!(matches!(result.map(|_| ()), Err(TelemetryError::Filter { .. })));
}

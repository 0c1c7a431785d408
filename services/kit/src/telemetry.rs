//! Log lines of this process: to standard error for people and collectors, and into the [store](crate::logs) that timelines read.
//!
//! A line that is written inside a span with a field `run` carries that run: as `[run=<id>]` in text, as `run_id` in
//! JSON. Use [`run_span`]. Lines go to standard error because standard output belongs to what a command answers.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    io::IsTerminal,
    path::PathBuf,
    str::FromStr,
};

use schemas::{AgentName, RunId};
use tracing::Span;
use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::Reader,
    logs::{Limits, LogSink, LogStore, SinkGuard},
};

mod capture;
mod output;

pub use capture::Capture;
pub use output::{Output, text_line};

/// What is logged when nothing else is said: our own `info`, and of chatty libraries only what matters.
pub const DEFAULT_FILTER: &str = "info,async_nats=warn,hyper=warn,matrix_sdk=warn,matrix_sdk::http_client=off,matrix_sdk_base=warn,\
    matrix_sdk_crypto=warn,matrix_sdk_sqlite=warn,matrix_sdk_ui=warn";

/// How lines look on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err(UnknownFormat),
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

/// A text that names no [`Format`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not auto, text or json")]
pub struct UnknownFormat;

/// What is logged, how and where.
#[derive(Debug, Clone)]
pub struct TelemetryConfig {
    /// The service, for lines outside of any service's span.
    pub service: String,
    /// How lines look on standard error.
    pub format: Format,
    /// Directives of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// Where lines are stored for timelines.
    pub log_dir: Option<PathBuf>,
}

impl TelemetryConfig {
    /// Reads `NIGHTCREW_LOG` and `NIGHTCREW_LOG_FORMAT`.
    pub fn read(reader: &mut Reader<'_>, service: &str, log_dir: Option<PathBuf>) -> Self {
        let filter = reader.value("LOG", "filter directives", DEFAULT_FILTER.to_owned());
        if EnvFilter::try_new(&filter).is_err() {
            reader.reject("LOG", "filter directives such as info or warn,agent_runner=debug");
        }
        let format = reader.value("LOG_FORMAT", "auto, text or json", Format::Auto);
        Self { service: service.to_owned(), format, filter, log_dir }
    }
}

/// Logging can not start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("{filter:?} is not a log filter")]
    Filter {
        /// What was given.
        filter: String,
        /// Why not.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The directory of stored lines can not be used.
    #[error("can not store log lines in {dir}")]
    Store {
        /// Which directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Logging was started before in this process.
    #[error("logging was started already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps logging going; dropping it writes what is still queued for the store.
#[derive(Debug)]
#[must_use = "dropping it ends the storing of log lines"]
pub struct Guard {
    sink: Option<(LogSink, SinkGuard)>,
}

impl Guard {
    /// Where tools' output goes, when lines are stored.
    pub fn logs(&self) -> Option<LogSink> {
        self.sink.as_ref().map(|(sink, _)| sink.clone())
    }
}

/// Starts logging for the whole process.
pub fn init(config: &TelemetryConfig) -> Result<Guard, TelemetryError> {
    let terminal = std::io::stderr().is_terminal();
    let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let output = match config.format {
        Format::Json => Output::json(std::io::stderr()),
        Format::Auto if !terminal => Output::json(std::io::stderr()),
        Format::Auto | Format::Text => Output::text(std::io::stderr(), terminal && !no_color),
    };
    let (subscriber, guard) = subscriber(config, output)?;
    subscriber.try_init().map_err(TelemetryError::Twice)?;
    log_panics();
    Ok(guard)
}

/// From now on a panic of this process is a log line like any other, under the service and the run in which it happened; with
/// its backtrace when `RUST_BACKTRACE` asks for one.
pub fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        let location = panic.location().map(ToString::to_string);
        let reason = panic.payload_as_str().unwrap_or("no reason was given");
        tracing::error!(reason, location, backtrace, "panicked");
    }));
}

/// What [`init`] installs, for tests that use it for a while (`tracing::subscriber::with_default`).
pub fn subscriber(
    config: &TelemetryConfig,
    output: Output,
) -> Result<(impl tracing::Subscriber + Send + Sync + 'static, Guard), TelemetryError> {
    let filter = EnvFilter::try_new(&config.filter)
        .map_err(|source| TelemetryError::Filter { filter: config.filter.clone(), source })?;
    let sink = config.log_dir.as_ref().map(|dir| open_sink(dir, &config.service)).transpose()?;
    let capture = Capture::new(&config.service, output, sink.as_ref().map(|(sink, _)| sink.clone()));
    Ok((Registry::default().with(capture.with_filter(filter)), Guard { sink }))
}

fn open_sink(dir: &PathBuf, service: &str) -> Result<(LogSink, SinkGuard), TelemetryError> {
    LogStore::open(dir, Limits::SHIPPED)
        .and_then(|store| LogSink::start(&store, service))
        .map_err(|source| TelemetryError::Store { dir: dir.clone(), source })
}

/// The span in which everything about a run happens. Its level is the highest, so that no filter loses the run's id.
pub fn run_span(run_id: RunId, agent: &AgentName) -> Span {
    tracing::error_span!("run", run = %run_id, agent = %agent)
}

/// The span in which everything that a service does happens, for processes that have several.
pub fn service_span(service: &str) -> Span {
    tracing::error_span!("service", service)
}

/// An error and all of its causes on one line: logged once, where it is handled.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

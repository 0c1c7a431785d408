//! One log line: the form in which it is stored, and printed where a program reads it.

use jiff::Timestamp;
use schemars::JsonSchema;
use schemas::RunId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A stored line with its newline. Longer ones are cut: a log line is read by a person.
pub const MAX_LINE_BYTES: usize = 32 * 1024;

/// What is kept of a message: with every character escaped as six bytes it leaves room for the rest.
const MAX_MESSAGE_BYTES: usize = 4 * 1024;

/// What is kept of all fields together, encoded.
const MAX_FIELDS_BYTES: usize = 4 * 1024;

/// What is kept of a service's or target's name.
const MAX_LABEL_BYTES: usize = 128;

/// The field that says that something of the line was cut.
const TRUNCATED: &str = "truncated";

/// How much a line matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something is lost or has to be looked at.
    Error,
    /// Something is not as it should be, and was coped with.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Everything.
    Trace,
}

impl Level {
    /// Its name in capitals.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::INFO => Self::Info,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::TRACE => Self::Trace,
        }
    }
}

/// Which output of a tool a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LogLine {
    /// When.
    pub time: Timestamp,
    /// The service that wrote it, or that ran the tool.
    pub service: String,
    /// How much it matters; a tool's output is `info`.
    pub level: Level,
    /// The run that it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<RunId>,
    /// Where in the code it was written, or the tool's name.
    pub target: String,
    /// What it says.
    pub message: String,
    /// Set for a tool's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Stream>,
    /// Everything else that it says.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub fields: Map<String, Value>,
}

impl LogLine {
    /// A line of a tool's output.
    pub fn tool_output(time: Timestamp, service: &str, run_id: RunId, tool: &str, stream: Stream, text: &str) -> Self {
        Self {
            time,
            service: service.to_owned(),
            level: Level::Info,
            run_id: Some(run_id),
            target: tool.to_owned(),
            message: text.to_owned(),
            stream: Some(stream),
            fields: Map::new(),
        }
    }

    /// The line as it is stored, newline included, cut to [`MAX_LINE_BYTES`].
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut line = to_json(self);
        if line.len() >= MAX_LINE_BYTES {
            line = to_json(&self.cut());
        }
        line.push(b'\n');
        line
    }

    fn cut(&self) -> Self {
        let mut fields = Map::new();
        let mut room = MAX_FIELDS_BYTES;
        for (name, value) in &self.fields {
            let size = name.len() + value.to_string().len();
            if size <= room {
                room -= size;
                fields.insert(name.clone(), value.clone());
            }
        }
        fields.insert(TRUNCATED.to_owned(), Value::Bool(true));
        Self {
            service: head(&self.service, MAX_LABEL_BYTES).to_owned(),
            target: head(&self.target, MAX_LABEL_BYTES).to_owned(),
            message: head(&self.message, MAX_MESSAGE_BYTES).to_owned(),
            fields,
            ..self.clone()
        }
    }
}

/// JSON of a line. Its types have no map with other keys than strings and no failing serializer.
pub(crate) fn to_json(line: &LogLine) -> Vec<u8> {
    serde_json::to_vec(line).unwrap_or_default()
}

/// The beginning of `text`, cut between characters.
fn head(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

//! Lines on standard error, as text or as JSON.

use std::{
    fmt::Write as _,
    io::Write,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use crate::logs::{self, Level, LogLine};

/// Where lines are printed.
pub struct Output {
    writer: Mutex<Box<dyn Write + Send>>,
    form: Form,
}

enum Form {
    Json,
    Text { colours: bool },
}

impl Output {
    /// Prints a JSON object a line.
    pub fn json(writer: impl Write + Send + 'static) -> Self {
        Self { writer: Mutex::new(Box::new(writer)), form: Form::Json }
    }

    /// Prints text.
    pub fn text(writer: impl Write + Send + 'static, colours: bool) -> Self {
        Self { writer: Mutex::new(Box::new(writer)), form: Form::Text { colours } }
    }

    pub(super) fn write(&self, line: &LogLine) {
        let mut bytes = match self.form {
            Form::Json => logs::to_json(line),
            Form::Text { colours } => text_line(line, colours).into_bytes(),
        };
        bytes.push(b'\n');
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nowhere left to say that standard error is closed.
        let _ = writer.write_all(&bytes);
    }
}

const RESET: &str = "\x1b[0m";
const DIM: &str = "\x1b[2m";

const fn colour(level: Level) -> &'static str {
    match level {
        Level::Error => "\x1b[31m",
        Level::Warn => "\x1b[33m",
        Level::Info => "\x1b[32m",
        Level::Debug => "\x1b[34m",
        Level::Trace => "\x1b[35m",
    }
}

/// A line for people, without a newline at its end: time, level, target, run, message, fields.
pub fn text_line(line: &LogLine, colours: bool) -> String {
    let paint = |code: &'static str| if colours { code } else { "" };
    let mut text = format!(
        "{dim}{time:.3}{reset} {colour}{level:>5}{reset} {dim}{target}{reset}",
        dim = paint(DIM),
        time = line.time,
        reset = paint(RESET),
        colour = paint(colour(line.level)),
        level = line.level.name(),
        target = line.target,
    );
    if let Some(run) = line.run_id {
        push(&mut text, format_args!(" [run={run}]"));
    }
    push(&mut text, format_args!(" {}", harmless(&line.message)));
    for (name, value) in &line.fields {
        push(&mut text, format_args!(" {}{name}={}", paint(DIM), paint(RESET)));
        match value {
            Value::String(value) if is_bare(value) => text.push_str(value),
            value => push(&mut text, format_args!("{value}")),
        }
    }
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _ = text.write_fmt(arguments);
}

fn is_bare(value: &str) -> bool {
    !value.is_empty() && !value.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=')
}

/// A message as it may be printed: on one line, so that no part of it looks like a log line of its own, and without
/// control characters that could drive the terminal.
fn harmless(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for c in message.trim_end().chars() {
        match c {
            '\t' => text.push(c),
            c if c.is_control() => text.extend(c.escape_default()),
            c => text.push(c),
        }
    }
    text
}

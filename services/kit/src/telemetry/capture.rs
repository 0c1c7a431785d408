//! Turns a tracing event and the spans around it into one [`LogLine`], and hands that to the outputs.

use std::{error::Error, fmt::Debug};

use schemas::RunId;
use serde_json::{Map, Value};
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, layer::Context, registry::LookupSpan};

use super::Output;
use crate::{
    clock,
    logs::{LogLine, LogSink},
};

/// The field of a span or event that holds the run's id.
const RUN: &str = "run";
/// The field of a span that names the service.
const SERVICE: &str = "service";
/// The field of a span that names the agent; it is put on every line inside.
const AGENT: &str = "agent";

/// The layer that makes log lines.
pub struct Capture {
    service: String,
    output: Output,
    sink: Option<LogSink>,
}

impl Capture {
    pub(super) fn new(service: &str, output: Output, sink: Option<LogSink>) -> Self {
        Self { service: service.to_owned(), output, sink }
    }
}

/// What a span says about every line inside it.
#[derive(Default)]
struct Facts {
    run: Option<String>,
    service: Option<String>,
    agent: Option<String>,
}

impl Facts {
    fn set(&mut self, field: &Field, value: String) {
        match field.name() {
            RUN => self.run = Some(value),
            SERVICE => self.service = Some(value),
            AGENT => self.agent = Some(value),
            _ => {}
        }
    }

    /// Takes from an outer span what the inner ones do not say.
    fn fill_from(&mut self, outer: &Self) {
        let fill = |mine: &mut Option<String>, theirs: &Option<String>| {
            if mine.is_none() {
                mine.clone_from(theirs);
            }
        };
        fill(&mut self.run, &outer.run);
        fill(&mut self.service, &outer.service);
        fill(&mut self.agent, &outer.agent);
    }
}

impl Visit for Facts {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if matches!(field.name(), RUN | SERVICE | AGENT) {
            self.set(field, format!("{value:?}"));
        }
    }
}

impl<S> Layer<S> for Capture
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut facts = Facts::default();
        attributes.record(&mut facts);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(facts);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(facts) = span.extensions_mut().get_mut::<Facts>()
        {
            values.record(facts);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut said = Said::default();
        event.record(&mut said);
        let mut facts = Facts { run: said.run.take(), ..Facts::default() };
        for span in context.event_scope(event).into_iter().flatten() {
            if let Some(outer) = span.extensions().get::<Facts>() {
                facts.fill_from(outer);
            }
        }
        let line = self.line(event, said, facts);
        self.output.write(&line);
        if let Some(sink) = &self.sink {
            sink.try_append(line);
        }
    }
}

impl Capture {
    fn line(&self, event: &Event<'_>, said: Said, facts: Facts) -> LogLine {
        let mut fields = said.fields;
        if let Some(agent) = facts.agent {
            fields.entry(AGENT).or_insert(Value::String(agent));
        }
        let run_id = facts.run.as_deref().and_then(|run| run.parse::<RunId>().ok());
        if let (None, Some(run)) = (run_id, facts.run) {
            fields.insert(RUN.to_owned(), Value::String(run));
        }
        let metadata = event.metadata();
        LogLine {
            time: clock::now(),
            service: facts.service.unwrap_or_else(|| self.service.clone()),
            level: (*metadata.level()).into(),
            run_id,
            target: said.log_target.unwrap_or_else(|| metadata.target().to_owned()),
            message: said.message,
            stream: None,
            fields,
        }
    }
}

/// What an event says.
#[derive(Default)]
struct Said {
    message: String,
    run: Option<String>,
    log_target: Option<String>,
    fields: Map<String, Value>,
}

impl Said {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            (RUN, Value::String(text)) => self.run = Some(text),
            // Libraries that use the `log` crate put their metadata into fields.
            ("log.target", Value::String(text)) => self.log_target = Some(text),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                self.fields.insert(name.to_owned(), value);
            }
        }
    }
}

impl Visit for Said {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, Value::from(value));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, Value::from(value));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn Error + 'static)) {
        self.set(field, Value::from(crate::telemetry::chain(value)));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.set(field, Value::from(format!("{value:?}")));
    }
}

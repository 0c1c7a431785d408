//! Samples of everything that was ever written to a log, in `tests/golden/<type>/`. They decode forever: a sample is
//! never changed or deleted, only added.
//!
//! `<kind>.json` is complete and re-encodes to itself; `<kind>.min.json` lacks what may be absent, which is what holds
//! that a new field is optional. Words between the kind and `.json` tell several samples of one kind apart.

use std::{collections::BTreeSet, fmt::Debug, fs, path::Path};

use schemars::JsonSchema;
use schemas::{
    Block, Decision, RunEvent, SavedState, Signal, Trigger, call::ModelCall, control::Control, dead::DeadLetter,
    public::PublicEvent, published::publish, summary::RunSummary,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) value: Value,
}

impl Sample {
    /// The first word of the file's name.
    pub(crate) fn kind(&self) -> &str {
        self.name.split('.').next().unwrap()
    }

    fn is_complete(&self) -> bool {
        self.name.split('.').next_back() != Some("min")
    }
}

/// The samples of a type, by name.
pub(crate) fn samples(of: &str) -> Vec<Sample> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(of);
    let entries = fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut samples: Vec<_> = entries
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().strip_suffix(".json").unwrap().to_owned();
            let value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
            Sample { name, value }
        })
        .collect();
    samples.sort_by(|a, b| a.name.cmp(&b.name));
    samples
}

/// Every sample decodes, re-encodes, is valid by the schema, and may have got more fields since.
fn hold<T>(of: &'static str)
where
    T: DeserializeOwned + Serialize + JsonSchema + PartialEq + Debug,
{
    let schema = publish::<T>(of).schema;
    let validator = jsonschema::options().should_validate_formats(true).build(schema.as_value()).unwrap();
    let valid = |name: &str, value: &Value| {
        let errors: Vec<_> = validator.iter_errors(value).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{of}/{name} is not valid by its schema: {errors:#?}");
    };
    for sample in samples(of) {
        let name = &sample.name;
        let decoded: T = serde_json::from_value(sample.value.clone())
            .unwrap_or_else(|error| panic!("{of}/{name} does not decode any more: {error}"));
        let encoded = serde_json::to_value(&decoded).unwrap();
        if sample.is_complete() {
            assert_eq!(encoded, sample.value, "{of}/{name} does not re-encode to itself");
        }
        let again: T = serde_json::from_value(encoded.clone()).unwrap();
        assert_eq!(again, decoded, "{of}/{name} changes when it is read again");
        valid(name, &sample.value);
        valid(name, &encoded);

        let mut later = sample.value.clone();
        later["field_of_a_later_build"] = Value::from(7);
        let decoded_later: T = serde_json::from_value(later.clone())
            .unwrap_or_else(|error| panic!("{of}/{name} with a new field: {error}"));
        assert_eq!(decoded_later, decoded, "{of}/{name}: unknown fields are ignored");
        valid(name, &later);
    }
}

/// There is a complete sample of each of `all`, and none of anything else.
fn covers(of: &str, all: &[&str]) {
    let samples = samples(of);
    let complete = samples.iter().filter(|sample| sample.is_complete());
    let found: BTreeSet<&str> = complete.map(Sample::kind).collect();
    assert_eq!(found, all.iter().copied().collect(), "tests/golden/{of} has to have a sample of each kind");
}

#[test]
fn run_events() {
    hold::<RunEvent>("run_event");
    covers("run_event", RunEvent::KINDS);
}

#[test]
fn signals() {
    hold::<Signal>("signal");
    covers("signal", Signal::KINDS);
}

#[test]
fn controls() {
    hold::<Control>("control");
    covers("control", Control::KINDS);
}

#[test]
fn public_events() {
    hold::<PublicEvent>("public_event");
    covers("public_event", PublicEvent::KINDS);
}

#[test]
fn blocks() {
    hold::<Block>("block");
    covers("block", Block::TYPES);
}

#[test]
fn triggers() {
    hold::<Trigger>("trigger");
    // A new trigger does not compile here until it is in the list below, too.
    let listed = |trigger: &Trigger| match trigger {
        Trigger::Chat { .. }
        | Trigger::Command { .. }
        | Trigger::Schedule { .. }
        | Trigger::PullRequest { .. }
        | Trigger::Forge { .. }
        | Trigger::Event { .. }
        | Trigger::Handoff { .. }
        | Trigger::Retry { .. } => trigger.source(),
    };
    let all = ["chat", "command", "event", "forge", "handoff", "pull_request", "retry", "schedule"];
    covers("trigger", &all);
    for sample in samples("trigger") {
        let trigger = serde_json::from_value(sample.value).unwrap();
        assert_eq!(listed(&trigger), sample.name);
    }
}

#[test]
fn records() {
    hold::<Decision>("decision");
    hold::<ModelCall>("model_call");
    hold::<DeadLetter>("dead_letter");
    hold::<RunSummary>("run_summary");
    hold::<SavedState>("saved_state");
}

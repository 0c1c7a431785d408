//! What differs between a declaration and what the server has, field by field as both stand on the wire.
//!
//! Fields are compared in their JSON form, so none can be forgotten when the client library learns a new one.

use std::fmt;

use async_nats::jetstream::consumer::{IntoConsumerConfig as _, pull};
use async_nats::jetstream::{consumer, stream};
use serde::Serialize;
use serde_json::{Map, Value};

/// Fields of a stream that the server itself fills in or that say nothing.
const STREAM_IGNORED: [&str; 3] = ["metadata", "consumer_limits", "compression"];

/// Fields of a stream that can not be changed once it is there.
const STREAM_FIXED: [&str; 5] = ["storage", "retention", "allow_msg_counter", "mirror", "sources"];

/// Switches of a stream that can be turned on later, and never off again.
const STREAM_ONE_WAY: [&str; 4] = ["allow_msg_ttl", "allow_msg_schedules", "deny_delete", "deny_purge"];

/// Fields of a consumer that the server itself fills in. Its replicas follow its stream's.
const CONSUMER_IGNORED: [&str; 4] = ["metadata", "name", "max_waiting", "num_replicas"];

/// Fields of a consumer that can not be changed once it is there.
const CONSUMER_FIXED: [&str; 5] = ["durable_name", "deliver_policy", "opt_start_seq", "ack_policy", "replay_policy"];

/// A field that is not as it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field's name in NATS' own configuration.
    pub field: String,
    /// What is declared.
    pub wanted: String,
    /// What the server has.
    pub found: String,
    /// Whether it can not be changed.
    pub fixed: bool,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, wanted, found, .. } = self;
        write!(f, "{field} is {found} where {wanted} is wanted")
    }
}

/// What differs between two configurations of a stream.
pub(super) fn streams(wanted: &stream::Config, found: &stream::Config) -> Vec<Difference> {
    let mut differences = compare(&fields(wanted), &fields(found), &STREAM_IGNORED);
    for difference in &mut differences {
        let field = difference.field.as_str();
        let turned_off = STREAM_ONE_WAY.contains(&field) && difference.found == "true";
        difference.fixed = STREAM_FIXED.contains(&field) || turned_off;
    }
    differences
}

/// What differs between two configurations of a consumer.
pub(super) fn consumers(wanted: &pull::Config, found: &consumer::Config) -> Vec<Difference> {
    let wanted = wanted.clone().into_consumer_config();
    let mut differences = compare(&fields(&wanted), &fields(found), &CONSUMER_IGNORED);
    for difference in &mut differences {
        difference.fixed = CONSUMER_FIXED.contains(&difference.field.as_str());
    }
    differences
}

fn fields(config: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(config) {
        Ok(Value::Object(fields)) => fields,
        // Both are plain structs.
        _ => Map::new(),
    }
}

fn compare(wanted: &Map<String, Value>, found: &Map<String, Value>, ignored: &[&str]) -> Vec<Difference> {
    let mut names: Vec<_> = wanted.keys().chain(found.keys()).collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .filter(|name| !ignored.contains(&name.as_str()))
        .filter_map(|name| {
            let (wanted, found) = (wanted.get(name), found.get(name));
            let same = wanted == found || (is_default(wanted) && is_default(found));
            (!same).then(|| Difference { field: name.clone(), wanted: show(wanted), found: show(found), fixed: false })
        })
        .collect()
}

/// A field that is left out means the same as one that is empty.
fn is_default(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null | Value::Bool(false)) => true,
        Some(Value::Number(number)) => number.as_i64() == Some(0),
        Some(Value::String(text)) => text.is_empty(),
        Some(Value::Array(items)) => items.is_empty(),
        Some(Value::Object(fields)) => fields.is_empty(),
        Some(Value::Bool(true)) => false,
    }
}

fn show(value: Option<&Value>) -> String {
    value.map_or_else(|| "nothing".to_owned(), ToString::to_string)
}

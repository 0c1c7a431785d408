//! What is not known survives, and what is malformed does not pass as unknown.

use std::fmt::Debug;

use proptest::prelude::*;
use schemars::JsonSchema;
use schemas::{
    Block, Decision, RunEvent, Signal,
    control::Control,
    event::{END_KINDS, EPOCH_KINDS},
    public::PublicEvent,
    published::publish,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::golden::samples;

/// A known kind without its fields is an error that names it, here and by the schema.
fn malformed_is_an_error<T: DeserializeOwned + JsonSchema + Debug>(of: &'static str, tag: &str, kinds: &[&str]) {
    let validator = jsonschema::validator_for(publish::<T>(of).schema.as_value()).unwrap();
    for kind in kinds {
        let bare = json!({ tag: kind });
        let error = serde_json::from_value::<T>(bare.clone()).expect_err(kind).to_string();
        assert!(error.contains(&format!("{kind:?}")), "{of}: {error:?} should name {kind}");
        assert!(!validator.is_valid(&bare), "the schema of {of} takes a {kind} without fields");
    }
}

#[test]
fn a_malformed_known_kind_is_an_error_that_names_it() {
    malformed_is_an_error::<RunEvent>("run_event", "kind", RunEvent::KINDS);
    malformed_is_an_error::<Signal>("signal", "kind", Signal::KINDS);
    malformed_is_an_error::<Control>("control", "kind", Control::KINDS);
    malformed_is_an_error::<PublicEvent>("public_event", "kind", PublicEvent::KINDS);
    malformed_is_an_error::<Block>("block", "type", Block::TYPES);
}

#[test]
fn the_error_of_a_decision_names_event_and_field() {
    let body =
        json!({"events": [{"kind": "model_called", "step": 1, "attempt": "two", "model": "m", "input_estimate": 1}]});
    let error = serde_json::from_value::<Decision>(body).unwrap_err().to_string();
    assert!(error.contains("kind \"model_called\""), "{error}");
    assert!(error.contains("two"), "{error}");
}

#[test]
fn what_has_no_kind_is_an_error() {
    for value in [json!({}), json!({"kind": 7}), json!({"kind": null}), json!([]), json!("started"), json!(null)] {
        assert!(serde_json::from_value::<RunEvent>(value.clone()).is_err(), "{value}");
        assert!(serde_json::from_value::<Block>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn a_value_that_a_closed_list_does_not_have_is_an_error() {
    let mut failed = samples("run_event").into_iter().find(|sample| sample.name == "failed").unwrap().value;
    failed["reason"] = json!("boredom");
    let error = serde_json::from_value::<RunEvent>(failed).unwrap_err().to_string();
    assert!(error.contains("failed") && error.contains("boredom"), "{error}");
}

#[test]
fn kinds_are_what_stands_on_the_wire() {
    for sample in samples("run_event") {
        let event: RunEvent = serde_json::from_value(sample.value.clone()).unwrap();
        assert_eq!(event.kind(), sample.value["kind"]);
        assert_eq!(event.is_end(), END_KINDS.contains(&event.kind()));
        assert_eq!(event.opens_epoch(), EPOCH_KINDS.contains(&event.kind()));
    }
    let several = samples("decision").into_iter().find(|sample| sample.name == "of_several").unwrap();
    let decision: Decision = serde_json::from_value(several.value).unwrap();
    assert_eq!(decision.kinds(), "started,model_called");
}

/// JSON of some depth.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,8}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Whatever an unknown kind holds comes out as it went in.
fn survives<T: DeserializeOwned + Serialize>(value: &Value) {
    let decoded: T = serde_json::from_value(value.clone()).unwrap();
    assert_eq!(&serde_json::to_value(decoded).unwrap(), value);
}

proptest! {
    #[test]
    fn an_unknown_kind_survives(kind in "[a-z_]{1,12}", fields in prop::collection::btree_map("[a-z_]{1,8}", any_json(), 0..5)) {
        let known = [RunEvent::KINDS, Signal::KINDS, Control::KINDS, PublicEvent::KINDS, Block::TYPES].concat();
        prop_assume!(!known.contains(&kind.as_str()));
        let mut value = json!(fields);
        value["kind"] = json!(kind);
        value["type"] = json!(kind);
        survives::<RunEvent>(&value);
        survives::<Signal>(&value);
        survives::<Control>(&value);
        survives::<PublicEvent>(&value);
        survives::<Block>(&value);
        survives::<Decision>(&json!({"events": [value.clone(), value]}));
    }

    #[test]
    fn no_body_makes_it_panic(value in any_json(), kind in prop::sample::select(RunEvent::KINDS.to_vec())) {
        let _ = serde_json::from_value::<Decision>(value.clone());
        let mut event = value;
        if event.is_object() {
            event["kind"] = json!(kind);
        }
        let _ = serde_json::from_value::<RunEvent>(event);
    }
}

//! The benches measure and say so in the agreed form. How fast they find us is not asked here.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Every field of a figure, in the order of the alphabet.
const FIELDS: [&str; 9] = ["bench", "case", "floor", "met", "peer", "ratio", "target", "unit", "value"];

/// The benches that run when none is named.
const BENCHES: [&str; 5] = ["step", "wake", "burst", "resume", "up"];

#[test]
fn figures_are_one_object_a_line_with_every_field() {
    let output =
        Command::new(env!("CARGO_BIN_EXE_bench")).args(["--quick", "--json"]).output().expect("the benches run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let text = String::from_utf8(output.stdout).expect("text");
    let figures: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    for figure in &figures {
        let fields: Vec<&String> = figure.as_object().expect("an object").keys().collect();
        assert_eq!(fields, FIELDS, "{figure}");
        assert!(figure["value"].as_f64().is_some_and(|value| value > 0.0), "{figure}");
        assert_eq!(figure["target"].is_null(), figure["met"].is_null(), "{figure}");
    }
    let measured: BTreeSet<&str> = figures.iter().filter_map(|figure| figure["bench"].as_str()).collect();
    assert_eq!(measured, BTreeSet::from(BENCHES));
    let step = figures.iter().find(|figure| figure["bench"] == "step").expect("a step");
    assert!(step["floor"].as_f64().is_some_and(|floor| floor > 0.0), "a ratio needs its floor: {step}");
    let finished = figures.iter().filter(|figure| figure["unit"] == "runs");
    assert!(finished.clone().count() > 0);
    assert!(finished.into_iter().all(|figure| figure["met"] == true), "all runs end well: {text}");
}

#[test]
fn an_unknown_bench_is_a_mistake() {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).arg("jump").output().expect("it runs");
    assert_eq!(output.status.code(), Some(2));
}

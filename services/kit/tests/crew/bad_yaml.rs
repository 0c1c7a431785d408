//! Files that are not plain YAML, or not of the type that was asked for.

use std::collections::BTreeMap;

use jiff::civil::Date;
use kit::yaml::{MAX_BYTES, MAX_DEPTH, MAX_NODES, Schema, check, load};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "what is read does not matter here")]
struct Sample {
    name: String,
    #[serde(default)]
    count: u8,
    #[serde(default)]
    ready: bool,
    day: Option<Date>,
    #[serde(default)]
    tags: Vec<String>,
    shape: Option<Shape>,
    #[serde(default)]
    children: BTreeMap<String, Sample>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
#[expect(dead_code, reason = "what is read does not matter here")]
enum Shape {
    /// Round.
    Circle { radius: u32 },
    /// Square.
    Square { side: u32 },
}

fn complaints(text: &str) -> Vec<String> {
    load::<Sample>("f", text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn assert_cases(cases: &[(&str, &[&str])]) {
    let wrong: Vec<_> = cases.iter().filter(|(text, expected)| complaints(text) != *expected).collect();
    let said: Vec<_> = wrong.iter().map(|(text, _)| complaints(text)).collect();
    assert!(wrong.is_empty(), "said {said:#?}\ninstead of {wrong:#?}");
}

#[test]
fn mistakes_and_what_is_said_about_them() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["f:1:1: the file is empty"]),
        ("# only a comment\n", &["f:1:1: the file is empty"]),
        ("just text\n", &["f:1:1: expected a mapping, found \"just text\""]),
        ("- name: x\n", &["f:1:1: expected a mapping, found a list"]),
        ("name: x\nname: y\n", &["f:2:1: duplicate key \"name\" (first at line 1)"]),
        (
            "name: x\nchildren:\n  a: {name: y}\n  b: {name: z}\n  a: {name: 3}\n",
            &["f:5:3: duplicate key \"a\" (first at line 3)"],
        ),
        (
            "name: x\n---\nname: y\n",
            &["f:2:1: a second YAML document begins here (everything belongs into one document)"],
        ),
        (
            "name: &n x\ntags: [*n]\n",
            &[
                "f:1:7: anchors are not allowed (write the value out where it is used)",
                "f:2:8: aliases are not allowed (write the value out)",
            ],
        ),
        (
            "name: x\nchildren:\n  a: &a {name: y}\n  b:\n    <<: *a\n    name: z\n",
            &[
                "f:3:6: anchors are not allowed (write the value out where it is used)",
                "f:5:5: merge keys are not allowed (write the keys out)",
                "f:5:9: aliases are not allowed (write the value out)",
            ],
        ),
        (
            "name: !!str 3\n",
            &[
                "f:1:7: expected text, found the number 3 (put it in quotes)",
                "f:1:7: tags are not allowed (quote text, and leave numbers plain)",
            ],
        ),
        ("name: x\n\ttags: []\n", &["f:2:1: a tab (indent and separate with spaces)"]),
        ("name:\tx\n", &["f:1:6: a tab (indent and separate with spaces)"]),
        ("name: x\n? [a]\n: b\n", &["f:2:3: a key must be plain text"]),
        ("name: x\n: y\n", &["f:2:1: a key is empty"]),
        ("name: x\ncount: 99999999999999999999\n", &["f:2:8: the number is out of range"]),
        ("name: x\ncount: .inf\n", &["f:2:8: the number is out of range"]),
        ("name: 'x\n", &["f:1:7: not valid YAML: while scanning a quoted scalar, found unexpected end of stream"]),
        ("name: [x\n", &["f:1:1: not valid YAML: while parsing a flow sequence, expected ',' or ']'"]),
        ("name: x: y\n", &["f:1:8: not valid YAML: mapping values are not allowed in this context"]),
    ];
    assert_cases(cases);
}

#[test]
fn shapes_and_what_is_said_about_them() {
    let cases: &[(&str, &[&str])] = &[
        ("{}\n", &["f:1:1: missing key \"name\""]),
        ("name:\n", &["f:1:1: expected text, found nothing"]),
        ("name: yes\ncount: 3.0\n", &["f:2:8: invalid type: floating point `3.0`, expected u8"]),
        ("name: 1.10\n", &["f:1:7: expected text, found the number 1.1 (put it in quotes)"]),
        ("name: true\n", &["f:1:7: expected text, found true (put it in quotes)"]),
        (
            "name: x\nready: yes\n",
            &["f:2:8: expected true or false, found \"yes\" (write true or false, without quotes)"],
        ),
        ("name: x\ncount: 256\n", &["f:2:8: the number 256 is more than 255"]),
        ("name: x\ncount: -1\n", &["f:2:8: the number -1 is less than 0"]),
        ("name: x\ncount: many\n", &["f:2:8: expected a whole number, found \"many\""]),
        ("name: x\nday: 2026-02-30\n", &["f:2:6: \"2026-02-30\" is not a valid date"]),
        ("nmae: x\n", &["f:1:1: missing key \"name\"", "f:1:1: unknown key \"nmae\" (did you mean \"name\"?)"]),
        ("name: x\ntags: a\n", &["f:2:7: expected a list, found \"a\""]),
        (
            "name: x\ntags:\n  - a\n  - 2\n  - {b: c}\n",
            &["f:4:5: expected text, found the number 2 (put it in quotes)", "f:5:5: expected text, found a mapping"],
        ),
        (
            "name: x\nchildren:\n  a:\n    count: x\n    nam: y\n",
            &[
                "f:3:3: missing key \"name\"",
                "f:4:12: expected a whole number, found \"x\"",
                "f:5:5: unknown key \"nam\" (did you mean \"name\"?)",
            ],
        ),
        ("name: x\nshape: {kind: circle, radius: big}\n", &["f:2:31: expected a whole number, found \"big\""]),
        (
            "name: x\nshape: {kind: cirle, radius: 3}\n",
            &["f:2:15: \"cirle\" is not one of: circle, square (did you mean \"circle\"?)"],
        ),
        ("name: x\nshape: round\n", &["f:2:8: expected a mapping, found \"round\""]),
    ];
    assert_cases(cases);
}

#[test]
fn a_tab_in_text_or_a_comment_is_content() {
    let text = "name: \"a\tb\" #\tnote\n#\tnote\ntags:\n  - |\n    a:\n    \tb\n  - 'c\td'\n";
    assert_eq!(load::<Sample>("f", text).unwrap().value.tags, ["a:\n\tb\n", "c\td"]);
}

#[test]
fn bounds_are_told() {
    let large = format!("name: {}\n", "x".repeat(MAX_BYTES));
    assert_eq!(complaints(&large), [format!("f:1:1: the file has {} bytes, more than {MAX_BYTES}", large.len())]);
    let bound = format!("more than {MAX_NODES} nodes, or nested deeper than {MAX_DEPTH}");
    let deep = format!("name: {}{}\n", "[".repeat(MAX_DEPTH + 8), "]".repeat(MAX_DEPTH + 8));
    assert_eq!(complaints(&deep), [format!("f:1:{}: {bound}", 7 + MAX_DEPTH)]);
    let many = format!("name: x\ntags: [{}]\n", "a,".repeat(MAX_NODES));
    assert_eq!(complaints(&many).len(), 1);
    assert!(complaints(&many)[0].ends_with(&bound));
}

#[test]
fn every_node_has_its_place() {
    let text = "a: 1\nb:\n  - x\n  - c/d: y\n    e~f:\n";
    let document = check("f", text, &Schema::new(json!({}))).document.unwrap();
    let at = |pointer: &str| (document.mark(pointer).line, document.mark(pointer).column);
    let key_at = |pointer: &str| (document.key_mark(pointer).line, document.key_mark(pointer).column);
    assert_eq!((key_at("/a"), at("/a")), ((1, 1), (1, 4)));
    assert_eq!((key_at("/b"), at("/b/0")), ((2, 1), (3, 5)));
    assert_eq!((key_at("/b/1/c~1d"), at("/b/1/c~1d")), ((4, 5), (4, 10)));
    assert_eq!(at("/b/1/e~0f"), (5, 5), "a value that is not there stands at its key");
    assert_eq!(at("/b/7/g"), at("/b"), "what is not there stands at what would hold it");
    assert_eq!(at("/nothing"), (1, 1));
}

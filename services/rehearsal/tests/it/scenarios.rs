//! Scenario files: what is wrong with them is told with its place.

use rehearsal::{Config, Problems, Scenario, Server, StartError};

use crate::client::{Api, LOOPBACK, Rig, said};

fn problems(text: &str) -> Vec<String> {
    let Problems(problems) = Scenario::parse("s.yaml", text).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn all_mistakes_are_told_with_line_and_column() {
    let found = problems(
        r"name: bad
rules:
  - name: one
    when: {agnet: coder, step: 0}
    reply: {text: a}
  - name: two
    fault: {kind: rate_limitde}
",
    );
    assert_eq!(found.len(), 3, "{found:#?}");
    assert!(found[0].starts_with("s.yaml:4:12: unknown key \"agnet\" (did you mean"), "{found:#?}");
    assert!(found[1].starts_with("s.yaml:4:32: "), "{found:#?}");
    assert!(found[2].starts_with("s.yaml:7:19: "), "{found:#?}");
}

#[test]
fn what_no_schema_states_is_told_too() {
    let found = problems(
        r#"name: bad
rules:
  - name: one
    when: {last_user: "(unclosed"}
    reply: {text: "{{capture.path}}"}
  - name: one
    fault: {kind: garbage, ms: 5}
  - name: three
    fault: {kind: hold}
  - name: four
    when: {last_user: "(?<path>.*)"}
    reply: {tools: [{name: read, arguments: {path: "{{capture.path}}", deep: ["{{captured}}"]}}]}
  - name: five
    reply: {thinking: only}
"#,
    );
    let wanted = [
        ("s.yaml:4:23: ", "not a regular expression: unclosed group"),
        ("s.yaml:5:19: ", "nothing stands for `{{capture.path}}`"),
        ("s.yaml:6:11: ", "a rule named `one` stands before"),
        ("s.yaml:7:32: ", "`ms` means nothing to a fault of this kind"),
        ("s.yaml:8:5: ", "missing field \"reply\""),
        ("s.yaml:12:79: ", "nothing stands for `{{captured}}`"),
        ("s.yaml:14:12: ", "a reply has a text, or tools, or both"),
    ];
    assert_eq!(found.len(), wanted.len(), "{found:#?}");
    for (found, (place, message)) in found.iter().zip(wanted) {
        assert!(found.starts_with(place) && found.contains(message), "{found} should be {place}{message}");
    }
}

#[tokio::test]
async fn a_server_does_not_start_with_a_bad_file_or_without_one() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.yaml");
    std::fs::write(&bad, "name: bad\n").unwrap();
    let config = Config { scenarios: vec![folder.path().join("none.yaml"), bad], ..Config::at(LOOPBACK) };
    let Err(StartError::Scenarios(Problems(problems))) = Server::configured(config).await else {
        panic!("it started");
    };
    assert_eq!(problems.len(), 2);
    assert!(problems[0].message.contains("can not be read"), "{problems:?}");
    assert!(problems[1].message.contains("rules"), "{problems:?}");
}

#[tokio::test]
async fn without_a_scenario_every_answer_says_that_it_is_a_rehearsal() {
    let server = Server::configured(Config::at(LOOPBACK)).await.unwrap();
    let rig = Rig { server, http: reqwest::Client::new() };
    for api in crate::client::BOTH {
        let answer: serde_json::Value = rig.ask(api, "hello?").await.json().await.unwrap();
        assert!(said(api, &answer).starts_with("This is a rehearsal"));
        assert_eq!(answer["model"], "rehearsal/m-1");
    }
}

#[tokio::test]
async fn scenarios_are_tried_in_their_order() {
    let parse = |name: &str, rule: &str| Scenario::parse(name, &format!("name: {name}\nrules:\n  - {rule}\n")).unwrap();
    let scenarios = vec![
        parse("a", "{name: r, when: {last_user: first}, reply: {text: from a}}"),
        parse("b", "{name: r, reply: {text: from b}}"),
    ];
    let server = Server::start(scenarios, LOOPBACK).await.unwrap();
    let rig = Rig { server, http: reqwest::Client::new() };
    for (question, wanted) in [("first", "from a"), ("second", "from b")] {
        let answer: serde_json::Value = rig.ask(Api::Anthropic, question).await.json().await.unwrap();
        assert_eq!(said(Api::Anthropic, &answer), wanted);
    }
}

#[test]
fn the_configuration_is_read_from_the_environment() {
    use kit::config::{Env, ExposeSecret as _, FileValues, Reader};

    let file = FileValues::default();
    let env: Env = [
        ("NIGHTCREW_REHEARSAL_LISTEN", "127.0.0.1:7001"),
        ("NIGHTCREW_REHEARSAL_SCENARIOS", "a.yaml:b/c.yaml"),
        ("NIGHTCREW_REHEARSAL_KEY", "sk-1"),
    ]
    .into_iter()
    .collect();
    let config = Config::read(&mut Reader::new(&env, &file));
    assert_eq!(config.listen.port(), 7001);
    assert_eq!(config.scenarios, ["a.yaml", "b/c.yaml"].map(std::path::PathBuf::from));
    assert_eq!(config.require_key.unwrap().expose_secret(), "sk-1");

    let nothing = Env::default();
    let config = Config::read(&mut Reader::new(&nothing, &file));
    assert_eq!(config.listen, LOOPBACK);
    assert!(config.scenarios.is_empty() && config.require_key.is_none());
}

#[test]
fn the_example_of_the_readme_is_a_scenario() {
    let readme = include_str!("../../README.md");
    let example = readme.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    Scenario::parse("README.md", example).unwrap();
}

//! The demo's scenario, played against its repository by a small stand-in for the runner: real files, python and git.

use std::path::Path;
use std::process::Command;

use rehearsal::{Scenario, Server, demo};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Api::Anthropic, LOOPBACK, Rig};

const ASKED: &str = "Could you find and fix the failing test, please?";

/// What the runner tells of a call that it lost.
const UNCERTAIN: &str = "The runner was lost while this call ran. It is uncertain whether it took effect.";

/// What the runner tells of a call that is not in the agent's scope.
const REFUSED: &str = "You may not call \"write\": it is not in your scope.";

/// More steps than any agent of the demo takes.
const MOST_STEPS: usize = 12;

/// A call of `coder` that is lost once, before or after it took effect.
#[derive(Debug, Clone, Copy)]
struct Lost {
    tool: &'static str,
    took_effect: bool,
}

struct Play {
    rig: Rig,
    repository: TempDir,
    lost: Option<Lost>,
    agents: Vec<String>,
}

impl Play {
    async fn new(lost: Option<Lost>) -> Self {
        let scenario =
            Scenario::parse("demo.yaml", &demo::SCENARIO.replace("first_token_ms: 150, per_token_ms: 15", ""));
        let server = Server::start(vec![scenario.unwrap()], LOOPBACK).await.unwrap();
        let repository = tempfile::tempdir().unwrap();
        for (path, text) in demo::REPOSITORY {
            std::fs::write(repository.path().join(path), text.replace("time.sleep(2)", "time.sleep(0)")).unwrap();
        }
        run(repository.path(), "git", &["init", "-q"]);
        commit(repository.path(), demo::FIRST_COMMIT);
        Self { rig: Rig { server, http: reqwest::Client::new() }, repository, lost, agents: Vec::new() }
    }

    /// Runs an agent to its last words.
    async fn agent(&mut self, agent: &str, task: &str) -> String {
        self.agents.push(agent.to_owned());
        let mut messages = vec![json!({"role": "user", "content": task})];
        for _ in 0..MOST_STEPS {
            let system = format!("Agent: {agent}\n\nYou work.");
            let body = json!({"model": "m", "max_tokens": 8000, "system": system, "messages": messages});
            let answer: Value = self.rig.send(Anthropic, &body).await.json().await.unwrap();
            let content = answer["content"].as_array().unwrap_or_else(|| panic!("{agent}: {answer}")).clone();
            messages.push(json!({"role": "assistant", "content": content}));
            let mut results = Vec::new();
            for call in content.iter().filter(|block| block["type"] == "tool_use") {
                let (text, is_error) = self.call(agent, call).await;
                let id = &call["id"];
                results.push(json!({"type": "tool_result", "tool_use_id": id, "content": text, "is_error": is_error}));
            }
            if results.is_empty() {
                return content[0]["text"].as_str().unwrap().to_owned();
            }
            messages.push(json!({"role": "user", "content": results}));
        }
        panic!("{agent} does not end: {messages:#?}");
    }

    async fn call(&mut self, agent: &str, call: &Value) -> (String, bool) {
        let (tool, arguments) = (call["name"].as_str().unwrap(), &call["input"]);
        if tool == "handoff" {
            let (to, task) = (arguments["agent"].as_str().unwrap(), arguments["task"].as_str().unwrap());
            return (Box::pin(self.agent(to, task)).await, false);
        }
        if (agent, tool) == ("scout", "write") {
            return (REFUSED.to_owned(), true);
        }
        if agent == "coder"
            && let Some(lost) = self.lost.take_if(|lost| lost.tool == tool)
        {
            if lost.took_effect {
                use_tool(self.repository.path(), tool, arguments);
            }
            return (UNCERTAIN.to_owned(), true);
        }
        use_tool(self.repository.path(), tool, arguments)
    }
}

fn use_tool(repository: &Path, tool: &str, arguments: &Value) -> (String, bool) {
    let text = |name: &str| arguments[name].as_str().unwrap_or_else(|| panic!("{tool} wants {name}: {arguments}"));
    match tool {
        "list" => run(repository, "ls", &[text("path")]),
        "search" => run(repository, "grep", &["-rn", text("pattern"), "."]),
        "read" => (std::fs::read_to_string(repository.join(text("path"))).unwrap(), false),
        "shell" => run(repository, "sh", &["-c", &format!("{} 2>&1", text("command"))]),
        "edit" => {
            let path = repository.join(text("path"));
            let before = std::fs::read_to_string(&path).unwrap();
            assert_eq!(before.matches(text("old")).count(), 1, "an edit fits one place");
            std::fs::write(path, before.replace(text("old"), text("new"))).unwrap();
            ("edited".to_owned(), false)
        }
        "git" if text("operation") == "commit" => commit(repository, text("message")),
        "git" if text("operation") == "log" => run(repository, "git", &["log"]),
        other => panic!("the crew has no tool {other}: {arguments}"),
    }
}

fn commit(repository: &Path, message: &str) -> (String, bool) {
    run(repository, "git", &["add", "-A"]);
    let identity = ["-c", "user.name=coder", "-c", "user.email=coder@example.org"];
    run(repository, "git", &[&identity[..], &["commit", "-m", message]].concat())
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> (String, bool) {
    let output = Command::new(program).args(arguments).current_dir(folder).output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), !output.status.success())
}

#[tokio::test]
async fn the_crew_mends_the_repository_whatever_call_is_lost() {
    let lost = |tool, took_effect| Some(Lost { tool, took_effect });
    let cases =
        [None, lost("shell", false), lost("edit", false), lost("edit", true), lost("git", false), lost("git", true)];
    for case in cases {
        let mut play = Play::new(case).await;
        let repository = play.repository.path().to_owned();
        assert!(run(&repository, "python3", &["-m", "unittest"]).1, "at first a test fails");

        let answer = play.agent("lead", ASKED).await;

        assert!(answer.starts_with("The failing test is fixed."), "{case:?}: {answer}");
        assert!(answer.contains("\"Ran 3 tests\""), "{case:?}: {answer}");
        assert_eq!(play.agents, ["lead", "scout", "coder"]);
        assert!(!run(&repository, "python3", &["-m", "unittest"]).1, "{case:?}: all tests pass");
        assert_eq!(run(&repository, "git", &["status", "--porcelain"]).0, "", "{case:?}: all is committed");
        assert_eq!(run(&repository, "git", &["rev-list", "--count", "HEAD"]).0.trim(), "2", "{case:?}: once");
    }
}

#[tokio::test]
async fn answers_are_long_enough_to_be_cut_and_short_enough_for_a_demo() {
    let mut play = Play::new(None).await;
    play.agent("lead", ASKED).await;
    let seen = play.rig.server.requests(0).requests;
    let ends: Vec<&str> = vec!["lead-answers", "scout-reports", "coder-reports"];
    for end in ends {
        let record = seen.iter().find(|record| record.rule.as_deref() == Some(end)).unwrap();
        assert!(record.output_tokens >= 40, "{end}: {}", record.output_tokens);
    }
    // 150 ms and 15 ms for each token: the model's part of the demo's minute.
    let all: u32 = seen.iter().map(|record| 150 + 15 * record.output_tokens).sum();
    assert!(all < 20_000, "{all} ms in {} answers", seen.len());
}

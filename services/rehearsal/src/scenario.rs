//! Scenarios: what the model answers to whom, and how badly.
//!
//! Rules are tried in the order of the files and of the rules in them; the first that matches answers. Matching is pure:
//! how often a rule was used is handed in as [`Uses`], and nothing here waits, sends or knows of HTTP.

mod compile;
mod fault;
pub(crate) mod file;
mod matching;
pub(crate) mod template;
mod uses;

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use fault::{Fault, FaultRule};
pub(crate) use matching::{Condition, Facts, Field};
pub(crate) use uses::Uses;

use kit::yaml::{self, Problem};

use crate::conversation::Request;
use crate::scenario::file::ReplyFile;

/// The scenario that plays when none is configured.
const DEFAULT: &str = include_str!("../scenarios/default.yaml");

/// One scenario file, checked.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// The models it lists.
    pub(crate) models: Vec<String>,
    /// Its rules in their order.
    pub(crate) rules: Vec<Arc<Rule>>,
}

/// What one rule says.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Its name, unique in its file.
    pub name: Arc<str>,
    /// The file and line it stands at.
    pub place: String,
    /// What must hold, all of it.
    pub when: Vec<Condition>,
    /// To how many matching requests of one conversation it applies. No number: to all.
    pub times: Option<u32>,
    /// The answer. None when the rule only fails.
    pub reply: Option<ReplyFile>,
    /// How slow the answer is.
    pub latency: Latency,
    /// The gate that the answer waits at.
    pub gate: Option<Gate>,
    /// What goes wrong.
    pub fault: Option<FaultRule>,
}

impl Rule {
    fn is_counted(&self) -> bool {
        self.times.is_some() || self.fault.as_ref().is_some_and(|fault| fault.times.is_some())
    }

    /// What goes wrong after the rule was used `before` times in the conversation.
    fn fault_at(&self, before: u32) -> Option<&Fault> {
        self.fault.as_ref().filter(|fault| is_left(fault.times, before)).map(|fault| &fault.fault)
    }

    /// Whether the rule still applies after it was used `before` times in the conversation.
    fn applies_at(&self, before: u32) -> bool {
        is_left(self.times, before) && (self.reply.is_some() || self.fault_at(before).is_some())
    }
}

fn is_left(times: Option<u32>, before: u32) -> bool {
    times.is_none_or(|times| before < times)
}

/// How slow an answer is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Latency {
    /// Until the first token.
    pub first_token: Duration,
    /// For each token after the first.
    pub per_token: Duration,
}

/// A place where an answer waits until somebody opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gate {
    /// Its name.
    pub name: Arc<str>,
    /// How many tokens go out before. No number: nothing does, not even the response's head.
    pub after_tokens: Option<u32>,
}

/// All that is wrong with the scenario files.
#[derive(Debug, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl Scenario {
    /// Reads a scenario. `file` is only for naming it.
    ///
    /// # Errors
    /// All that is wrong with it, each with its line and column.
    pub fn parse(file: &str, text: &str) -> Result<Self, Problems> {
        let loaded = yaml::load::<file::ScenarioFile>(file, text).map_err(Problems)?;
        compile::compile(file, loaded.value, &loaded.document).map_err(Problems)
    }

    /// Reads scenario files.
    ///
    /// # Errors
    /// All that is wrong with all of them.
    pub fn read_all(paths: &[PathBuf]) -> Result<Vec<Self>, Problems> {
        let mut scenarios = Vec::new();
        let mut problems = Vec::new();
        for path in paths {
            match Self::read(path) {
                Ok(scenario) => scenarios.push(scenario),
                Err(found) => problems.extend(found.0),
            }
        }
        if problems.is_empty() { Ok(scenarios) } else { Err(Problems(problems)) }
    }

    fn read(path: &Path) -> Result<Self, Problems> {
        let file = path.display().to_string();
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&file, &text),
            Err(error) => {
                let message = format!("can not be read: {error}");
                Err(Problems(vec![Problem::of_file(&file, message, None)]))
            }
        }
    }

    /// The scenario for whoever configured neither key nor scenario: it says so.
    ///
    /// # Errors
    /// None in a build whose tests passed.
    pub fn embedded_default() -> Result<Self, Problems> {
        Self::parse("scenarios/default.yaml", DEFAULT)
    }
}

/// All rules of a server, in the order in which they are tried.
#[derive(Debug, Default)]
pub(crate) struct Playbook {
    rules: Vec<Arc<Rule>>,
    models: Vec<String>,
}

/// The rule that answers a request.
#[derive(Debug)]
pub(crate) struct Selected {
    /// The rule.
    pub rule: Arc<Rule>,
    /// What its patterns captured, by name.
    pub captures: HashMap<String, String>,
    /// What goes wrong this time.
    pub fault: Option<Fault>,
}

/// No rule answers a request.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("rehearsal: no rule matches {request}. {nearest}")]
pub(crate) struct Unmatched {
    request: String,
    nearest: String,
}

impl Playbook {
    /// The rules of these scenarios.
    pub(crate) fn new(scenarios: Vec<Scenario>) -> Self {
        let mut playbook = Self::default();
        for scenario in scenarios {
            playbook.rules.extend(scenario.rules);
            playbook.models.extend(scenario.models);
        }
        playbook.models.dedup();
        playbook
    }

    /// The models that are listed to clients.
    pub(crate) fn models(&self) -> &[String] {
        &self.models
    }

    /// The names of all gates.
    pub(crate) fn gates(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().filter_map(|rule| rule.gate.as_ref()).map(|gate| &gate.name)
    }

    /// Finds the rule that answers `request`, and counts its use.
    ///
    /// # Errors
    /// When no rule matches: a message that names the request and the rule that came nearest.
    pub(crate) fn select(&self, request: &Request, uses: &mut Uses) -> Result<Selected, Unmatched> {
        let facts = Facts::of(request);
        let conversation = request.conversation();
        for (index, rule) in self.rules.iter().enumerate() {
            let Some(captures) = matching::captures(&rule.when, &facts) else {
                continue;
            };
            let before = if rule.is_counted() { uses.count(index, conversation) } else { 0 };
            if !rule.applies_at(before) {
                continue;
            }
            if rule.is_counted() {
                uses.add(index, conversation);
            }
            return Ok(Selected { rule: rule.clone(), captures, fault: rule.fault_at(before).cloned() });
        }
        Err(Unmatched { request: facts.describe(request), nearest: self.nearest(&facts) })
    }

    fn nearest(&self, facts: &Facts<'_>) -> String {
        let told = self.rules.iter().map(|rule| (rule, matching::unmet(&rule.when, facts)));
        let nearest = told.min_by_key(|(rule, unmet)| matching::distance(&rule.when, unmet));
        let Some((rule, unmet)) = nearest else {
            return "There is no rule at all".to_owned();
        };
        let why = if unmet.is_empty() {
            "all of it holds, but its times are used up in this conversation".to_owned()
        } else {
            unmet.iter().map(|condition| condition.explain(facts)).collect::<Vec<_>>().join("; ")
        };
        format!("The nearest rule is `{}` ({}): {why}", rule.name, rule.place)
    }
}

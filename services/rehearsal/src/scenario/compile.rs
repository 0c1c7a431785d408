//! From a scenario file to rules: the checks that a schema can not state.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;
use serde_json::Value;

use super::file::{
    FaultFile, FaultKind, GateFile, LatencyFile, ReplyFile, RuleFile, ScenarioFile, ToolResultFile, WhenFile,
};
use super::{Condition, Fault, FaultRule, Field, Gate, Latency, Rule, Scenario, template};
use kit::yaml::{Document, Problem, child};

/// What is looked at while one rule is compiled.
struct Checker<'a> {
    document: &'a Document,
    pointer: String,
    problems: Vec<Problem>,
}

/// Checks a parsed file and makes its rules.
pub(super) fn compile(file: &str, parsed: ScenarioFile, document: &Document) -> Result<Scenario, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut rules = Vec::new();
    let mut names = HashSet::new();
    let default_latency = parsed.latency;
    for (index, rule) in parsed.rules.into_iter().enumerate() {
        let mut checker = Checker { document, pointer: format!("/rules/{index}"), problems: Vec::new() };
        if !names.insert(rule.name.clone()) {
            checker.problem("/name", format!("a rule named `{}` stands before this one", rule.name));
        }
        rules.push(Arc::new(checker.rule(file, rule, default_latency)));
        problems.append(&mut checker.problems);
    }
    if problems.is_empty() {
        Ok(Scenario { name: parsed.name, models: parsed.models, rules })
    } else {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Err(problems)
    }
}

impl Checker<'_> {
    fn problem(&mut self, below: &str, message: impl Into<String>) {
        let problem = self.document.problem(&format!("{}{below}", self.pointer), message, None);
        self.problems.push(problem);
    }

    fn rule(&mut self, file: &str, rule: RuleFile, default_latency: LatencyFile) -> Rule {
        let place = format!("{file}:{}", self.document.mark(&self.pointer).line);
        let when = self.when(rule.when);
        let fault = rule.fault.and_then(|fault| self.fault(&fault));
        self.reply(rule.reply.as_ref(), fault.as_ref(), &when);
        let latency = rule.latency.unwrap_or(default_latency);
        Rule {
            name: rule.name.into(),
            place,
            when,
            times: rule.times,
            reply: rule.reply,
            latency: Latency {
                first_token: Duration::from_millis(latency.first_token_ms.into()),
                per_token: Duration::from_millis(latency.per_token_ms.into()),
            },
            gate: rule.gate.map(gate),
            fault,
        }
    }

    fn when(&mut self, when: WhenFile) -> Vec<Condition> {
        let mut conditions = Vec::new();
        conditions.extend(when.agent.map(Condition::Agent));
        conditions.extend(when.step.map(Condition::Step));
        conditions.extend(when.from_step.map(Condition::FromStep));
        let texts = [
            ("model", Field::Model, when.model),
            ("system", Field::System, when.system),
            ("last_user", Field::LastUser, when.last_user),
            ("last_message", Field::LastMessage, when.last_message),
            ("any_message", Field::AnyMessage, when.any_message),
        ];
        for (name, field, pattern) in texts {
            let pattern = pattern.and_then(|pattern| self.pattern(&format!("/when/{name}"), &pattern));
            conditions.extend(pattern.map(|pattern| Condition::Text(field, pattern)));
        }
        if let Some(ToolResultFile { tool, content, is_error }) = when.tool_result {
            let content = content.and_then(|pattern| self.pattern("/when/tool_result/content", &pattern));
            conditions.push(Condition::ToolResult { tool, content, is_error });
        }
        conditions
    }

    fn pattern(&mut self, below: &str, pattern: &str) -> Option<Regex> {
        match Regex::new(pattern) {
            Ok(regex) => Some(regex),
            Err(error) => {
                // The crate draws an arrow under the pattern; the last line says what is wrong.
                let text = error.to_string();
                let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                self.problem(below, format!("not a regular expression: {reason}"));
                None
            }
        }
    }

    fn reply(&mut self, reply: Option<&ReplyFile>, fault: Option<&FaultRule>, when: &[Condition]) {
        let Some(reply) = reply else {
            if !fault.is_some_and(|fault| fault.fault.replaces_the_answer()) {
                self.problem("", "missing field \"reply\": only a fault that takes the answer's place needs none");
            }
            return;
        };
        if reply.text.is_none() && reply.tools.is_empty() {
            self.problem("/reply", "a reply has a text, or tools, or both");
        }
        let patterns = when.iter().filter_map(Condition::patterns);
        let groups: Vec<String> =
            patterns.flat_map(|pattern| pattern.capture_names().flatten().map(str::to_owned)).collect();
        for (name, text) in [("thinking", &reply.thinking), ("text", &reply.text)] {
            self.placeholders(&format!("/reply/{name}"), text.as_deref().unwrap_or_default(), &groups);
        }
        for (index, tool) in reply.tools.iter().enumerate() {
            for (key, value) in &tool.arguments {
                self.argument(&child(&format!("/reply/tools/{index}/arguments"), key), value, &groups);
            }
        }
    }

    fn argument(&mut self, below: &str, value: &Value, groups: &[String]) {
        match value {
            Value::String(text) => self.placeholders(below, text, groups),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.argument(&format!("{below}/{index}"), item, groups);
                }
            }
            Value::Object(map) => {
                for (key, item) in map {
                    self.argument(&child(below, key), item, groups);
                }
            }
            _ => {}
        }
    }

    fn placeholders(&mut self, below: &str, text: &str, groups: &[String]) {
        for name in template::names(text).filter(|name| !template::is_known(name, groups)) {
            let known = "call_id, agent, model, step, or capture.NAME of a named group in this rule's patterns";
            self.problem(below, format!("nothing stands for `{{{{{name}}}}}`: known are {known}"));
        }
    }

    fn fault(&mut self, file: &FaultFile) -> Option<FaultRule> {
        self.fields_of_kind(file);
        let after = file.after_tokens.unwrap_or(0);
        let fault = match file.kind {
            FaultKind::RateLimited => Fault::RateLimited { retry_after: file.retry_after },
            FaultKind::Overloaded => Fault::Overloaded { retry_after: file.retry_after },
            FaultKind::ServerError => {
                Fault::ServerError { status: file.status.unwrap_or(500), retry_after: file.retry_after }
            }
            FaultKind::Garbage => Fault::Garbage,
            FaultKind::CutStream => Fault::CutStream { after_tokens: after },
            FaultKind::MalformedFrame => Fault::MalformedFrame { after_tokens: after },
            FaultKind::ErrorFrame => Fault::ErrorFrame { after_tokens: after },
            FaultKind::MissingUsage => Fault::MissingUsage,
            FaultKind::WrongUsage => Fault::WrongUsage {
                input_tokens: file.input_tokens.unwrap_or(0),
                output_tokens: file.output_tokens.unwrap_or(0),
            },
            FaultKind::Stall => {
                let Some(ms) = file.ms else {
                    self.problem("/fault", "missing field \"ms\": how long a stall lasts");
                    return None;
                };
                Fault::Stall { after_tokens: file.after_tokens, duration: Duration::from_millis(ms.into()) }
            }
            FaultKind::Hold => Fault::Hold { after_tokens: file.after_tokens },
        };
        Some(FaultRule { fault, times: file.times })
    }

    /// Reports the fields that mean nothing to the fault's kind.
    fn fields_of_kind(&mut self, file: &FaultFile) {
        let allowed: &[&str] = match file.kind {
            FaultKind::RateLimited | FaultKind::Overloaded => &["retry_after"],
            FaultKind::ServerError => &["status", "retry_after"],
            FaultKind::Garbage | FaultKind::MissingUsage => &[],
            FaultKind::CutStream | FaultKind::MalformedFrame | FaultKind::ErrorFrame | FaultKind::Hold => {
                &["after_tokens"]
            }
            FaultKind::WrongUsage => &["input_tokens", "output_tokens"],
            FaultKind::Stall => &["after_tokens", "ms"],
        };
        let given = [
            ("retry_after", file.retry_after.is_some()),
            ("status", file.status.is_some()),
            ("after_tokens", file.after_tokens.is_some()),
            ("ms", file.ms.is_some()),
            ("input_tokens", file.input_tokens.is_some()),
            ("output_tokens", file.output_tokens.is_some()),
        ];
        for (name, _) in given.into_iter().filter(|(name, given)| *given && !allowed.contains(name)) {
            self.problem(&format!("/fault/{name}"), format!("`{name}` means nothing to a fault of this kind"));
        }
    }
}

fn gate(file: GateFile) -> Gate {
    match file {
        GateFile::Name(name) => Gate { name: name.0.into(), after_tokens: None },
        GateFile::Within(within) => Gate { name: within.name.0.into(), after_tokens: Some(within.after_tokens) },
    }
}

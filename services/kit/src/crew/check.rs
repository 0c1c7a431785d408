//! What the crew's files say about each other, and what a JSON Schema can not say about one of them.
//!
//! These checks read nodes and not typed values, so that they work on files in which something else is wrong. A set of
//! names that could not be read is left out of the check: its own file already has a problem.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{Deadline, MAX_DEADLINE, TERMINAL_ROOM, TOOLS};
use crate::yaml::{Document, Problem, suggestion};

/// The names that other names must be among; absent when their list could not be read.
struct Names {
    what: &'static str,
    known: Option<BTreeSet<String>>,
}

/// Everything that is wrong between the files. `scopes` are agents with their capabilities.
pub(super) fn problems(
    team: Option<&Document>,
    models: Option<&Document>,
    scopes: &[(&str, Option<&Document>)],
) -> Vec<Problem> {
    let known = Known::of(team, models);
    let mut problems = Vec::new();
    if let Some(team) = team {
        problems.extend(team_problems(team, &known));
        problems.extend(seats(team, scopes));
    }
    if let Some(models) = models {
        problems.extend(super::check_models::problems(models));
    }
    for (agent, scope) in scopes {
        if let Some(scope) = scope {
            problems.extend(scope_problems(agent, scope, &known));
        }
    }
    problems
}

/// The problems of `found` at places where `before` has none: a value of the wrong shape needs no second remark.
pub(super) fn new_to(before: &[Problem], found: Vec<Problem>) -> Vec<Problem> {
    let same_place = |a: &Problem, b: &Problem| a.file == b.file && a.path == b.path && a.line == b.line;
    found.into_iter().filter(|new| !before.iter().any(|old| same_place(old, new))).collect()
}

/// The agents that `team.yaml` lists, each once, as far as their names can be folders.
pub(super) fn member_names(team: Option<&Document>) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, name) in team.map(|team| team.select("/agents/*/name")).unwrap_or_default() {
        let name = name.as_str().unwrap_or_default();
        let folder = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if !name.is_empty() && folder && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    names
}

/// An agent is listed and `path` is not there.
pub(super) fn missing_file(team: &Document, agent: &str, path: &str) -> Problem {
    let members = team.select("/agents/*/name");
    let pointer = members.iter().find(|(_, name)| name.as_str() == Some(agent)).map_or("", |(pointer, _)| pointer);
    team.problem(pointer, format!("agent {agent:?} has no {path}"), None)
}

struct Known {
    agents: Names,
    rooms: Names,
    repositories: Names,
    routes: Names,
    tools: Names,
}

impl Known {
    fn of(team: Option<&Document>, models: Option<&Document>) -> Self {
        let keys = |document: Option<&Document>, pointer: &str| match document?.value().pointer(pointer) {
            Some(Value::Object(map)) => Some(map.keys().cloned().collect()),
            None => Some(BTreeSet::new()),
            Some(_) => None,
        };
        let names = |pattern: &str| team.map(|team| texts(team, pattern).into_iter().map(|(_, name)| name).collect());
        let mut rooms: Option<BTreeSet<String>> = names("/channels/matrix/rooms/*/name");
        if let Some(rooms) = &mut rooms
            && team.is_some_and(|team| team.value().pointer("/channels/terminal").is_some())
        {
            rooms.insert(TERMINAL_ROOM.to_owned());
        }
        Self {
            agents: Names { what: "agent", known: names("/agents/*/name").filter(|names| !names.is_empty()) },
            rooms: Names { what: "room", known: rooms },
            repositories: Names { what: "repository", known: keys(team, "/repositories") },
            routes: Names { what: "model route", known: keys(models, "/routes").filter(|keys| !keys.is_empty()) },
            tools: Names { what: "tool", known: Some(TOOLS.iter().map(|tool| tool.name.to_owned()).collect()) },
        }
    }
}

impl Names {
    /// Every text that matches `pattern` is one of these names.
    fn check(&self, document: &Document, pattern: &str) -> Vec<Problem> {
        let Some(known) = &self.known else {
            return Vec::new();
        };
        let unknown = texts(document, pattern).into_iter().filter(|(_, name)| !known.contains(name));
        let problem = |(pointer, name): (String, String)| {
            let hint = suggestion(&name, known.iter().map(String::as_str)).or_else(|| listed(known));
            document.problem(&pointer, format!("unknown {} {name:?}", self.what), hint)
        };
        unknown.map(problem).collect()
    }
}

/// Names to choose from, when they are few enough to read.
fn listed(known: &BTreeSet<String>) -> Option<String> {
    const MAX_LISTED: usize = 10;
    let names: Vec<&str> = known.iter().map(String::as_str).collect();
    (!names.is_empty() && names.len() <= MAX_LISTED).then(|| format!("there is {}", names.join(", ")))
}

fn team_problems(team: &Document, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    for pattern in ["/agents/*/name", "/channels/matrix/rooms/*/name", "/channels/matrix/rooms/*/id"] {
        problems.extend(duplicates(team, pattern));
    }
    problems.extend(duplicates(team, "/channels/matrix/rooms/*/alias"));
    problems.extend(duplicates(team, "/channels/matrix/allow/*"));
    problems.extend(known.rooms.check(team, "/channels/matrix/audit_room"));
    for (pointer, room) in team.select("/channels/matrix/rooms/*") {
        problems.extend(exactly_one(team, &pointer, room, &["id", "alias"]));
        problems.extend(room_problems(team, &pointer, room, known));
    }
    if let Some(matrix) = team.value().pointer("/channels/matrix") {
        let secrets = ["password_file", "password_env", "token_file", "token_env"];
        problems.extend(exactly_one(team, "/channels/matrix", matrix, &secrets));
    }
    if let Some(terminal) = team.value().pointer("/channels/terminal") {
        problems.extend(wakes(team, "/channels/terminal", terminal, known));
        problems.extend(needs_default(team, "/channels/terminal", terminal));
    }
    problems.extend(deadline(team));
    if let Some(zone) = team.value().pointer("/time_zone").and_then(Value::as_str)
        && jiff::tz::TimeZone::get(zone).is_err()
    {
        let hint = Some("a name of the IANA time zone database, such as UTC or Europe/Berlin".to_owned());
        problems.push(team.problem("/time_zone", format!("unknown time zone {zone:?}"), hint));
    }
    problems
}

/// A deadline that no credential outlives.
fn deadline(team: &Document) -> Option<Problem> {
    const AT: &str = "/limits/deadline";
    let text = team.value().pointer(AT)?.as_str()?;
    let Deadline(deadline) = text.to_owned().try_into().ok()?;
    let message = format!("{text} is longer than a run's credential lasts");
    (deadline > MAX_DEADLINE).then(|| team.problem(AT, message, Some("at most 7d".to_owned())))
}

fn room_problems(team: &Document, pointer: &str, room: &Value, known: &Known) -> Vec<Problem> {
    let mut problems = wakes(team, pointer, room, known);
    if room.get("name").and_then(Value::as_str) == Some(TERMINAL_ROOM) {
        let message = format!("{TERMINAL_ROOM:?} is the command line's name, not a room's");
        problems.push(team.problem(&format!("{pointer}/name"), message, None));
    }
    let seats = room.get("agents").and_then(Value::as_array).map_or(0, Vec::len);
    match room.get("mode").and_then(Value::as_str) {
        Some("all") => problems.extend(needs_default(team, pointer, room)),
        Some("mention") => {}
        _ => return problems,
    }
    if seats == 0 {
        let hint = Some("name some, or use mode: listen".to_owned());
        problems.push(team.key_problem(&format!("{pointer}/agents"), "no agent can be woken here", hint));
    }
    problems
}

/// The agents that a room or the terminal wakes.
fn wakes(team: &Document, pointer: &str, place: &Value, known: &Known) -> Vec<Problem> {
    let agents = format!("{pointer}/agents/*");
    let mut problems = known.agents.check(team, &agents);
    problems.extend(duplicates(team, &agents));
    if let (Some(default), Some(listed)) =
        (place.get("default").and_then(Value::as_str), place.get("agents").and_then(Value::as_array))
        && !listed.iter().any(|agent| agent.as_str() == Some(default))
    {
        let names = listed.iter().filter_map(Value::as_str);
        let message = format!("the default {default:?} is not among the agents here");
        problems.push(team.problem(&format!("{pointer}/default"), message, suggestion(default, names)));
    }
    problems
}

/// Whatever wakes an agent without naming one needs to know which.
fn needs_default(team: &Document, pointer: &str, place: &Value) -> Option<Problem> {
    let several = place.get("agents").and_then(Value::as_array).is_some_and(|agents| agents.len() > 1);
    let hint = Some("the agent that a message wakes when it names none".to_owned());
    (several && place.get("default").is_none()).then(|| team.key_problem(pointer, "missing key \"default\"", hint))
}

/// An agent that can be woken in a room has that room in its scope.
fn seats(team: &Document, scopes: &[(&str, Option<&Document>)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut places: Vec<(String, String)> = Vec::new();
    for (pointer, room) in team.select("/channels/matrix/rooms/*") {
        places.extend(room.get("name").and_then(Value::as_str).map(|name| (pointer, name.to_owned())));
    }
    places.push(("/channels/terminal".to_owned(), TERMINAL_ROOM.to_owned()));
    for (pointer, room) in places {
        for (at, agent) in texts(team, &format!("{pointer}/agents/*")) {
            let scope = scopes.iter().find(|(name, _)| *name == agent).and_then(|(_, scope)| *scope);
            let rooms = scope.and_then(|scope| scope.value().get("rooms")).and_then(Value::as_array);
            if rooms.is_some_and(|rooms| !rooms.iter().any(|name| name.as_str() == Some(&room))) {
                let hint = Some(format!("add it to rooms in agents/{agent}/capabilities.yaml"));
                problems.push(team.problem(&at, format!("agent {agent:?} has no room {room:?} in its scope"), hint));
            }
        }
    }
    problems
}

fn scope_problems(agent: &str, scope: &Document, known: &Known) -> Vec<Problem> {
    let mut problems = Vec::new();
    let checks = [
        (&known.routes, "/models/*"),
        (&known.tools, "/tools/*"),
        (&known.tools, "/tools/*/name"),
        (&known.rooms, "/rooms/*"),
        (&known.repositories, "/repositories/*"),
        (&known.agents, "/handoff_to/*"),
    ];
    for (names, pattern) in checks {
        problems.extend(names.check(scope, pattern));
    }
    for pattern in ["/models/*", "/rooms/*", "/repositories/*", "/handoff_to/*"] {
        problems.extend(duplicates(scope, pattern));
    }
    for (pointer, target) in texts(scope, "/handoff_to/*") {
        if target == agent {
            problems.push(scope.problem(&pointer, "an agent can not hand work to itself", None));
        }
    }
    if scope.value().get("lifecycle").and_then(Value::as_str) == Some("ephemeral") {
        let hint = Some("write resident".to_owned());
        problems.push(scope.problem("/lifecycle", "nothing here starts a process of its own for a run yet", hint));
    }
    problems.extend(grants(scope));
    problems
}

fn grants(scope: &Document) -> Vec<Problem> {
    let mut granted = texts(scope, "/tools/*");
    granted.extend(texts(scope, "/tools/*/name"));
    granted.sort_by_key(|(pointer, _)| scope.mark(pointer));
    let mut problems = repeated(scope, &granted);
    for (pointer, grant) in scope.select("/tools/*") {
        let name = grant.get("name").and_then(Value::as_str);
        let tool = TOOLS.iter().find(|tool| Some(tool.name) == name);
        if tool.is_some_and(|tool| !tool.restrictable) && grant.get("access").is_some() {
            let message = format!("{:?} can not be restricted", name.unwrap_or_default());
            problems.push(scope.key_problem(&format!("{pointer}/access"), message, None));
        }
    }
    let handoff = granted.iter().find(|(_, name)| name == "handoff");
    let targets = scope.value().get("handoff_to").and_then(Value::as_array).map_or(0, Vec::len);
    match handoff {
        Some((pointer, _)) if targets == 0 => {
            problems.push(scope.problem(pointer, "\"handoff\" needs agents in \"handoff_to\"", None));
        }
        None if targets > 0 => {
            problems.push(scope.key_problem("/handoff_to", "\"handoff_to\" needs the tool \"handoff\"", None));
        }
        _ => {}
    }
    problems
}

/// Texts that match `pattern`, with their places.
pub(super) fn texts(document: &Document, pattern: &str) -> Vec<(String, String)> {
    let texts = document.select(pattern).into_iter();
    texts.filter_map(|(pointer, value)| Some((pointer, value.as_str()?.to_owned()))).collect()
}

/// No text that matches `pattern` comes twice.
fn duplicates(document: &Document, pattern: &str) -> Vec<Problem> {
    repeated(document, &texts(document, pattern))
}

fn repeated(document: &Document, texts: &[(String, String)]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, (pointer, text)) in texts.iter().enumerate() {
        if let Some((first, _)) = texts[..index].iter().find(|(_, other)| other == text) {
            let hint = Some(format!("first at line {}", document.mark(first).line));
            problems.push(document.problem(pointer, format!("{text:?} is there twice"), hint));
        }
    }
    problems
}

/// Exactly one of `keys` is given.
pub(super) fn exactly_one(document: &Document, pointer: &str, value: &Value, keys: &[&str]) -> Option<Problem> {
    let map = value.as_object()?;
    let given: Vec<&&str> = keys.iter().filter(|key| map.contains_key(**key)).collect();
    match given.as_slice() {
        [_] => None,
        [] => Some(document.key_problem(pointer, format!("one of {} is needed", keys.join(", ")), None)),
        [.., last] => {
            let message = format!("only one of {} can be given", keys.join(", "));
            Some(document.key_problem(&format!("{pointer}/{last}"), message, None))
        }
    }
}

//! The crew as its files describe it: `team.yaml`, `models.yaml` and a folder an agent under `agents/`.
//!
//! A [`Crew`] exists only when all of these files are in order, so whoever holds one never meets an unknown agent, room,
//! repository, tool or route. Loading reports every problem of every file at once, each with its place: what one file
//! says alone is checked by its JSON Schema, what files say about each other by the private module `check`; the two are independent, so a
//! typing mistake in one place does not hide a wrong name in another.
//!
//! The files hold no secret. They name where one is, and [`SecretRef::read`] fetches it when it is needed.
//!
//! This module knows the files and nothing of what services do with them. Only [`Crew::load`] and [`SecretRef::read`]
//! touch the file system.

mod capabilities;
mod channels;
mod check;
mod check_models;
mod models;
mod price;
mod read;
mod secret;
mod shape;
mod team;

use std::{
    io,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use schemas::{AgentName, ProjectId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::yaml::{self, Problem, Schema};

pub use capabilities::{Access, Budgets, Capabilities, Grant, Harness, RunBudget, TOOLS, Tool};
pub use channels::{Channels, Login, Matrix, Mode, Room, RoomAddress, Terminal, TerminalAllow, UserPattern};
pub use models::{EffectiveError, Models, Provider, Route, Upstream};
pub use price::{InvalidRate, Price, Rate};
pub use read::ReadError;
pub use secret::{SecretError, SecretRef};
pub use team::{Deadline, InvalidDeadline, Limits, MAX_DEADLINE, Repository, RunUrl, Source};

use capabilities::CapabilitiesFile;
use models::ModelsFile;
use team::TeamFile;

/// The crew's list and channels, relative to the project folder.
pub const TEAM_FILE: &str = "team.yaml";
/// Routes and prices of models, relative to the project folder.
pub const MODELS_FILE: &str = "models.yaml";
/// The room name under which capabilities speak of the terminal.
pub const TERMINAL_ROOM: &str = "terminal";

static TEAM_SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<TeamFile>);
static MODELS_SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<ModelsFile>);
static SCOPE_SCHEMA: LazyLock<Schema> = LazyLock::new(Schema::of::<CapabilitiesFile>);

/// Everything that the project's files say.
#[derive(Debug, Clone)]
pub struct Crew {
    /// The project folder, which relative paths start from.
    pub dir: PathBuf,
    /// The project's name: its NATS account.
    pub project: ProjectId,
    /// The zone in which days begin.
    pub time_zone: jiff::tz::TimeZone,
    /// Repositories by name.
    pub repositories: std::collections::BTreeMap<String, Repository>,
    /// Where people reach the crew.
    pub channels: Channels,
    /// The loop breakers.
    pub limits: Limits,
    /// Where a run can be looked at; absent when there is no console.
    pub run_url: Option<RunUrl>,
    /// The agents, in the order of `team.yaml`.
    pub agents: Vec<Agent>,
    /// Routes and prices.
    pub models: Models,
}

/// One agent: its place in the team, its character and its scope.
#[derive(Debug, Clone)]
pub struct Agent {
    /// Its name, and that of its folder.
    pub name: AgentName,
    /// One line that others read when they choose whom to hand work to.
    pub description: String,
    /// The text of `persona.md`.
    pub persona: String,
    /// What it may do.
    pub capabilities: Capabilities,
}

impl Crew {
    /// Reads the project in `dir`.
    ///
    /// Errors: every problem of every file, ordered by file and line; never an empty list.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, Vec<Problem>> {
        let dir = dir.as_ref();
        Self::assemble(dir, |path| read::text(&dir.join(path)))
    }

    /// As [`Crew::load`], with the files coming from `read`, which is given paths relative to the project folder.
    pub fn assemble(dir: &Path, read: impl Fn(&str) -> Result<String, ReadError>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let team = file(TEAM_FILE, &TEAM_SCHEMA, &read, &mut problems);
        let models = file(MODELS_FILE, &MODELS_SCHEMA, &read, &mut problems);
        let members: Vec<Member> =
            check::member_names(team.document.as_ref()).into_iter().map(|name| Member::read(name, &read)).collect();
        problems.extend(members.iter().flat_map(|member| member.problems(team.document.as_ref())));
        let scopes = members.iter().map(|member| (member.name.as_str(), member.scope.document.as_ref()));
        let found = check::problems(team.document.as_ref(), models.document.as_ref(), &scopes.collect::<Vec<_>>());
        problems.extend(check::new_to(&problems, found));
        if problems.is_empty() {
            match build(dir, &team, &models, &members) {
                Ok(crew) => return Ok(crew),
                Err(problem) => problems.push(problem),
            }
        }
        problems.sort();
        problems.dedup();
        Err(problems)
    }

    /// The agent with this name.
    pub fn agent(&self, name: &AgentName) -> Option<&Agent> {
        self.agents.iter().find(|agent| agent.name == *name)
    }

    /// The Matrix room with this name.
    pub fn room(&self, name: &str) -> Option<&Room> {
        self.channels.matrix.as_ref()?.rooms.iter().find(|room| room.name == name)
    }
}

/// The published JSON Schemas of the three files, by file stem.
pub fn schemas() -> [(&'static str, Value); 3] {
    [
        ("team", yaml::schema::<TeamFile>()),
        ("capabilities", yaml::schema::<CapabilitiesFile>()),
        ("models", yaml::schema::<ModelsFile>()),
    ]
}

/// A file as far as it could be read.
struct Part {
    document: Option<yaml::Document>,
}

impl Part {
    fn decode<T: DeserializeOwned>(&self, name: &str) -> Result<(T, &yaml::Document), Problem> {
        let document = self.document.as_ref().ok_or_else(|| Problem::of_file(name, "could not be read", None))?;
        Ok((yaml::decode(document)?, document))
    }
}

/// An agent's folder as far as it could be read.
struct Member {
    name: String,
    persona: Result<String, ReadError>,
    scope: Part,
    scope_missing: bool,
    scope_problems: Vec<Problem>,
}

impl Member {
    fn read(name: String, read: &impl Fn(&str) -> Result<String, ReadError>) -> Self {
        let persona = read(&persona_file(&name));
        let path = scope_file(&name);
        match read(&path) {
            Ok(text) => {
                let checked = yaml::check(&path, &text, &SCOPE_SCHEMA);
                let scope = Part { document: checked.document };
                Self { name, persona, scope, scope_missing: false, scope_problems: checked.problems }
            }
            Err(error) => {
                let scope_missing = error.is_not_found();
                let scope_problems = if scope_missing { Vec::new() } else { vec![error.problem(&path)] };
                Self { name, persona, scope: Part { document: None }, scope_missing, scope_problems }
            }
        }
    }

    /// A missing file is the mistake of whoever named the agent, so it is told at that line of `team.yaml`.
    fn problems(&self, team: Option<&yaml::Document>) -> Vec<Problem> {
        let mut problems = self.scope_problems.clone();
        if self.scope_missing {
            problems.extend(team.map(|team| check::missing_file(team, &self.name, &scope_file(&self.name))));
        }
        match &self.persona {
            Ok(text) if text.trim().is_empty() => {
                problems.push(Problem::of_file(&persona_file(&self.name), "the persona is empty", None));
            }
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                problems.extend(team.map(|team| check::missing_file(team, &self.name, &persona_file(&self.name))));
            }
            Err(error) => problems.push(error.problem(&persona_file(&self.name))),
        }
        problems
    }
}

fn persona_file(agent: &str) -> String {
    format!("agents/{agent}/persona.md")
}

fn scope_file(agent: &str) -> String {
    format!("agents/{agent}/capabilities.yaml")
}

fn file(
    path: &str,
    schema: &Schema,
    read: &impl Fn(&str) -> Result<String, ReadError>,
    problems: &mut Vec<Problem>,
) -> Part {
    match read(path) {
        Ok(text) => {
            let checked = yaml::check(path, &text, schema);
            problems.extend(checked.problems);
            Part { document: checked.document }
        }
        Err(error) => {
            problems.push(error.problem(path));
            Part { document: None }
        }
    }
}

/// Turns files without problems into a crew; what still fails is a problem too, never a panic.
fn build(dir: &Path, team: &Part, models: &Part, members: &[Member]) -> Result<Crew, Problem> {
    let (file, document) = team.decode::<TeamFile>(TEAM_FILE)?;
    let (models, _) = models.decode::<ModelsFile>(MODELS_FILE)?;
    let mut agents = Vec::new();
    for entry in &file.agents {
        let path = scope_file(entry.name.as_str());
        let member = members.iter().find(|member| member.name == entry.name.as_str());
        let member = member.ok_or_else(|| Problem::of_file(&path, "could not be read", None))?;
        let (capabilities, _) = member.scope.decode::<CapabilitiesFile>(&path)?;
        agents.push(Agent {
            name: entry.name.clone(),
            description: entry.description.clone().unwrap_or_default(),
            persona: member.persona.as_deref().unwrap_or_default().trim().to_owned(),
            capabilities: capabilities.into(),
        });
    }
    let time_zone = jiff::tz::TimeZone::get(&file.time_zone)
        .map_err(|error| document.problem("/time_zone", error.to_string(), None))?;
    let channels = file.channels.resolve(dir);
    let channels = channels.ok_or_else(|| document.problem("/channels", "a secret or an address is missing", None))?;
    Ok(Crew {
        dir: dir.to_owned(),
        project: file.project,
        time_zone,
        repositories: file.repositories.into_iter().map(|(name, file)| (name, file.resolve(dir))).collect(),
        channels,
        limits: file.limits,
        run_url: file.console.map(|console| console.run_url),
        agents,
        models: models.resolve(dir),
    })
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

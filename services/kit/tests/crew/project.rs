//! A project in memory: the good one, and edits of it.

use std::{collections::BTreeMap, io, path::Path};

use kit::{
    crew::{Crew, ReadError},
    yaml::Problem,
};

pub(crate) const TEAM: &str = "team.yaml";
pub(crate) const MODELS: &str = "models.yaml";
pub(crate) const LEAD: &str = "agents/lead/capabilities.yaml";
pub(crate) const CODER: &str = "agents/coder/capabilities.yaml";

/// A project's files by path.
#[derive(Debug, Clone)]
pub(crate) struct Project(BTreeMap<String, String>);

impl Project {
    pub(crate) fn good() -> Self {
        let files = [
            (TEAM, include_str!("good/team.yaml")),
            (MODELS, include_str!("good/models.yaml")),
            (LEAD, include_str!("good/agents/lead/capabilities.yaml")),
            (CODER, include_str!("good/agents/coder/capabilities.yaml")),
            ("agents/lead/persona.md", include_str!("good/agents/lead/persona.md")),
            ("agents/coder/persona.md", include_str!("good/agents/coder/persona.md")),
        ];
        Self(files.map(|(path, text)| (path.to_owned(), text.to_owned())).into())
    }

    pub(crate) fn text(&self, path: &str) -> &str {
        &self.0[path]
    }

    pub(crate) fn with(mut self, path: &str, text: &str) -> Self {
        self.0.insert(path.to_owned(), text.to_owned());
        self
    }

    pub(crate) fn without(mut self, path: &str) -> Self {
        assert!(self.0.remove(path).is_some(), "{path} is a file of the good project");
        self
    }

    /// Replaces the one occurrence of `old` in a file.
    pub(crate) fn edit(self, path: &str, old: &str, new: &str) -> Self {
        let text = self.text(path);
        assert_eq!(text.matches(old).count(), 1, "{old:?} in {path}");
        let text = text.replace(old, new);
        self.with(path, &text)
    }

    pub(crate) fn load(&self) -> Result<Crew, Vec<Problem>> {
        Crew::assemble(Path::new("/project"), |path| match self.0.get(path) {
            Some(text) => Ok(text.clone()),
            None => Err(ReadError::Io(io::ErrorKind::NotFound.into())),
        })
    }

    /// What is said about the project, a line a problem.
    pub(crate) fn complaints(&self) -> Vec<String> {
        self.load().err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }
}

//! The settings file: YAML mappings, nested or flat, of scalars.
//!
//! `proxy: {listen: "127.0.0.1:0"}` and `proxy_listen: "127.0.0.1:0"` are the same setting. Every value keeps its
//! place, so that a mistake in it names file, line and column.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use saphyr_parser::{Event, Parser, Span};

/// A settings file above this is not one: it holds a few dozen short lines.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The values of a settings file by setting name.
#[derive(Debug, Clone, Default)]
pub struct FileValues(BTreeMap<String, (String, String)>);

/// The settings file can not be used.
#[derive(Debug, thiserror::Error)]
pub enum InvalidFile {
    /// Reading it failed.
    #[error("can not read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is far too large.
    #[error("{path} has {bytes} bytes, a settings file has at most {MAX_FILE_BYTES}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// It is not YAML.
    #[error("{place}: {message}")]
    Syntax {
        /// File, line and column.
        place: String,
        /// What the parser says.
        message: String,
    },
    /// It is YAML of another shape.
    #[error("{place}: expected mappings of settings, found {found}")]
    Shape {
        /// File, line and column.
        place: String,
        /// What is there.
        found: &'static str,
    },
    /// A setting is there twice.
    #[error("{place}: the setting {name} is there already, at {first}")]
    Twice {
        /// File, line and column of the second.
        place: String,
        /// The setting.
        name: String,
        /// File, line and column of the first.
        first: String,
    },
}

impl FileValues {
    /// Reads `path`; a file that does not exist has no values.
    pub fn load(path: &Path) -> Result<Self, InvalidFile> {
        let read = |source| InvalidFile::Read { path: path.to_owned(), source };
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(read(error)),
            Ok(meta) if meta.len() > MAX_FILE_BYTES => {
                return Err(InvalidFile::TooLarge { path: path.to_owned(), bytes: meta.len() });
            }
            Ok(_) => {}
        }
        Self::parse(path, &std::fs::read_to_string(path).map_err(read)?)
    }

    /// Parses `text`; `path` is only for messages.
    pub fn parse(path: &Path, text: &str) -> Result<Self, InvalidFile> {
        let mut flat = Flattener { path, prefix: Vec::new(), key: None, values: BTreeMap::new() };
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| InvalidFile::Syntax {
                place: place(path, error.marker().line(), error.marker().col()),
                message: error.info().to_owned(),
            })?;
            flat.take(event, span)?;
        }
        Ok(Self(flat.values))
    }

    /// The value of a setting and its place. An empty value counts as not set, as in the environment.
    pub(super) fn get(&self, name: &str) -> Option<(&str, &str)> {
        let (value, place) = self.0.get(name)?;
        (!value.is_empty()).then_some((value, place))
    }
}

fn place(path: &Path, line: usize, column: usize) -> String {
    format!("{}:{line}:{}", path.display(), column + 1)
}

/// Turns the parser's events into flat names; YAML's depth is a stack here, not recursion.
struct Flattener<'a> {
    path: &'a Path,
    prefix: Vec<String>,
    key: Option<String>,
    values: BTreeMap<String, (String, String)>,
}

impl Flattener<'_> {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), InvalidFile> {
        let place = place(self.path, span.start.line(), span.start.col());
        match event {
            Event::MappingStart(..) => {
                // The outermost mapping has no key; an empty part keeps the stack aligned with the nesting.
                self.prefix.push(self.key.take().unwrap_or_default());
                Ok(())
            }
            Event::MappingEnd => {
                self.prefix.pop();
                Ok(())
            }
            Event::Scalar(text, ..) if self.prefix.is_empty() && text.trim().is_empty() => Ok(()),
            Event::Scalar(..) if self.prefix.is_empty() => Err(InvalidFile::Shape { place, found: "a single value" }),
            Event::Scalar(text, ..) => match self.key.take() {
                None => {
                    self.key = Some(text.into_owned());
                    Ok(())
                }
                Some(key) => self.insert(&key, text.into_owned(), place),
            },
            Event::SequenceStart(..) => Err(InvalidFile::Shape { place, found: "a list" }),
            Event::Alias(_) => Err(InvalidFile::Shape { place, found: "an alias" }),
            _ => Ok(()),
        }
    }

    fn insert(&mut self, key: &str, value: String, place: String) -> Result<(), InvalidFile> {
        let parts = self.prefix.iter().map(String::as_str).filter(|part| !part.is_empty());
        let name = parts.chain([key]).collect::<Vec<_>>().join("_");
        let name = name.to_ascii_uppercase().replace('-', "_");
        if let Some((_, first)) = self.values.get(&name) {
            return Err(InvalidFile::Twice { place, name, first: first.clone() });
        }
        self.values.insert(name, (value, place));
        Ok(())
    }
}

//! Settings: an environment variable `NIGHTCREW_<NAME>` over a value of the settings file over the default.
//!
//! A [`Reader`] hands out values and remembers every mistake, so that all of them are reported at once: which
//! variable, which value, what is expected. One reader serves all services of a process. It also remembers what was
//! read, which is the effective configuration, secrets redacted. What a setting means is the business of whoever
//! reads it; this module only finds and parses.
//!
//! The environment is injected as an [`Env`], because a process-wide map can be neither set nor trusted in tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use secrecy::SecretString;

mod duration;
mod effective;
mod env;
mod file;

pub use duration::{InvalidDuration, Seconds};
pub use effective::{Effective, Origin, Setting};
pub use env::Env;
pub use file::{FileValues, InvalidFile};
pub use secrecy::ExposeSecret;

/// A value that is redacted wherever it is printed; `expose_secret()` gives it out.
pub type Secret = SecretString;

/// Every variable of ours begins with it.
pub const PREFIX: &str = "NIGHTCREW_";

/// Exit code for mistakes in the configuration: `EX_USAGE` of sysexits.
pub const EXIT_CONFIG: u8 = 64;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The variable, or the place in the settings file.
    pub place: String,
    /// The value; absent when there is none, or when it is a secret.
    pub value: Option<String>,
    /// What is expected there.
    pub expected: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}={value:?}: expected {}", self.place, self.expected),
            None => write!(f, "{}: expected {}", self.place, self.expected),
        }
    }
}

/// Everything that is wrong with the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidConfig {
    /// All mistakes, in the order in which they were found.
    pub mistakes: Vec<Mistake>,
}

impl std::error::Error for InvalidConfig {}

impl fmt::Display for InvalidConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.mistakes.len();
        let plural = if count == 1 { "" } else { "s" };
        write!(f, "{count} mistake{plural} in the configuration")?;
        for mistake in &self.mistakes {
            write!(f, "\n  {mistake}")?;
        }
        Ok(())
    }
}

/// Hands out settings and collects mistakes.
///
/// Names are given without [`PREFIX`]: `"PROXY_LISTEN"` is the variable `NIGHTCREW_PROXY_LISTEN` and the key
/// `proxy_listen` (or `listen` under `proxy`) of the file.
#[derive(Debug)]
pub struct Reader<'a> {
    env: &'a Env,
    file: &'a FileValues,
    mistakes: Vec<Mistake>,
    settings: BTreeMap<String, Setting>,
    known: BTreeSet<String>,
}

/// A value as it was found, before it is parsed.
struct Found {
    text: String,
    origin: Origin,
    place: String,
}

impl<'a> Reader<'a> {
    /// Reads from `env` first and from `file` second.
    pub fn new(env: &'a Env, file: &'a FileValues) -> Self {
        Self { env, file, mistakes: Vec::new(), settings: BTreeMap::new(), known: BTreeSet::new() }
    }

    /// A value with a default. After a mistake the default stands in, and [`Reader::finish`] reports the mistake.
    ///
    /// `expected` tells people what to write, such as `"a socket address like 127.0.0.1:0"`.
    pub fn value<T: FromStr + fmt::Display>(&mut self, name: &str, expected: &str, default: T) -> T {
        if let Some(found) = self.find(name) {
            return self.parse(name, expected, found).unwrap_or(default);
        }
        self.remember(name, default.to_string(), Origin::Default);
        default
    }

    /// A value that may be absent.
    pub fn optional<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        let found = self.find(name)?;
        self.parse(name, expected, found)
    }

    /// A value that must be there; `None` is a mistake that [`Reader::finish`] reports.
    pub fn required<T: FromStr>(&mut self, name: &str, expected: &str) -> Option<T> {
        if let Some(found) = self.find(name) {
            return self.parse(name, expected, found);
        }
        self.mistake(format!("{PREFIX}{name}"), None, format!("{expected}; it is not set"));
        None
    }

    /// A path with a default; nothing is checked on disk.
    pub fn path(&mut self, name: &str, default: &Path) -> PathBuf {
        let found = self.find(name);
        let (text, origin) =
            found.map_or_else(|| (default.display().to_string(), Origin::Default), |found| (found.text, found.origin));
        self.remember(name, text.clone(), origin);
        PathBuf::from(text)
    }

    /// A secret from `NIGHTCREW_<name>`, or from the file that `NIGHTCREW_<name>_FILE` names. Never from the settings
    /// file, which is committed.
    pub fn secret(&mut self, name: &str) -> Option<Secret> {
        self.secret_at(&format!("{PREFIX}{name}"))
    }

    /// A secret under a name that others gave it, such as `ANTHROPIC_API_KEY`; `<name>_FILE` works too.
    pub fn foreign_secret(&mut self, name: &str) -> Option<Secret> {
        self.secret_at(name)
    }

    /// Reports that a value is wrong for a reason that parsing it could not show.
    pub fn reject(&mut self, name: &str, expected: impl Into<String>) {
        let variable = format!("{PREFIX}{name}");
        let setting = self.settings.get(&variable);
        let value = setting.filter(|s| s.origin != Origin::Default).map(|s| s.value.clone());
        self.mistake(variable, value, expected.into());
    }

    /// Declares variables that somebody else reads, so that they are not reported as unknown.
    pub fn known(&mut self, names: &[&str]) {
        self.known.extend(names.iter().map(|name| format!("{PREFIX}{name}")));
    }

    /// The configuration and what it is made of, or every mistake.
    ///
    /// `config` is `None` exactly when something required was missing, so `(|| Some(Config { url: url?, .. }))()` or a
    /// function that returns `Option` builds it.
    pub fn finish<C>(self, config: Option<C>) -> Result<(C, Effective), InvalidConfig> {
        let Self { env, mut mistakes, settings, mut known, .. } = self;
        if let (Some(config), true) = (config, mistakes.is_empty()) {
            known.extend(settings.keys().cloned());
            let unknown = env.unknown(&known);
            return Ok((config, Effective { settings, unknown }));
        }
        if mistakes.is_empty() {
            mistakes.push(Mistake {
                place: "configuration".to_owned(),
                value: None,
                expected: "a value that was left out without a reason; this is a bug".to_owned(),
            });
        }
        Err(InvalidConfig { mistakes })
    }

    fn find(&mut self, name: &str) -> Option<Found> {
        let variable = format!("{PREFIX}{name}");
        self.known.insert(variable.clone());
        if let Some(text) = self.env.get(&variable) {
            return Some(Found { text: text.to_owned(), origin: Origin::Environment, place: variable });
        }
        let (text, place) = self.file.get(name)?;
        Some(Found { text: text.to_owned(), origin: Origin::File, place: place.to_owned() })
    }

    fn parse<T: FromStr>(&mut self, name: &str, expected: &str, found: Found) -> Option<T> {
        if let Ok(value) = found.text.trim().parse() {
            self.remember(name, found.text, found.origin);
            return Some(value);
        }
        self.mistake(found.place, Some(found.text), expected.to_owned());
        None
    }

    fn secret_at(&mut self, variable: &str) -> Option<Secret> {
        let file_variable = format!("{variable}_FILE");
        self.known.extend([variable.to_owned(), file_variable.clone()]);
        let secret = match (self.env.get(variable), self.env.get(&file_variable)) {
            (Some(_), Some(_)) => {
                self.mistake(variable.to_owned(), None, format!("either it or {file_variable}, not both"));
                return None;
            }
            (None, None) => return None,
            (Some(text), None) => text.to_owned(),
            (None, Some(path)) => self.secret_file(&file_variable, path)?,
        };
        if secret.trim().is_empty() {
            self.mistake(variable.to_owned(), None, "a secret; it is empty".to_owned());
            return None;
        }
        let setting = Setting { value: effective::REDACTED.to_owned(), origin: Origin::Environment };
        self.settings.insert(variable.to_owned(), setting);
        Some(Secret::from(secret.trim().to_owned()))
    }

    fn secret_file(&mut self, variable: &str, path: &str) -> Option<String> {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(text),
            Err(error) => {
                let expected = format!("a file that holds the secret and can be read ({error})");
                self.mistake(variable.to_owned(), Some(path.to_owned()), expected);
                None
            }
        }
    }

    fn remember(&mut self, name: &str, value: String, origin: Origin) {
        self.settings.insert(format!("{PREFIX}{name}"), Setting { value, origin });
    }

    fn mistake(&mut self, place: String, value: Option<String>, expected: String) {
        self.mistakes.push(Mistake { place, value, expected });
    }
}

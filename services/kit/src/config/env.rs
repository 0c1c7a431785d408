//! The environment as a value.

use std::collections::{BTreeMap, BTreeSet};

use super::PREFIX;

/// Names further apart than this are not offered as what was meant: two slips of the hand.
const MAX_TYPO_DISTANCE: usize = 2;

/// Environment variables, taken from the process or made by a test.
#[derive(Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The environment of this process. Variables that are not UTF-8 are left out.
    pub fn from_process() -> Self {
        let utf8 = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self(std::env::vars_os().filter_map(utf8).collect())
    }

    /// The value of a variable. An empty one counts as not set, which is what `NAME= command` means to people.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// Variables with our prefix that are not in `known`, each with the name that was probably meant.
    pub(super) fn unknown(&self, known: &BTreeSet<String>) -> Vec<(String, Option<String>)> {
        let ours = self.0.keys().filter(|name| name.starts_with(PREFIX));
        let unknown = ours.filter(|name| !known.contains(*name));
        unknown.map(|name| (name.clone(), nearest(name, known))).collect()
    }
}

/// Names only: values may be secrets of others.
impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn nearest(name: &str, known: &BTreeSet<String>) -> Option<String> {
    let distances = known.iter().map(|known| (strsim::damerau_levenshtein(name, known), known));
    let (_, known) = distances.filter(|(distance, _)| *distance <= MAX_TYPO_DISTANCE).min()?;
    Some(known.clone())
}

//! A file's content as JSON, with the place in the file of each node.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::Problem;

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

impl Mark {
    /// The first character of a file.
    pub const START: Self = Self { line: 1, column: 1 };
}

/// Where a node stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    /// The key that holds it, when a mapping does.
    pub(super) key: Option<Mark>,
    /// Its value.
    pub(super) value: Mark,
}

/// A file that is YAML, whether or not it says something sensible.
#[derive(Debug, Clone)]
pub struct Document {
    pub(super) file: String,
    pub(super) value: Value,
    pub(super) places: BTreeMap<String, Place>,
    /// Nodes that were refused by the reader and hold a placeholder.
    pub(super) refused: BTreeSet<String>,
}

impl Document {
    /// The file, as it was named to the reader.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The content; a node that was refused is null.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Where the value at a JSON Pointer stands, or the nearest node that holds it.
    pub fn mark(&self, pointer: &str) -> Mark {
        self.nearest(pointer).map_or(Mark::START, |place| place.value)
    }

    /// Where the key of the value at a JSON Pointer stands; the value itself for an item of a list.
    pub fn key_mark(&self, pointer: &str) -> Mark {
        self.nearest(pointer).map_or(Mark::START, |place| place.key.unwrap_or(place.value))
    }

    /// A problem with the value at `pointer`.
    pub fn problem(&self, pointer: &str, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.problem_at(self.mark(pointer), pointer, message.into(), hint)
    }

    /// A problem with the key at `pointer`: it should not be there, or its mapping lacks something.
    pub fn key_problem(&self, pointer: &str, message: impl Into<String>, hint: Option<String>) -> Problem {
        self.problem_at(self.key_mark(pointer), pointer, message.into(), hint)
    }

    /// All nodes that match a JSON Pointer in which the token `*` stands for every item or key.
    ///
    /// ```
    /// let file = "rooms:\n  - name: crew\n  - name: audit\n";
    /// let anything = kit::yaml::Schema::new(serde_json::json!({}));
    /// let document = kit::yaml::check("team.yaml", file, &anything).document.unwrap();
    /// let names: Vec<_> = document.select("/rooms/*/name").into_iter().map(|(at, _)| at).collect();
    /// assert_eq!(names, ["/rooms/0/name", "/rooms/1/name"]);
    /// ```
    pub fn select(&self, pattern: &str) -> Vec<(String, &Value)> {
        let mut found = vec![(String::new(), &self.value)];
        for token in pattern.split('/').skip(1) {
            found = found.into_iter().flat_map(|(pointer, value)| step(&pointer, value, token)).collect();
        }
        found
    }

    fn problem_at(&self, mark: Mark, pointer: &str, message: String, hint: Option<String>) -> Problem {
        Problem {
            file: self.file.clone(),
            line: mark.line,
            column: mark.column,
            path: pointer.to_owned(),
            message,
            hint,
        }
    }

    fn nearest(&self, pointer: &str) -> Option<&Place> {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return Some(place);
            }
            pointer = &pointer[..pointer.rfind('/')?];
        }
    }
}

/// The JSON Pointer of `token` inside the node at `pointer`.
pub fn child(pointer: &str, token: &str) -> String {
    format!("{pointer}/{}", token.replace('~', "~0").replace('/', "~1"))
}

fn step<'a>(pointer: &str, value: &'a Value, token: &str) -> Vec<(String, &'a Value)> {
    match (value, token) {
        (Value::Array(items), "*") => {
            items.iter().enumerate().map(|(index, item)| (child(pointer, &index.to_string()), item)).collect()
        }
        (Value::Object(map), "*") => map.iter().map(|(key, item)| (child(pointer, key), item)).collect(),
        _ => value.pointer(&format!("/{token}")).map(|item| (format!("{pointer}/{token}"), item)).into_iter().collect(),
    }
}

//! Reads configuration files so that a person can mend them: all mistakes at once, each with file, line and column.
//!
//! A file is read once into a [`Document`] (a JSON value and the place of each node), checked against the JSON Schema
//! that `schemars` derives from the Rust type, and only then deserialized. The schema reports everything that is wrong,
//! where `serde` alone would stop at the first mistake; the same schema is what editors complete from. Checks that need
//! more than one file add their own problems with [`Document::problem`].
//!
//! Only plain YAML is accepted: one document, no anchors, aliases, merge keys or tags, no duplicate keys, no tabs, bounded
//! in size and depth. What these allow is never needed here, and each hides something from whoever reads the file.
//!
//! This module knows nothing of crews. It touches no file system: the text is an input.

mod document;
mod nearest;
mod reader;
mod tabs;
mod validate;

use std::fmt;

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::Value;

pub use document::{Document, Mark, child};
pub use nearest::suggestion;
pub use reader::{MAX_BYTES, MAX_DEPTH, MAX_NODES};
pub use validate::Schema;

/// One mistake in a file, with the place to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named to the reader.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// JSON Pointer (RFC 6901) of the node in question; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A mistake of a file as a whole, such as its absence.
    pub fn of_file(file: &str, message: impl Into<String>, hint: Option<String>) -> Self {
        Self { file: file.to_owned(), line: 1, column: 1, path: String::new(), message: message.into(), hint }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// A file that was read without a problem.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The typed content.
    pub value: T,
    /// Where each node stands, for checks that follow.
    pub document: Document,
}

/// What [`check`] found: as much of the file as could be read, and everything that is wrong with it.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The file's nodes; absent when it is not YAML.
    pub document: Option<Document>,
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
}

/// Reads `text` as a `T`; `file` is only named in problems.
///
/// Errors: every problem of the file, in the order of its lines; never an empty list.
pub fn load<T: DeserializeOwned + JsonSchema>(file: &str, text: &str) -> Result<Loaded<T>, Vec<Problem>> {
    let checked = check(file, text, &Schema::of::<T>());
    match checked.document {
        Some(document) if checked.problems.is_empty() => {
            let value = decode(&document).map_err(|problem| vec![problem])?;
            Ok(Loaded { value, document })
        }
        _ => Err(checked.problems),
    }
}

/// Reads `text` and compares it with `schema`, without deserializing.
pub fn check(file: &str, text: &str, schema: &Schema) -> Checked {
    let (document, mut problems) = reader::read(file, text);
    if let Some(document) = &document {
        problems.extend(schema.problems(document));
    }
    problems.sort();
    problems.dedup();
    Checked { document, problems }
}

/// Deserializes a document that [`check`] found to be in order.
///
/// Errors: the node that `T` refuses although its schema admits it, such as `3.0` for a whole number.
pub fn decode<T: DeserializeOwned>(document: &Document) -> Result<T, Problem> {
    serde_path_to_error::deserialize(document.value()).map_err(|error| {
        let pointer = pointer_of(error.path());
        document.problem(&pointer, error.into_inner().to_string(), None)
    })
}

/// The JSON Schema (draft 2020-12) of `T`, as [`load`] checks it and as it is published for editors.
pub fn schema<T: JsonSchema>() -> Value {
    schemars::generate::SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

fn pointer_of(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    path.iter().fold(String::new(), |pointer, segment| match segment {
        Segment::Seq { index } => child(&pointer, &index.to_string()),
        Segment::Map { key } => child(&pointer, key),
        Segment::Enum { .. } | Segment::Unknown => pointer,
    })
}

//! Compares a [`Document`] with a JSON Schema and says what differs in words that a person can act on.
//!
//! Two keywords that validators ignore carry such words: `patternErrorMessage` (which editors know too) says what a
//! pattern means, and `x-secret` keeps a value out of messages because somebody may have put a secret there.

use jsonschema::{
    JsonType, ValidationError, Validator,
    error::{TypeKind, ValidationErrorKind as Kind},
};
use schemars::JsonSchema;
use serde_json::Value;

use super::{
    Problem,
    document::{Document, child},
    nearest::suggestion,
};

/// Longest text that a message quotes, in characters: enough to recognise it.
const MAX_QUOTED: usize = 40;

/// Stands for a value that is not repeated.
const HIDDEN: &str = "what is written";

/// A JSON Schema (draft 2020-12) that is ready to compare with. Making one costs more than using it.
#[derive(Debug)]
pub struct Schema {
    value: Value,
    validator: Result<Validator, String>,
}

impl Schema {
    /// The schema of `T`, as `schemars` derives it.
    pub fn of<T: JsonSchema>() -> Self {
        Self::new(super::schema::<T>())
    }

    /// Takes a schema from elsewhere. One that is no schema makes a problem of every file.
    pub fn new(value: Value) -> Self {
        let validator = jsonschema::options().should_validate_formats(true).build(&value);
        Self { validator: validator.map_err(|error| error.to_string()), value }
    }

    /// Everything in which `document` differs from the schema.
    pub(super) fn problems(&self, document: &Document) -> Vec<Problem> {
        match &self.validator {
            Ok(validator) => {
                let check = Check { document, schema: &self.value };
                validator.iter_errors(document.value()).flat_map(|error| check.describe(&error)).collect()
            }
            Err(error) => {
                vec![document.problem("", format!("this file's schema is broken: {error}"), None)]
            }
        }
    }
}

struct Check<'a> {
    document: &'a Document,
    schema: &'a Value,
}

impl Check<'_> {
    fn describe(&self, error: &ValidationError<'_>) -> Vec<Problem> {
        let pointer = error.instance_path().as_str();
        if self.is_refused(pointer) {
            return Vec::new();
        }
        let one = |message: String, hint: Option<String>| vec![self.document.problem(pointer, message, hint)];
        match error.kind() {
            Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected } => {
                self.unknown_keys(error, pointer, unexpected)
            }
            Kind::Required { property } => {
                let key = property.as_str().unwrap_or_default();
                vec![self.document.key_problem(pointer, format!("missing key {key:?}"), None)]
            }
            Kind::PropertyNames { error: inner } => {
                let key = inner.instance().as_str().unwrap_or_default();
                let message = format!("{key:?} can not be a key here");
                vec![self.document.key_problem(&child(pointer, key), message, self.meaning(inner))]
            }
            Kind::Type { kind } => {
                let (message, hint) = wrong_type(kind, &self.found(error));
                one(message, hint)
            }
            Kind::Enum { options } => one_of(options.as_array().map_or(&[], Vec::as_slice), error, &one),
            Kind::Constant { expected_value } => one_of(std::slice::from_ref(expected_value.as_ref()), error, &one),
            Kind::AnyOf { context } | Kind::OneOfNotValid { context } | Kind::OneOfMultipleValid { context } => {
                self.alternatives(error, context, &one)
            }
            Kind::Pattern { pattern } => {
                let hint = self.meaning(error).unwrap_or_else(|| format!("must match {pattern}"));
                one(format!("{} is not valid here", self.found(error)), Some(hint))
            }
            Kind::Format { format } => one(format!("{} is not a valid {format}", self.found(error)), None),
            Kind::Minimum { limit } => one(format!("{} is less than {limit}", self.found(error)), None),
            Kind::ExclusiveMinimum { limit } => one(format!("{} is not more than {limit}", self.found(error)), None),
            Kind::Maximum { limit } => one(format!("{} is more than {limit}", self.found(error)), None),
            Kind::MinItems { limit: 1 } | Kind::MinLength { limit: 1 } | Kind::MinProperties { limit: 1 } => {
                one("must not be empty".to_owned(), None)
            }
            Kind::MaxItems { limit } => one(format!("has more than {limit} items"), None),
            Kind::MaxLength { limit } => one(format!("has more than {limit} characters"), None),
            _ => one(error.masked().to_string(), None),
        }
    }

    fn unknown_keys(&self, error: &ValidationError<'_>, pointer: &str, unexpected: &[String]) -> Vec<Problem> {
        let known = self.holder(error).and_then(|holder| holder.get("properties")).and_then(Value::as_object);
        let problem = |key: &String| {
            let missing = |name: &&str| !error.instance().get(*name).is_some_and(|_| true);
            let names = known.into_iter().flat_map(|map| map.keys().map(String::as_str)).filter(missing);
            let hint = suggestion(key, names);
            self.document.key_problem(&child(pointer, key), format!("unknown key {key:?}"), hint)
        };
        unexpected.iter().map(problem).collect()
    }

    /// None of several shapes fits: reports the mistakes in the shape that was most likely meant.
    fn alternatives(
        &self,
        error: &ValidationError<'_>,
        branches: &[Vec<ValidationError<'static>>],
        one: &dyn Fn(String, Option<String>) -> Vec<Problem>,
    ) -> Vec<Problem> {
        let constants: Option<Vec<Value>> = branches.iter().map(|branch| constant(branch)).collect();
        if let Some(options) = constants.filter(|options| !options.is_empty()) {
            let options: Vec<Value> = options.into_iter().flat_map(flatten).collect();
            return one_of(&options, error, one);
        }
        let here = error.instance_path().as_str();
        let fits = |branch: &&Vec<ValidationError<'static>>| {
            !branch.iter().any(|e| matches!(e.kind(), Kind::Type { .. }) && e.instance_path().as_str() == here)
        };
        let tags: Vec<_> = branches.iter().filter(fits).map(|branch| branch.iter().find_map(tag)).collect();
        if let Some(Some(wrong)) = tags.first()
            && let Some(tags) = tags.iter().copied().collect::<Option<Vec<_>>>()
        {
            let options: Vec<Value> = tags.into_iter().map(|(_, option)| option.clone()).collect();
            let at = |message, hint| vec![self.document.problem(wrong.0.instance_path().as_str(), message, hint)];
            return one_of(&options, wrong.0, &at);
        }
        let unlikely =
            |branch: &&Vec<ValidationError<'static>>| (branch.iter().any(|e| tag(e).is_some()), branch.len());
        let meant = branches.iter().filter(fits).min_by_key(unlikely);
        if let Some(branch) = meant {
            return branch.iter().flat_map(|error| self.describe(error)).collect();
        }
        let mut expected: Vec<&str> = branches.iter().flatten().flat_map(expected_types).collect();
        expected.dedup();
        one(format!("expected {}, found {}", expected.join(" or "), self.found(error)), None)
    }

    /// What was found, in words; a value that may be a secret is not repeated.
    fn found(&self, error: &ValidationError<'_>) -> String {
        let value = error.instance();
        let secret = self.holder(error).and_then(|holder| holder.get("x-secret")) == Some(&Value::Bool(true));
        match value.as_ref() {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a mapping".to_owned(),
            _ if secret => HIDDEN.to_owned(),
            Value::Number(number) => format!("the number {number}"),
            Value::String(text) => quoted(text),
        }
    }

    /// The words that the schema has for a pattern.
    fn meaning(&self, error: &ValidationError<'_>) -> Option<String> {
        self.holder(error)?.get("patternErrorMessage")?.as_str().map(str::to_owned)
    }

    /// The part of the schema that holds the keyword which failed.
    fn holder(&self, error: &ValidationError<'_>) -> Option<&Value> {
        let path = error.schema_path().as_str();
        self.schema.pointer(&path[..path.rfind('/')?])
    }

    fn is_refused(&self, pointer: &str) -> bool {
        let inside = |refused: &String| {
            pointer.strip_prefix(refused.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        self.document.refused.iter().any(inside)
    }
}

fn one_of(
    options: &[Value],
    error: &ValidationError<'_>,
    one: &dyn Fn(String, Option<String>) -> Vec<Problem>,
) -> Vec<Problem> {
    let names: Vec<String> = options.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let found = error.instance();
    let (found, hint) = match found.as_str() {
        Some(text) => (quoted(text), suggestion(text, names.iter().map(String::as_str))),
        None => (HIDDEN.to_owned(), None),
    };
    one(format!("{found} is not one of: {}", names.join(", ")), hint)
}

/// The constants that a branch would have accepted, when that is all it asks for.
fn constant(branch: &[ValidationError<'static>]) -> Option<Value> {
    match branch {
        [error] => match error.kind() {
            Kind::Constant { expected_value } => Some(Value::clone(expected_value)),
            Kind::Enum { options } => Some(Value::clone(options)),
            _ => None,
        },
        _ => None,
    }
}

/// A constant that was not met: the tag by which shapes are told apart.
fn tag<'e>(error: &'e ValidationError<'static>) -> Option<(&'e ValidationError<'static>, &'e Value)> {
    match error.kind() {
        Kind::Constant { expected_value } => Some((error, expected_value.as_ref())),
        _ => None,
    }
}

fn flatten(options: Value) -> Vec<Value> {
    match options {
        Value::Array(options) => options,
        option => vec![option],
    }
}

fn wrong_type(kind: &TypeKind, found: &str) -> (String, Option<String>) {
    let expected = type_names(kind);
    let is_text = expected == ["text"];
    let hint = if is_text && (found.starts_with("the number") || found == "true" || found == "false") {
        Some("put it in quotes".to_owned())
    } else if expected == ["true or false"] {
        Some("write true or false, without quotes".to_owned())
    } else {
        None
    };
    (format!("expected {}, found {found}", expected.join(" or ")), hint)
}

fn expected_types(error: &ValidationError<'static>) -> Vec<&'static str> {
    match error.kind() {
        Kind::Type { kind } => type_names(kind),
        _ => Vec::new(),
    }
}

/// Null is left out: it stands for a key that is not there.
fn type_names(kind: &TypeKind) -> Vec<&'static str> {
    let types: Vec<JsonType> = match kind {
        TypeKind::Single(one) => vec![*one],
        TypeKind::Multiple(several) => several.iter().collect(),
    };
    let name = |kind: JsonType| match kind {
        JsonType::Array => Some("a list"),
        JsonType::Boolean => Some("true or false"),
        JsonType::Integer => Some("a whole number"),
        JsonType::Null => None,
        JsonType::Number => Some("a number"),
        JsonType::Object => Some("a mapping"),
        JsonType::String => Some("text"),
    };
    types.into_iter().filter_map(name).collect()
}

/// An address with somebody's credentials in it is not repeated.
fn quoted(text: &str) -> String {
    if text.split_once("://").is_some_and(|(_, rest)| rest.contains('@')) {
        return HIDDEN.to_owned();
    }
    if text.chars().count() <= MAX_QUOTED {
        return format!("{text:?}");
    }
    let start: String = text.chars().take(MAX_QUOTED).collect();
    format!("{start:?}...")
}

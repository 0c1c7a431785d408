//! What holds for the whole tree and no compiler checks: who may depend on whom, what domain code may not touch, where
//! a subject may be spelled, and that documents name recipes that exist.
//!
//! Each rule collects all its breaches before it fails, so that one run shows what is to be mended.
#![expect(clippy::expect_used, reason = "a test that can not go on fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// Beyond this a file has a second subject; most have a third of it.
const MOST_LINES: usize = 700;

/// Crates that put the services together, and so may depend on all.
const ASSEMBLERS: [&str; 2] = ["nightcrew", "nightcrew-tests"];

/// Where a subject may be spelled: the one builder and parser, and the permissions that grant patterns of subjects.
const SPELL_SUBJECTS: [&str; 2] = ["schemas/src/subject.rs", "services/kit/src/identity/permissions.rs"];

/// What makes code depend on a time, a machine or a network.
const NOT_IN_DOMAIN: [&str; 6] = ["async fn", "tokio::", "async_nats::", "reqwest::", "matrix_sdk::", "std::fs"];

/// Modules that decide and must stay pure, besides every `domain`.
const PURE: [&str; 1] = ["services/agent-runner/src/run"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// A source file: its path below the root, and its text.
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Its lines with their numbers, without comments.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        self.text
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line))
            .filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    /// The part before the tests at its end.
    fn before_tests(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code().take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
    }

    fn is_test(&self) -> bool {
        self.path.starts_with("tests/") || self.path.contains("/tests/")
    }

    fn is_pure(&self) -> bool {
        let path = self.path.trim_end_matches(".rs");
        path.split('/').any(|part| part == "domain")
            || PURE.iter().any(|pure| path == *pure || path.starts_with(&format!("{pure}/")))
    }
}

/// All Rust files of the workspace.
fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["schemas", "services", "tests"].iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder that can be read") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = fs::read_to_string(&path).expect("a text");
                let path = path.strip_prefix(root()).expect("below the root");
                let path = path.to_str().expect("a name in UTF-8").to_owned();
                found.push(Source { path, text });
            }
        }
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

/// The names of the crates of the workspace, and of those that each depends on, for tests and builds too.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let printed = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let metadata: Value = serde_json::from_slice(&printed.stdout).expect("cargo prints JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    let name = |value: &Value| value["name"].as_str().expect("a name").to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    packages
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            // A service's own tests may start the real others: that is no dependency of the service.
            let shipped = dependencies.iter().filter(|dependency| dependency["kind"] != "dev");
            let inner = shipped.map(name);
            (name(package), inner.filter(|name| members.contains(name)).collect())
        })
        .collect()
}

fn assert_none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn dependencies_point_at_contracts() {
    let allowed = |name: &str| -> &[&str] {
        match name {
            "schemas" => &[],
            "kit" => &["schemas"],
            _ => &["schemas", "kit"],
        }
    };
    let breaches: Vec<String> = crates()
        .iter()
        .filter(|(name, _)| !ASSEMBLERS.contains(&name.as_str()))
        .flat_map(|(name, dependencies)| {
            dependencies
                .iter()
                .filter(|dependency| !allowed(name).contains(&dependency.as_str()))
                .map(move |dependency| format!("{name} depends on {dependency}"))
        })
        .collect();
    assert_none("schemas <- kit <- services, and no service knows another", &breaches);
}

#[test]
fn versions_and_lints_come_from_the_workspace() {
    let mut breaches = Vec::new();
    for folder in ["schemas".to_owned(), "tests".to_owned()]
        .into_iter()
        .chain(crates().into_keys().map(|name| format!("services/{name}")))
    {
        let Ok(manifest) = fs::read_to_string(root().join(&folder).join("Cargo.toml")) else {
            continue;
        };
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{folder}: [lints] workspace = true is missing"));
        }
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            } else if section.ends_with("dependencies]") && line.contains('=') && !line.contains("workspace = true") {
                breaches.push(format!("{folder}: {line}"));
            }
        }
    }
    assert_none("versions stand once, in the workspace's manifest", &breaches);
}

#[test]
fn domain_code_is_pure() {
    let sources = sources();
    for pure in PURE.map(|module| format!("{module}.rs")) {
        let is_there = sources.iter().any(|source| source.path == pure);
        assert!(is_there, "{pure} is gone: mend the list of pure modules");
    }
    let breaches: Vec<String> = sources
        .iter()
        .filter(|source| source.is_pure())
        .flat_map(|source| {
            source
                .before_tests()
                .flat_map(|(number, line)| {
                    let found = NOT_IN_DOMAIN.iter().filter(move |word| line.contains(**word));
                    found.map(move |word| format!("{}:{number}: {word}", source.path))
                })
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none("domain code neither waits nor reaches out", &breaches);
}

#[test]
fn subjects_are_spelled_in_one_place() {
    let breaches: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_test() && !SPELL_SUBJECTS.contains(&source.path.as_str()))
        .flat_map(|source| {
            source
                .before_tests()
                .filter(|(_, line)| line.contains("\"swarm."))
                .map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none("only schemas::subject builds or parses a subject", &breaches);
}

#[test]
fn files_have_one_subject_and_say_which() {
    let mut breaches = Vec::new();
    for Source { path, text } in sources() {
        let lines = text.lines().count();
        if lines > MOST_LINES {
            breaches.push(format!("{path}: {lines} lines"));
        }
        if !text.starts_with("//!") {
            breaches.push(format!("{path}: does not open with its purpose (//!)"));
        }
        if path.ends_with("/mod.rs") {
            breaches.push(format!("{path}: foo.rs and foo/, no mod.rs"));
        }
    }
    assert_none("a file has one subject, and says which", &breaches);
}

#[test]
fn no_test_is_switched_off() {
    let switch = concat!("#[", "ignore");
    let breaches: Vec<String> = sources()
        .iter()
        .flat_map(|source| {
            source
                .code()
                .filter(|(_, line)| line.trim_start().starts_with(switch))
                .map(|(number, _)| format!("{}:{number}", source.path))
                .collect::<Vec<_>>()
        })
        .collect();
    assert_none("a test runs or does not exist", &breaches);
}

/// The recipes of the justfile: what stands before the colon of a line that is not indented.
fn recipes() -> BTreeSet<String> {
    let justfile = fs::read_to_string(root().join("justfile")).expect("a justfile");
    justfile
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter(|line| !line.starts_with("set ") && !line.contains(":="))
        .filter_map(|line| line.split([' ', ':']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn documents_name_recipes_that_exist() {
    let recipes = recipes();
    assert!(recipes.contains("test"), "the recipes were not found");
    let mut documents = vec![root().join("README.md")];
    if let Ok(folder) = fs::read_dir(root().join("docs")) {
        documents.extend(folder.map(|entry| entry.expect("an entry").path()));
    }
    documents.retain(|path| path.extension().is_some_and(|end| end == "md"));
    let breaches: Vec<String> = documents
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).expect("a document");
            let named: Vec<String> = text
                .split("./justw ")
                .skip(1)
                .map(|rest| rest.chars().take_while(char::is_ascii_lowercase).collect::<String>())
                .filter(|word| !word.is_empty() && !recipes.contains(word))
                .map(|word| format!("{}: ./justw {word}", path.display()))
                .collect();
            named
        })
        .collect();
    assert_none("a document names only recipes that exist", &breaches);
}

/// What stands between backticks and may be the name of a test.
fn named_tests(text: &str) -> BTreeSet<&str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted
        .filter(|name| name.contains('_') && name.chars().all(|c| c.is_ascii_lowercase() || "_0123456789".contains(c)))
        .collect()
}

/// The functions of a file that the test runner calls: not their helpers.
fn tests_of(source: &Source) -> impl Iterator<Item = &str> {
    let mut marked = false;
    source.code().filter_map(move |(_, line)| {
        let line = line.trim_start();
        if line.starts_with("#[") {
            marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
            return None;
        }
        let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?.split('(').next();
        std::mem::take(&mut marked).then_some(name).flatten()
    })
}

#[test]
fn what_is_shown_is_shown_by_a_test_that_exists() {
    let page = fs::read_to_string(root().join("docs/maturity.md")).expect("a page");
    let sources = sources();
    let tests: BTreeSet<&str> = sources.iter().flat_map(tests_of).collect();
    let named: BTreeSet<&str> = page
        .lines()
        .filter(|line| line.starts_with("| "))
        .filter_map(|line| line.split(" | ").nth(3))
        .flat_map(named_tests)
        .collect();
    assert!(named.len() > 20, "the names were not found");
    let breaches: Vec<String> = named.difference(&tests).map(ToString::to_string).collect();
    assert_none("docs/maturity.md names only tests that exist", &breaches);
}

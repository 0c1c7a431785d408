//! The committed JSON Schemas are those of the types. `UPDATE_SCHEMAS=1 cargo test -p schemas` writes them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use schemas::published::{Published, schemas};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("json")
}

fn file_name(published: &Published) -> String {
    format!("{}.schema.json", published.name)
}

/// The committed files by name; `config/` beside them is another crate's.
fn committed() -> BTreeMap<String, String> {
    let entries = fs::read_dir(folder()).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    let read = |path: PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, fs::read_to_string(path).unwrap())
    };
    paths.map(read).collect()
}

#[test]
fn the_committed_schemas_are_those_of_the_types() {
    let text = |published: &Published| serde_json::to_string_pretty(&published.schema).unwrap() + "\n";
    let wanted: BTreeMap<_, _> = schemas().iter().map(|published| (file_name(published), text(published))).collect();
    let committed = committed();
    let differs = |name: &&String| committed.get(*name) != wanted.get(*name);
    let drifted: Vec<_> = wanted.keys().chain(committed.keys()).filter(differs).collect();
    if std::env::var_os("UPDATE_SCHEMAS").is_some() {
        for name in drifted {
            match wanted.get(name) {
                Some(text) => fs::write(folder().join(name), text).unwrap(),
                None => fs::remove_file(folder().join(name)).unwrap(),
            }
        }
        return;
    }
    assert!(
        drifted.is_empty(),
        "schemas/json differs from the types in {drifted:?}; when that is meant, run \
         UPDATE_SCHEMAS=1 cargo test -p schemas and commit it"
    );
}

#[test]
fn every_schema_is_one_and_names_itself() {
    for published in schemas() {
        let schema = published.schema.as_value();
        assert!(jsonschema::meta::is_valid(schema), "{} is no JSON Schema", published.name);
        assert_eq!(schema["$id"], format!("urn:nightcrew:schema:{}:1", published.name));
        assert!(schema["description"].is_string(), "{} does not say what it is", published.name);
    }
}

#[test]
fn names_have_their_pattern() {
    let schema = schemas().into_iter().find(|published| published.name == "run_event").unwrap().schema;
    let mut schema = schema.as_value().clone();
    schema.as_object_mut().unwrap().remove("anyOf");
    schema["$ref"] = "#/$defs/AgentName".into();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let valid = |name: &str| validator.is_valid(&name.into());
    assert!(valid("lead") && valid("a") && valid("code-reviewer_2"));
    assert!(!valid("all") && !valid("Lead") && !valid("-a") && !valid("") && !valid("a.b"));
    assert!(!valid(&"a".repeat(64)));
}

//! The JSON Schemas that editors complete from are those that files are checked against.

use std::{env, fs, path::PathBuf};

/// Fails when a published schema differs from its type; `UPDATE_SCHEMAS=1` writes them.
#[test]
fn published_schemas_are_those_of_the_types() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../schemas/json/config");
    let update = env::var_os("UPDATE_SCHEMAS").is_some();
    for (name, schema) in kit::crew::schemas() {
        let path = folder.join(format!("{name}.schema.json"));
        let text = format!("{}\n", serde_json::to_string_pretty(&schema).unwrap());
        if update {
            fs::create_dir_all(&folder).unwrap();
            fs::write(&path, text).unwrap();
        } else {
            let published = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(published, text, "{name}.schema.json differs: run with UPDATE_SCHEMAS=1");
        }
    }
}

/// A schema with a mistake in it would admit anything.
#[test]
fn published_schemas_are_schemas() {
    for (name, schema) in kit::crew::schemas() {
        assert!(jsonschema::meta::is_valid(&schema), "{name}");
        assert_eq!(schema["additionalProperties"], false, "{name} refuses unknown keys");
    }
}

//! `init`: a first crew, keys that are kept, and what a NATS of the user's own has to load.

use schemas::cli::{Initialised, Keys};

use crate::fixture::Folder;

#[test]
fn keys_are_made_once_and_kept() {
    let folder = Folder::new();
    let made: Initialised = folder.run(&["init", "--json"]).json();
    assert_eq!((made.project.as_str(), made.keys, made.written.len()), ("test", Keys::Made, 0));
    assert!(made.dir.ends_with(".nightcrew/identity") && made.instructions.is_none());
    let again: Initialised = folder.run(&["init", "--json"]).json();
    assert_eq!((again.account, again.keys), (made.account, Keys::Kept));
    let text = folder.run(&["init"]).well();
    assert!(text.contains("(there already)") && text.lines().count() == 3, "{text}");
}

#[test]
fn permissions_that_have_changed_are_told() {
    let folder = Folder::new();
    folder.run(&["init"]).well();
    let account = folder.path().join(".nightcrew/identity/accounts/project.jwt");
    std::fs::write(&account, "of an older build").unwrap();
    let text = folder.run(&["init"]).well();
    assert!(text.contains("permissions have changed"), "{text}");
    assert_ne!(std::fs::read_to_string(&account).unwrap(), "of an older build");
}

#[test]
fn a_folder_without_a_crew_gets_a_first_one() {
    let folder = Folder::new();
    for file in ["team.yaml", "models.yaml"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    std::fs::remove_dir_all(folder.path().join("agents")).unwrap();
    let none = folder.run(&["runs"]);
    assert!(none.code == 64 && none.err.contains("`nightcrew init` writes a first one"), "{none:?}");
    let text = folder.run(&["init"]).well();
    assert!(text.starts_with("a first crew is written: team.yaml, models.yaml, agents/lead/"), "{text}");
    // In order, and only not up.
    let runs = folder.run(&["runs"]);
    assert!(runs.code == 1 && runs.err.contains("no crew is up in this project"), "{runs:?}");
}

#[test]
fn a_nats_of_ones_own_is_told_what_to_load() {
    let folder = Folder::new();
    let text = folder.run(&["init", "--nats-url", "nats://bus.example:4222"]).well();
    let file = folder.path().join(".nightcrew/identity/external.conf");
    let file = file.canonicalize().unwrap();
    for wanted in [file.to_str().unwrap(), "nsc import account", "NIGHTCREW_NATS_URL=nats://bus.example:4222"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(text.len() < 4_000, "a person reads it");
}

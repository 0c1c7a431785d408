//! What is said about a project as a whole.

use crate::project::{CODER, LEAD, MODELS, Project, TEAM};

/// A file, what stands there, what somebody wrote instead, and what they are told.
pub(crate) type Case = (&'static str, &'static str, &'static str, &'static [&'static str]);

/// Each slip alone, in the project that is otherwise good.
pub(crate) fn assert_cases(cases: &[Case]) {
    let mut wrong = Vec::new();
    for (file, old, new, expected) in cases {
        let mut said = Project::good().edit(file, old, new).complaints();
        let mut expected: Vec<&str> = expected.to_vec();
        expected.sort_unstable();
        said.sort_unstable();
        if said != expected {
            wrong.push(format!("{file}: {old:?} -> {new:?}\n  said: {said:#?}\n  expected: {expected:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_are_not_there() {
    let hint = "(`nightcrew init` writes a first one)";
    assert_eq!(Project::good().without(TEAM).complaints(), [format!("team.yaml:1:1: there is no such file {hint}")]);
    assert_eq!(
        Project::good().without(MODELS).complaints(),
        [format!("models.yaml:1:1: there is no such file {hint}")]
    );
    let nobody = Project::good().without(CODER).without("agents/coder/persona.md");
    assert_eq!(
        nobody.complaints(),
        [
            "team.yaml:7:11: agent \"coder\" has no agents/coder/capabilities.yaml",
            "team.yaml:7:11: agent \"coder\" has no agents/coder/persona.md",
        ]
    );
    let empty = Project::good().with("agents/coder/persona.md", " \n");
    assert_eq!(empty.complaints(), ["agents/coder/persona.md:1:1: the persona is empty"]);
}

#[test]
fn all_files_are_told_at_once_in_their_order() {
    let broken = Project::good()
        .edit(TEAM, "  max_steps: 40", "  max_step: 40")
        .edit(TEAM, "audit_room: audit", "audit_room: office")
        .edit(MODELS, "    key_env: BIG_KEY\n", "")
        .edit(LEAD, "rooms: [crew, terminal]", "rooms: [crew, terminal, hall]")
        .edit(CODER, "models: [filed]", "models: [filed");
    assert_eq!(
        broken.complaints(),
        [
            "agents/coder/capabilities.yaml:4:6: not valid YAML: illegal placement of ':' indicator",
            "agents/lead/capabilities.yaml:5:25: unknown room \"hall\" (there is audit, crew, terminal)",
            "models.yaml:3:3: one of key_env, key_file is needed",
            "team.yaml:27:17: unknown room \"office\" (there is audit, crew, terminal)",
            "team.yaml:37:1: missing key \"max_steps\"",
            "team.yaml:38:3: unknown key \"max_step\" (did you mean \"max_steps\"?)",
        ]
    );
}

#[test]
fn a_file_that_is_not_text_is_told() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(TEAM), b"project: demo\ntime_zone: \xff\n").unwrap();
    std::fs::write(dir.path().join(MODELS), "#".repeat(2 * 1024 * 1024)).unwrap();
    let said: Vec<String> = kit::crew::Crew::load(dir.path()).unwrap_err().iter().map(ToString::to_string).collect();
    assert_eq!(said, ["models.yaml:1:1: the file has more than 1048576 bytes", "team.yaml:2:1: not UTF-8 text",]);
}

/// Whatever somebody typed where a secret's place belongs, it is never repeated.
#[test]
fn secrets_are_not_repeated() {
    for (file, old, new) in [
        (TEAM, "    password_file: secrets/matrix\n", "    password_file: hun ter2\n"),
        (TEAM, "    password_file: secrets/matrix\n", "    token_env: hunter2\n"),
        (TEAM, "    password_file: secrets/matrix\n", "    token: hunter2\n"),
        (TEAM, "source: ../site", "source: ssh://git:hunter2@example.org/site"),
        (MODELS, "    key_env: BIG_KEY\n", "    key_env: hunter2\n"),
        (MODELS, "http://127.0.0.1:11434/v1/", "http://ann:hunter2@127.0.0.1/v1/"),
    ] {
        let said = Project::good().edit(file, old, new).complaints();
        assert!(!said.is_empty() && !said.iter().any(|line| line.contains("ter2")), "{said:?}");
    }
}

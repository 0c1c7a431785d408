//! What is asked wrongly, and a reader who goes away: messages and exit codes.

use std::process::Stdio;

use crate::fixture::{Crew, Folder, Story};

#[test]
fn every_problem_of_the_crews_files_is_told_with_its_place() {
    let folder = Folder::new();
    std::fs::write(
        folder.path().join("team.yaml"),
        "project: test\ntime_zone: Mars/Base\nagents:\n  - name: lead\n  - name: Scout\nlimits: {}\ncolour: red\n",
    )
    .unwrap();
    std::fs::write(folder.path().join("models.yaml"), "routes: {}\n").unwrap();
    for command in [&["runs"][..], &["up"], &["say", "hello"], &["timeline", "1", "--json"]] {
        let done = folder.run(command);
        assert_eq!((done.code, done.out.as_str()), (64, ""), "{done:?}");
        for wanted in ["team.yaml:2:", "team.yaml:5:", "team.yaml:7:1: ", "models.yaml:1:"] {
            assert!(done.err.contains(wanted), "{wanted}: {done:?}");
        }
    }
}

#[test]
fn a_folder_without_a_project_is_a_mistake_in_its_files() {
    let folder = Folder::new();
    std::fs::remove_file(folder.path().join("team.yaml")).unwrap();
    let done = folder.run(&["runs"]);
    assert_eq!(done.code, 64);
    assert!(done.err.contains("team.yaml"), "{done:?}");
}

#[test]
fn what_the_command_line_does_not_know_is_a_mistake_on_it() {
    let folder = Folder::new();
    for args in
        [&["frobnicate"][..], &["runs", "--limit", "0"], &["say"], &["timeline"], &["completions", "cobol"], &[]]
    {
        assert_eq!(folder.run(args).code, 2, "{args:?}");
    }
    assert_eq!(folder.run(&["--help"]).code, 0);
    assert!(folder.run(&["--version"]).well().starts_with("nightcrew "));
}

#[test]
fn without_a_crew_that_is_up_it_says_how_to_start_one() {
    let folder = Folder::new();
    let done = folder.run(&["runs"]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("no crew is up in this project") && done.err.contains("nightcrew up"), "{done:?}");
    // One that was up once.
    folder.run(&["init"]).well();
    let state = folder.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let gone = r#"{"pid": 1, "nats_url": "nats://127.0.0.1:1", "proxy_url": "", "rehearsal_url": null}"#;
    std::fs::write(state.join("endpoints.json"), gone).unwrap();
    let done = folder.run(&["runs"]);
    assert_eq!(done.code, 1);
    assert!(done.err.contains("no crew is up in this project") && done.err.contains("127.0.0.1:1"), "{done:?}");
}

#[test]
fn completions_are_there_for_every_shell() {
    let folder = Folder::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = folder.run(&["completions", shell]).well();
        assert!(script.contains("nightcrew") && script.contains("timeline"), "{shell}: {script}");
    }
}

#[tokio::test]
async fn a_reader_that_goes_away_is_no_failure() {
    let crew = Crew::start().await;
    crew.write(&Story::asked(1, "lead", "find it").started()).await;
    crew.summarise().await;
    let mut command = crew.folder.command(&["runs", "--json"]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let done = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn().unwrap();
        drop(child.stdout.take());
        child.wait_with_output().unwrap()
    });
    let done = done.await.unwrap();
    assert_eq!((done.status.code(), String::from_utf8(done.stderr).unwrap()), (Some(0), String::new()));
}

#[test]
fn a_setting_that_is_none_is_a_mistake_in_the_configuration() {
    let folder = Folder::new();
    let output = folder.command(&["up"]).env("NIGHTCREW_LOG_FORMAT", "loud").output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("NIGHTCREW_LOG_FORMAT=\"loud\": expected auto, text or json"), "{said}");
}

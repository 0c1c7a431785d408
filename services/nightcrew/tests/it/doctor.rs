//! `doctor`: what it finds with and without a crew, and what it says to do.

use kit::identity;
use schemas::cli::{Diagnosis, Examined, Verdict};

use crate::fixture::{Crew, Done, Folder};

fn of<'a>(diagnosis: &'a Diagnosis, check: &str) -> &'a Examined {
    let found = diagnosis.checks.iter().find(|examined| examined.check == check);
    found.unwrap_or_else(|| panic!("{check}: {diagnosis:?}"))
}

fn verdict(diagnosis: &Diagnosis, check: &str) -> Verdict {
    of(diagnosis, check).verdict
}

fn diagnosis(done: &Done) -> Diagnosis {
    let diagnosis: Diagnosis = done.json();
    assert_eq!(done.code == 0, diagnosis.healthy, "{done:?}");
    diagnosis
}

#[test]
fn without_a_crew_it_looks_at_the_machine_and_the_folder() {
    let folder = Folder::new();
    let done = folder.run(&["doctor", "--json"]);
    let found = diagnosis(&done);
    assert_eq!(verdict(&found, "nats-server"), Verdict::Good);
    assert!(of(&found, "nats-server").version.as_deref().unwrap().starts_with("2."));
    assert_eq!(verdict(&found, "crew files"), Verdict::Good);
    assert_eq!(verdict(&found, "keys"), Verdict::Weak);
    assert_eq!(verdict(&found, "model play"), Verdict::Good);
    assert_eq!(verdict(&found, "bus"), Verdict::Skipped);
    assert!(of(&found, "bus").found.contains("nightcrew up"), "{found:?}");
}

#[test]
fn what_is_missing_is_said_with_what_to_do() {
    let folder = Folder::new();
    let empty = folder.path().join("nothing");
    std::fs::create_dir(&empty).unwrap();
    let mut command = folder.command(&["doctor"]);
    command.env("PATH", &empty).env_remove("NIGHTCREW_NATS_SERVER");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    for wanted in [
        "BAD   nats-server",
        "BAD   bubblewrap",
        "BAD   git",
        "weak  python3",
        "-> install it: `apt install bubblewrap`",
    ] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(String::from_utf8(output.stderr).unwrap().contains("3 things are not as needed"));
}

#[test]
fn every_mistake_in_the_crews_files_is_among_what_it_finds() {
    let folder = Folder::new();
    std::fs::write(folder.path().join("models.yaml"), "routes: {}\nprice: []\n").unwrap();
    let done = folder.run(&["doctor", "--json"]);
    assert_eq!(done.code, 1);
    let found = diagnosis(&done);
    let files = of(&found, "crew files");
    assert_eq!(files.verdict, Verdict::Bad);
    assert!(files.found.contains("models.yaml:2:1"), "{files:?}");
    assert_eq!(verdict(&found, "bus"), Verdict::Skipped);
}

#[test]
fn keys_that_others_can_read_are_bad() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = Folder::new();
    folder.run(&["init"]).well();
    assert_eq!(verdict(&diagnosis(&folder.run(&["doctor", "--json"])), "keys"), Verdict::Good);
    let dir = folder.path().join(".nightcrew/identity");
    let creds = identity::Identity::open(&dir).unwrap().creds_file(identity::Service::AgentRunner);
    std::fs::set_permissions(&creds, std::fs::Permissions::from_mode(0o644)).unwrap();
    let done = folder.run(&["doctor", "--json"]);
    let found = diagnosis(&done);
    assert_eq!(verdict(&found, "keys"), Verdict::Bad);
    assert!(of(&found, "keys").found.contains("agent-runner") && of(&found, "keys").found.contains("644"), "{found:?}");
}

#[tokio::test]
async fn of_a_crew_that_is_up_it_asks_every_service() {
    let crew = Crew::start().await;
    let process = kit::service::Context::new("nightcrew");
    let issuer = crew.bus.bus(identity::Service::Issuer).await;
    let context = process.child("issuer");
    kit::service::answer_health(issuer.client(), &context).await.unwrap();
    issuer.flush().await;
    context.ready();

    let done = crew.run(&["doctor", "--json"]).await;
    assert_eq!(done.code, 1);
    let found = diagnosis(&done);
    for good in ["bus", "log", "issuer", "parked messages"] {
        assert_eq!(verdict(&found, good), Verdict::Good, "{good}: {found:?}");
    }
    assert_eq!(verdict(&found, "agent-runner"), Verdict::Bad);
    assert_eq!(verdict(&found, "chat-bridge"), Verdict::Weak);
    assert!(of(&found, "agent-runner").advice.as_deref().unwrap().contains("nightcrew service agent-runner"));
    process.begin_shutdown();
}

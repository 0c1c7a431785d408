//! `doctor`: what it finds with and without a crew, and what it says to do.

use std::time::{Duration, Instant};

use kit::{identity, service::Check};
use schemas::cli::{Diagnosis, Examined, Verdict};

use crate::{
    fixture::{Crew, Done, Folder},
    running::Running,
};

/// Longest that services take to start on a busy machine.
const GOOD_WITHIN: Duration = Duration::from_mins(1);

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
async fn a_service_is_as_it_says_itself() {
    let crew = Crew::start().await;
    let process = kit::service::Context::new("nightcrew");
    for service in [identity::Service::BudgetProxy, identity::Service::ChatBridge] {
        let bus = crew.bus.bus(service).await;
        let context = process.child(service.name());
        kit::service::answer_health(bus.client(), &context).await.unwrap();
        bus.flush().await;
        context.ready();
        context.health.set("world", Check::Red("it is flat".to_owned()));
    }

    let done = crew.run(&["doctor", "--json"]).await;
    let found = diagnosis(&done);
    for (name, is) in [("budget-proxy", Verdict::Bad), ("chat-bridge", Verdict::Weak)] {
        let told = of(&found, name);
        assert_eq!((told.verdict, told.found.as_str()), (is, "world: it is flat"));
        assert!(told.advice.is_some());
    }
    process.begin_shutdown();
}

const SERVICES: [&str; 5] = ["issuer", "budget-proxy", "run-correlator", "agent-runner", "chat-bridge"];

/// Examines the crew until all of these are good.
fn good_at_last(folder: &Folder, checks: &[&str]) -> Diagnosis {
    let deadline = Instant::now() + GOOD_WITHIN;
    loop {
        let found = diagnosis(&folder.run(&["doctor", "--json"]));
        if checks.iter().all(|check| verdict(&found, check) == Verdict::Good) {
            return found;
        }
        assert!(Instant::now() < deadline, "{found:?}");
    }
}

#[test]
fn of_a_crew_that_is_up_every_service_is_good_and_one_that_is_missing_bad() {
    let apart = ["agent-runner", "run-correlator"];
    let folder = Folder::new();
    let mut up = Running::start(folder.command(&["up", "--without", apart[0], "--without", apart[1]]));
    up.says("the crew of test is up");
    let found = diagnosis(&folder.run(&["doctor", "--json"]));
    assert!(!found.healthy);
    for name in SERVICES {
        let told = of(&found, name);
        if apart.contains(&name) {
            assert_eq!((told.verdict, told.found.clone()), (Verdict::Bad, format!("{name} does not run")));
            let advice = told.advice.as_deref().unwrap();
            assert!(advice.contains(&format!("`nightcrew service {name}`")), "{advice}");
        } else {
            assert_eq!((told.verdict, told.found.as_str(), &told.advice), (Verdict::Good, "ready", &None));
        }
    }
    let text = folder.run(&["doctor"]);
    assert_eq!(text.code, 1);
    for wanted in ["ok    budget-proxy", "BAD   agent-runner", "-> start it: `nightcrew up`, or `nightcrew service"] {
        assert!(text.out.contains(wanted), "{wanted}: {text:?}");
    }

    let services = apart.map(|name| Running::start(folder.command(&["service", name])));
    let others = ["bus", "log", "rehearsal", "parked messages"];
    let found = good_at_last(&folder, &[&others[..], &SERVICES].concat());
    assert!(found.healthy, "{found:?}");
    folder.run(&["doctor"]).well();
    for service in services {
        service.end();
    }
    up.end();
    let down = diagnosis(&folder.run(&["doctor", "--json"]));
    assert_eq!(verdict(&down, "services"), Verdict::Skipped);
}

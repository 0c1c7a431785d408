//! `up`, as whoever starts a crew for the first time meets it.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{fixture::Folder, running::Running};

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

#[test]
fn without_a_key_it_plays_what_it_is_told_and_says_plainly_that_it_does() {
    let folder = Folder::new();
    let scenario = folder.path().join("own.yaml");
    std::fs::write(&scenario, "name: own\nrules:\n  - name: any\n    reply: {text: Played from a file.}\n").unwrap();
    let mut command = folder.command(&["up"]);
    // The crew's own proxy has no key to show, whatever another rehearsal model wants to see.
    command.env("NIGHTCREW_REHEARSAL_SCENARIOS", &scenario).env("NIGHTCREW_REHEARSAL_KEY", "sk-other");
    let mut up = Running::start(command);
    up.says("no key is configured for model route play: the rehearsal model answers, and no real model is asked");

    let heard = folder.run(&["say", "hello"]).well();
    assert!(
        heard.contains("Played from a file.") && heard.contains("rehearsal: no model was asked, nothing was paid"),
        "{heard}"
    );
    up.end();
}

#[test]
fn what_is_left_out_is_where_the_environment_says_or_said_to_be_missing() {
    let folder = Folder::new();
    let done = folder.run(&["up", "--without", "budget-proxy"]);
    assert!(done.code == 1 && done.err.contains("NIGHTCREW_PROXY_URL"), "{done:?}");

    let mut up = Running::start(folder.command(&["up", "--without", "rehearsal"]));
    up.says("model play: it has no key and no rehearsal model runs, so its calls are refused");
    up.end();

    let mut command = folder.command(&["up", "--without", "rehearsal", "--without", "budget-proxy"]);
    command.env("NIGHTCREW_PROXY_URL", "http://127.0.0.1:1").env("NIGHTCREW_REHEARSAL_URL", "http://127.0.0.1:2");
    let mut up = Running::start(command);
    up.says("models http://127.0.0.1:1");
    up.says("the rehearsal model answers, and no real model is asked");
    up.end();
}

#[test]
fn a_rehearsal_model_apart_is_what_its_environment_says() {
    let folder = Folder::new();
    folder.run(&["init"]).well();
    let broken = folder.path().join("broken.yaml");
    std::fs::write(&broken, "name: broken\n").unwrap();
    let run = |name: &str, value: &std::ffi::OsStr| {
        let mut command = folder.command(&["service", "rehearsal"]);
        command.env(name, value).output().unwrap()
    };
    for (name, value, wanted) in [
        ("NIGHTCREW_REHEARSAL_SCENARIOS", broken.as_os_str(), "broken.yaml:"),
        ("NIGHTCREW_REHEARSAL_LISTEN", "nowhere".as_ref(), "NIGHTCREW_REHEARSAL_LISTEN"),
    ] {
        let done = run(name, value);
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(!done.status.success() && said.contains(wanted), "{said}");
    }

    let mut command = folder.command(&["service", "rehearsal"]);
    command.env("NIGHTCREW_REHEARSAL_LISTEN", "127.0.0.2:0");
    let mut model = Running::start(command);
    model.says("http://127.0.0.2:");
    model.end();
}

#[test]
fn mistakes_in_its_settings_are_told_at_once_with_their_places() {
    let folder = Folder::new();
    folder.run(&["init"]).well();
    let config = folder.path().join("config/nightcrew");
    std::fs::create_dir_all(&config).unwrap();
    std::fs::write(config.join("config.yaml"), "log:\n  bytes: much\nreplicas: one\n").unwrap();
    let mut command = folder.command(&["up"]);
    command.env("XDG_CONFIG_HOME", folder.path().join("config")).env("NIGHTCREW_PROXY_LISTEN", "nowhere");
    let done = command.output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned();
    assert_eq!(done.status.code(), Some(64), "{said}");
    for wanted in ["NIGHTCREW_PROXY_LISTEN", "config.yaml:2:10", "config.yaml:3:11"] {
        assert!(said.contains(wanted), "{wanted} in {said}");
    }
}

#[test]
fn a_bus_that_ends_by_itself_is_started_again_and_the_crew_goes_on() {
    let folder = Folder::new();
    let mut up = Running::start(folder.command(&["up"]));
    up.says("the crew of test is up");
    assert!(folder.run(&["say", "hello"]).well().contains("rehearsal"));
    let before = nats_of(up.pid());
    let [first] = before.as_slice() else { panic!("{before:?}") };
    kill_process(*first, Signal::KILL).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while nats_of(up.pid()).iter().all(|pid| pid == first) {
        assert!(Instant::now() < deadline, "no nats-server was started again");
        std::thread::sleep(Duration::from_millis(20));
    }
    // Nobody answers until the services are connected again, and then nothing is started.
    let answered = loop {
        let said = folder.run(&["say", "hello again"]);
        if !said.err.contains("nobody answers") {
            break said.well();
        }
        assert!(Instant::now() < deadline, "the crew does not come back");
    };
    assert!(answered.contains("rehearsal"));
    up.end();
}

/// The nats-servers that a process started and that run.
fn nats_of(parent: Pid) -> Vec<Pid> {
    let runs = |stat: String| {
        let (pid, rest) = stat.split_once(" (nats-server) ")?;
        let mut fields = rest.split_whitespace();
        let (state, parent_of) = (fields.next()?, fields.next()?);
        (state != "Z" && parent_of == parent.as_raw_nonzero().to_string()).then(|| Pid::from_raw(pid.parse().ok()?))?
    };
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| runs(std::fs::read_to_string(entry.path().join("stat")).ok()?)).collect()
}

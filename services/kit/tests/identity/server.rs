//! The server itself: who gets in, and what survives what.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use async_nats::jetstream;
use kit::bus::{Bus, BusConfig, ConnectError};
use kit::for_test::TestBus;
use kit::identity::{self, JetStreamLimits, Service};
use kit::nats_server::{self, BinaryError, Lifetime, NatsServer, Settings, StartError, running, stop_running};
use kit::streams::{self, StreamOptions};
use schemas::ProjectId;

#[tokio::test]
async fn a_stranger_is_refused() {
    let bus = TestBus::start().await;
    let refused = async_nats::connect(bus.url()).await.unwrap_err();
    assert!(refused.to_string().contains("authorization"), "refused for another reason: {refused}");
    bus.connect(Service::AgentRunner).await;
}

#[tokio::test]
async fn an_acknowledged_message_survives_sigkill_and_the_port_stays() {
    let mut bus = TestBus::start().await;
    let url = bus.url();
    let setup = jetstream::new(bus.connect(Service::Setup).await);
    setup
        .create_stream(jetstream::stream::Config {
            name: "SWARM".to_owned(),
            subjects: vec!["swarm.run.>".to_owned()],
            ..Default::default()
        })
        .await
        .unwrap();
    let runner = jetstream::new(bus.connect(Service::AgentRunner).await);
    let ack = runner.publish("swarm.run.1.event", "kept".into()).await.unwrap().await.unwrap();

    bus.server().kill().await.unwrap();
    bus.server().restart().await.unwrap();

    assert_eq!(bus.url(), url);
    let runner = jetstream::new(bus.connect(Service::AgentRunner).await);
    let stream = runner.get_stream("SWARM").await.unwrap();
    let kept = stream.get_raw_message(ack.sequence).await.unwrap();
    assert_eq!(kept.payload, "kept");
}

fn settings(bus: &TestBus, state_dir: &Path) -> Settings {
    Settings {
        config_file: bus.identity().config_file(),
        state_dir: state_dir.to_owned(),
        port: None,
        lifetime: Lifetime::WithParent,
        binary: None,
    }
}

#[tokio::test]
async fn two_servers_never_share_a_store() {
    let mut bus = TestBus::start().await;
    let state_dir = bus.folder().join("nats");
    let pid = bus.server().pid();
    assert_eq!(running(&state_dir), Some(pid));
    let error = NatsServer::start(settings(&bus, &state_dir)).await.unwrap_err();
    let StartError::AlreadyRunning { pid: found, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(found, Some(pid));

    bus.server().stop().await.unwrap();
    assert_eq!(running(&state_dir), None);
    let mut next = NatsServer::start(settings(&bus, &state_dir)).await.unwrap();
    next.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_that_ends_at_once_says_why() {
    let bus = TestBus::start().await;
    let config = bus.folder().join("broken.conf");
    fs::write(&config, "jetstream { store_dir: ").unwrap();
    let error = NatsServer::start(Settings { config_file: config, ..settings(&bus, &bus.folder().join("broken")) })
        .await
        .unwrap_err();
    let StartError::Ended { log, .. } = &error else {
        panic!("{error}");
    };
    assert!(log.contains("Parse error"), "{error}");
}

#[tokio::test]
async fn a_server_of_ones_own_knows_everybody_once_it_includes_what_init_names() {
    let folder = tempfile::tempdir().unwrap();
    let spec = identity::Spec { project: "test", limits: JetStreamLimits::default(), now: kit::clock::now() };
    let identity = identity::init(&folder.path().join("identity"), &spec).unwrap();
    fs::copy(identity.external_config_file(), folder.path().join("external.conf")).unwrap();
    let config = folder.path().join("own.conf");
    let own = "server_name: \"own\"\nlisten: \"127.0.0.1:-1\"\nports_file_dir: \".\"\nlog_file: \"nats-server.log\"\n\
               include \"external.conf\"\njetstream { store_dir: \"jetstream\", sync_interval: always }\n";
    fs::write(&config, own).unwrap();
    let state_dir = folder.path().join("state");
    let settings =
        Settings { config_file: config, state_dir, port: None, lifetime: Lifetime::WithParent, binary: None };
    let mut server = NatsServer::start(settings).await.unwrap();

    let config = |service: Service, creds| BusConfig {
        urls: vec![server.url()],
        creds,
        service: service.name().to_owned(),
        project: ProjectId::try_new("test").unwrap(),
    };
    let with_creds = |service: Service| config(service, Some(identity.creds_file(service)));
    let setup = Bus::connect(&with_creds(Service::Setup)).await.unwrap();
    streams::ensure(&setup, &StreamOptions::single_node()).await.unwrap();
    Bus::connect(&with_creds(Service::AgentRunner)).await.unwrap();
    let stranger = Bus::connect(&config(Service::AgentRunner, None)).await.unwrap_err();
    assert!(matches!(stranger, ConnectError::Unauthorized { .. }), "{stranger}");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn its_end_is_noticed() {
    let mut bus = TestBus::start().await;
    let pid = rustix::process::Pid::from_raw(i32::try_from(bus.server().pid()).unwrap()).unwrap();
    let noticed = async {
        bus.server().exited().await;
    };
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    tokio::time::timeout(PATIENCE, noticed).await.unwrap();
}

#[tokio::test]
async fn an_unfit_program_is_refused_with_its_version() {
    let folder = tempfile::tempdir().unwrap();
    let bus = TestBus::start().await;
    let start =
        |binary| NatsServer::start(Settings { binary: Some(binary), ..settings(&bus, &folder.path().join("state")) });
    let program = |name: &str, says: &str| {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    };

    let error = start(program("old", "nats-server: v2.9.10")).await.unwrap_err();
    assert!(matches!(&error, StartError::Binary(BinaryError::TooOld { found, .. }) if found == "2.9.10"), "{error}");
    assert!(error.to_string().contains("2.14"), "{error}");
    let error = start(program("other", "something else")).await.unwrap_err();
    assert!(matches!(error, StartError::Binary(BinaryError::Foreign { .. })), "{error}");
    let error = start(folder.path().join("absent")).await.unwrap_err();
    assert!(matches!(error, StartError::Binary(BinaryError::Ask { .. })), "{error}");
    // None of them got as far as to lock the store.
    assert!(!folder.path().join("state").exists());
}

/// What any step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Set for the process that plays the one that is killed: where the server is to work, and its lifetime.
const PARENT: &str = "NIGHTCREW_TEST_PARENT";

/// Not a test by itself: the process of `killed_parent`, which starts a server and waits to be killed.
#[tokio::test]
async fn parent_process() {
    let Ok(task) = std::env::var(PARENT) else {
        return;
    };
    let (lifetime, folder) = task.split_once(':').unwrap();
    let folder = Path::new(folder);
    let server = NatsServer::start(Settings {
        config_file: folder.join("nats-server.conf"),
        state_dir: folder.join("state"),
        port: None,
        lifetime: match lifetime {
            "outlives" => Lifetime::Outlives,
            _ => Lifetime::WithParent,
        },
        binary: None,
    })
    .await
    .unwrap();
    println!("\nserver {}", server.pid());
    std::future::pending::<()>().await;
}

/// Starts a server in another process, kills that with SIGKILL, and returns the server's pid.
fn killed_parent(folder: &Path, lifetime: &str) -> u32 {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "server::parent_process", "--nocapture"])
        .env(PARENT, format!("{lifetime}:{}", folder.display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(parent.stdout.take().unwrap()).lines();
    let pid = said.map(Result::unwrap).find_map(|line| line.strip_prefix("server ")?.parse().ok()).unwrap();
    parent.kill().unwrap();
    parent.wait().unwrap();
    pid
}

#[tokio::test]
async fn a_server_dies_with_its_parent_or_outlives_it_as_told() {
    let bus = TestBus::start().await;
    for lifetime in ["with-parent", "outlives"] {
        let folder = bus.folder().join(lifetime);
        fs::create_dir(&folder).unwrap();
        fs::copy(bus.identity().config_file(), folder.join("nats-server.conf")).unwrap();
        let pid = killed_parent(&folder, lifetime);

        let state_dir = folder.join("state");
        if lifetime == "outlives" {
            assert_eq!(running(&state_dir), Some(pid));
            stop_running(&state_dir).await.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while nats_server::running(&state_dir).is_some() {
            assert!(Instant::now() < deadline, "it still runs");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

//! Streams and consumers are made, compared and upgraded.

use async_nats::HeaderMap;
use async_nats::jetstream::stream::{Config, StorageType};
use bytes::Bytes;
use kit::bus::{Bus, BusConfig, ConnectError};
use kit::class::Classified as _;
use kit::for_test::TestBus;
use kit::identity::Service;
use kit::message::Outgoing;
use kit::streams::{EnsureError, Report, StreamOptions, ensure};
use schemas::Subject;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::fixture::{Fixture, config, connect, envelope, token};

async fn setup(server: &TestBus) -> Bus {
    connect(&server.url(), Service::Setup, server.creds(Service::Setup)).await
}

const OPTIONS: StreamOptions = StreamOptions::single_node();

#[tokio::test]
async fn everything_is_made_once() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    let first = ensure(&bus, &OPTIONS).await.unwrap();
    assert!(first.created.contains(&"SWARM".to_owned()), "{first:?}");
    assert!(first.created.contains(&"SWARM/agent-runner-wakes".to_owned()));
    assert_eq!(first.unchanged, 0);
    let second = ensure(&bus, &OPTIONS).await.unwrap();
    let unchanged = first.created.len();
    assert_eq!(second, Report { unchanged, ..Report::default() });
}

#[tokio::test]
async fn two_at_once_come_to_the_same() {
    let server = TestBus::start().await;
    let (one, other) = (setup(&server).await, setup(&server).await);
    let (a, b) = tokio::join!(ensure(&one, &OPTIONS), ensure(&other, &OPTIONS));
    a.unwrap();
    b.unwrap();
    let after = ensure(&one, &OPTIONS).await.unwrap();
    assert_eq!((after.created.len(), after.updated.len()), (0, 0));
}

#[tokio::test]
async fn what_can_be_changed_is_changed() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    // As an older version could have left it.
    let older = Config {
        name: "SWARM".to_owned(),
        subjects: vec![schemas::subject::filter::RUNS.to_owned()],
        max_bytes: 1 << 30,
        ..Config::default()
    };
    bus.jetstream().create_stream(older).await.unwrap();
    let report = ensure(&bus, &OPTIONS).await.unwrap();
    let (name, fields) = &report.updated[0];
    assert_eq!(name, "SWARM");
    let fields: Vec<_> = fields.iter().map(|field| field.field.as_str()).collect();
    for field in ["allow_atomic", "allow_direct", "discard", "max_bytes", "subjects"] {
        assert!(fields.contains(&field), "{field} is not among {fields:?}");
    }
    let again = ensure(&bus, &OPTIONS).await.unwrap();
    assert!(again.updated.is_empty(), "{again:?}");
}

#[tokio::test]
async fn room_that_an_operator_gave_is_not_taken_away() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    let larger = StreamOptions { swarm_max_bytes: 2 * OPTIONS.swarm_max_bytes, ..OPTIONS };
    ensure(&bus, &larger).await.unwrap();
    let report = ensure(&bus, &OPTIONS).await.unwrap();
    assert!(report.updated.is_empty(), "{report:?}");
    let stream = bus.jetstream().get_stream("SWARM").await.unwrap();
    assert_eq!(stream.cached_info().config.max_bytes.unsigned_abs(), larger.swarm_max_bytes);
}

#[tokio::test]
async fn commands_never_fill_their_stream_and_the_last_one_stays() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    ensure(&bus, &OPTIONS).await.unwrap();
    // As an older version left it, and full.
    let found = bus.jetstream().get_stream("CONTROL").await.unwrap();
    let found = found.cached_info().config.clone();
    let older = Config { max_messages_per_subject: -1, max_bytes: 64 * 1024, ..found };
    bus.jetstream().update_stream(older).await.unwrap();
    let person = connect(&server.url(), Service::Nightcrew, server.creds(Service::Nightcrew)).await;
    let say = async |text: String| person.jetstream().publish("swarm.control.all", text.into()).await.unwrap().await;
    let mut last = 0;
    while let Ok(ack) = say(format!("{last:0>512}")).await {
        last = ack.sequence;
    }
    assert!(last > 64, "it was full after {last}");

    let report = ensure(&bus, &OPTIONS).await.unwrap();
    assert_eq!(report.updated[0].0, "CONTROL", "{report:?}");
    let ack = say("stop".to_owned()).await.unwrap();
    let mut stream = person.jetstream().get_stream("CONTROL").await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    assert_eq!((state.messages, state.last_sequence), (64, ack.sequence));
    let kept = stream.get_last_raw_message_by_subject("swarm.control.all").await.unwrap();
    assert_eq!(kept.payload, "stop");
}

#[tokio::test]
async fn what_can_not_be_changed_stops_the_start_by_name() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    let foreign = Config {
        name: "DEAD".to_owned(),
        subjects: vec![schemas::subject::filter::DEAD.to_owned()],
        storage: StorageType::Memory,
        ..Config::default()
    };
    bus.jetstream().create_stream(foreign).await.unwrap();
    let error = ensure(&bus, &OPTIONS).await.unwrap_err();
    let EnsureError::Fixed { what, fields } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(what, "DEAD");
    assert_eq!(fields[0].field, "storage");
    assert_eq!(
        error.to_string(),
        "DEAD can not be used: storage is \"memory\" where \"file\" is wanted can not be changed"
    );
}

#[tokio::test]
async fn a_stream_that_takes_our_subjects_is_named_by_the_server() {
    let server = TestBus::start().await;
    let bus = setup(&server).await;
    let foreign = Config {
        name: "FOREIGN".to_owned(),
        subjects: vec![schemas::subject::filter::RUNS.to_owned()],
        ..Config::default()
    };
    bus.jetstream().create_stream(foreign).await.unwrap();
    let error = ensure(&bus, &OPTIONS).await.unwrap_err();
    assert_eq!(error.code(), "stream_create");
}

#[tokio::test]
async fn whoever_has_no_credentials_is_refused() {
    let server = TestBus::start().await;
    let anonymous = BusConfig { creds: None, ..config(&server.url(), Service::AgentRunner, "unused".into()) };
    let error = Bus::connect(&anonymous).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unauthorized { .. }), "{error:?}");
    let missing = config(&server.url(), Service::AgentRunner, "/nowhere/x.creds".into());
    let error = Bus::connect(&missing).await.unwrap_err();
    assert!(matches!(error, ConnectError::Credentials { .. }), "{error:?}");
    let nobody = BusConfig { urls: vec!["nats://127.0.0.1:1".to_owned()], ..anonymous };
    let error = Bus::connect(&nobody).await.unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let old = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let info = br#"INFO {"server_id":"old","version":"2.9.25","max_payload":1048576,"headers":true}"#;
        client.write_all(info).await.unwrap();
        client.write_all(b"\r\nPONG\r\n").await.unwrap();
        // Stays until the client has gone.
        let _ = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
    });
    let config = BusConfig { creds: None, ..config(&url, Service::AgentRunner, "unused".into()) };
    let error = Bus::connect(&config).await.unwrap_err();
    assert!(error.to_string().contains("2.9.25"), "{error}");
    old.abort();
}

#[tokio::test]
async fn public_events_expire_and_counters_count() {
    let fixture = Fixture::start().await;
    let runner = fixture.connect(Service::AgentRunner).await;
    let subject = Subject::Event(token("task_done"));
    let event = Outgoing::json(subject.clone(), envelope("e"), &"a fact").unwrap();
    let sequence = runner.publish(&event).await.unwrap();
    // Once more: known by its id.
    assert_eq!(runner.publish(&event).await.unwrap(), sequence);
    let events = runner.scan("SWARM", &subject.to_string(), 0).await.unwrap();
    assert_eq!(events.messages.len(), 1);
    assert_eq!(events.messages[0].header("Nats-TTL"), Some("7776000"));

    let proxy = fixture.connect(Service::BudgetProxy).await;
    let subject = Subject::Usage(token("tokens")).to_string();
    for total in ["5", "10"] {
        let mut more = HeaderMap::new();
        more.insert("Nats-Incr", "5");
        let counted = proxy.jetstream().publish_with_headers(subject.clone(), more, Bytes::new());
        let ack = counted.await.unwrap().await.unwrap();
        assert_eq!(ack.value.as_deref(), Some(total));
    }
}

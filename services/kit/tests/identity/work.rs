//! Each service can do its own work on the bus with nothing but its own user.

use async_nats::jetstream::{self, consumer::pull};
use futures::{StreamExt as _, TryStreamExt as _};
use kit::for_test::TestBus;
use kit::identity::{Service, reader_name};
use tokio::io::AsyncReadExt as _;

const RUN: &str = "0197f3a0-0000-7000-8000-000000000001";

#[tokio::test]
async fn the_runner_consumes_its_wakes_and_acks_them() {
    let bus = TestBus::with_streams().await;
    let cli = bus.bus(Service::Nightcrew).await;
    publish(cli.jetstream(), &format!("swarm.run.{RUN}.requested.resident.lead")).await;

    let runner = bus.bus(Service::AgentRunner).await;
    let stream = runner.jetstream().get_stream("SWARM").await.unwrap();
    let mut wakes: jetstream::consumer::PullConsumer = stream.get_consumer("agent-runner-wakes").await.unwrap();
    let wake = wakes.messages().await.unwrap().next().await.unwrap().unwrap();
    wake.ack_with(jetstream::AckKind::Progress).await.unwrap();
    wake.double_ack().await.unwrap();
    assert_eq!(wakes.info().await.unwrap().num_ack_pending, 0);

    publish(runner.jetstream(), &format!("swarm.run.{RUN}.event")).await;
    publish(runner.jetstream(), &format!("swarm.signal.{RUN}.retry")).await;
}

#[tokio::test]
async fn the_bridge_says_what_runs_say() {
    let bus = TestBus::with_streams().await;
    let runner = bus.bus(Service::AgentRunner).await;
    publish(runner.jetstream(), &format!("swarm.run.{RUN}.say.matrix")).await;

    let bridge = bus.bus(Service::ChatBridge).await;
    let stream = bridge.jetstream().get_stream("SWARM").await.unwrap();
    let say: jetstream::consumer::PullConsumer = stream.get_consumer("chat-bridge-matrix").await.unwrap();
    let said = say.messages().await.unwrap().next().await.unwrap().unwrap();
    publish(bridge.jetstream(), &format!("swarm.signal.{RUN}.delivered")).await;
    said.double_ack().await.unwrap();
}

#[tokio::test]
async fn a_reader_reads_by_consumer_by_sequence_and_by_subject() {
    let bus = TestBus::with_streams().await;
    let runner = bus.bus(Service::AgentRunner).await;
    let subject = format!("swarm.run.{RUN}.event");
    publish(runner.jetstream(), &subject).await;

    for service in [Service::RunCorrelator, Service::BudgetProxy, Service::Nightcrew] {
        let reader = bus.bus(service).await;
        let stream = reader.jetstream().get_stream("SWARM").await.unwrap();
        let named = stream.create_consumer(pull::OrderedConfig {
            name: Some(reader_name(service.name())),
            filter_subject: "swarm.run.>".to_owned(),
            ..Default::default()
        });
        let mut messages = named.await.unwrap().messages().await.unwrap();
        assert_eq!(messages.next().await.unwrap().unwrap().subject.as_str(), subject);
        assert_eq!(stream.get_raw_message(1).await.unwrap().subject.as_str(), subject);
        assert_eq!(stream.direct_get_last_for_subject(&subject).await.unwrap().subject.as_str(), subject);
    }
}

#[tokio::test]
async fn a_bucket_is_written_by_its_owner_and_watched_by_others() {
    let bus = TestBus::with_streams().await;
    let correlator = bus.bus(Service::RunCorrelator).await;
    let runs = correlator.jetstream().get_key_value("runs").await.unwrap();
    runs.put("one", "1".into()).await.unwrap();

    let bridge = bus.bus(Service::ChatBridge).await;
    let seen = bridge.jetstream().get_key_value("runs").await.unwrap();
    assert_eq!(seen.get("one").await.unwrap().unwrap(), "1");
    let mut changes = seen.watch_with_history("one").await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().value, "1");
    runs.put("one", "2".into()).await.unwrap();
    assert_eq!(changes.next().await.unwrap().unwrap().value, "2");
    let keys: Vec<String> = seen.keys().await.unwrap().try_collect().await.unwrap();
    assert_eq!(keys, ["one"]);

    let refused = bridge.jetstream().get_key_value("budgets").await;
    assert!(refused.is_err(), "budgets are none of the bridge's business");
}

#[tokio::test]
async fn a_blob_travels_from_one_service_to_another() {
    let bus = TestBus::with_streams().await;
    let content = vec![7; 300 * 1024];
    let runner = bus.bus(Service::AgentRunner).await;
    let blobs = runner.jetstream().get_object_store("blobs").await.unwrap();
    blobs.put("digest", &mut content.as_slice()).await.unwrap();

    let correlator = bus.bus(Service::RunCorrelator).await;
    let blobs = correlator.jetstream().get_object_store("blobs").await.unwrap();
    let mut read = Vec::new();
    blobs.get("digest").await.unwrap().read_to_end(&mut read).await.unwrap();
    assert!(read == content);
    // Sweeping is the correlator's.
    blobs.delete("digest").await.unwrap();
}

#[tokio::test]
async fn only_setup_makes_streams_and_nobody_deletes_them() {
    let bus = TestBus::with_streams().await;
    let setup = bus.bus(Service::Setup).await;
    let report = kit::streams::ensure(&setup, &kit::streams::StreamOptions::single_node()).await.unwrap();
    assert_eq!(report.created, Vec::<String>::new());

    for service in Service::ALL {
        let user = bus.connect(service).await;
        let context = jetstream::ContextBuilder::new().timeout(std::time::Duration::from_millis(300)).build(user);
        assert!(context.delete_stream("SWARM").await.is_err(), "{service}");
    }
    let info = setup.jetstream().get_stream("SWARM").await.unwrap();
    assert_eq!(info.cached_info().config.name, "SWARM");
}

async fn publish(context: &jetstream::Context, subject: &str) {
    context.publish(subject.to_owned(), "{}".into()).await.unwrap().await.unwrap();
}

//! The server itself: who gets in, and what survives what.

use async_nats::jetstream;
use kit::for_test::TestBus;
use kit::identity::Service;

#[tokio::test]
async fn a_stranger_is_refused() {
    let bus = TestBus::start().await;
    let refused = async_nats::connect(bus.url()).await.unwrap_err();
    assert!(
        refused.to_string().contains("authorization"),
        "refused for another reason: {refused}"
    );
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
    let ack = runner
        .publish("swarm.run.1.event", "kept".into())
        .await
        .unwrap()
        .await
        .unwrap();

    bus.server().kill().await.unwrap();
    bus.server().restart().await.unwrap();

    assert_eq!(bus.url(), url);
    let runner = jetstream::new(bus.connect(Service::AgentRunner).await);
    let stream = runner.get_stream("SWARM").await.unwrap();
    let kept = stream.get_raw_message(ack.sequence).await.unwrap();
    assert_eq!(kept.payload, "kept");
}

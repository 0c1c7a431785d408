//! Three servers on loopback.

use async_nats::jetstream;
use kit::for_test::TestCluster;
use kit::identity::Service;

#[tokio::test]
async fn a_cluster_goes_on_without_its_streams_leader() {
    let mut cluster = TestCluster::start().await;
    let setup = cluster.bus(Service::Setup).await;
    let stream = setup
        .jetstream()
        .create_stream(jetstream::stream::Config {
            name: "SWARM".to_owned(),
            subjects: vec!["swarm.run.>".to_owned()],
            num_replicas: 3,
            ..Default::default()
        })
        .await
        .unwrap();
    let runner = cluster.bus(Service::AgentRunner).await;
    let publish = |text: &'static str| {
        let context = runner.jetstream().clone();
        async move {
            let ack = context.publish("swarm.run.1.event", text.into()).await;
            ack.unwrap().await.map(|ack| ack.sequence)
        }
    };
    let first = publish("before").await.unwrap();

    let leader = stream.get_info().await.unwrap().cluster.unwrap().leader.unwrap();
    let leader = cluster.index_of(&leader).unwrap();
    cluster.server(leader).kill().await.unwrap();
    // Bounded by the test runner: a new leader is elected within seconds.
    let second = loop {
        if let Ok(sequence) = publish("after").await {
            break sequence;
        }
    };
    assert!(second > first);
    cluster.server(leader).restart().await.unwrap();
    assert_eq!(cluster.urls().len(), 3);
    publish("whole again").await.unwrap();
}

//! Several nats-servers that form one cluster on loopback.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use futures::future;
use tempfile::TempDir;

use super::{bus_config, make_identity, settings};
use crate::bus::{Bus, BusConfig};
use crate::identity::{ClusterNode, Identity, Service, cluster_config};
use crate::nats_server::{NatsServer, StartError};
use crate::streams::{self, StreamOptions};

/// Time for a cluster to elect its leaders.
const QUORUM_WITHIN: Duration = Duration::from_secs(30);

/// How often servers are started on fresh ports.
const START_ATTEMPTS: usize = 3;

/// Between two looks whether it has.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A cluster of nats-servers with JetStream, gone when dropped.
#[derive(Debug)]
pub struct TestCluster {
    identity: Identity,
    servers: Vec<NatsServer>,
    // Last, so that the servers are gone before their folders.
    folder: TempDir,
}

impl TestCluster {
    /// Three servers; returns when they have elected a leader.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("nightcrew-cluster-").expect("a folder for the cluster");
        let identity = make_identity(folder.path());
        let servers = start_servers(&identity, folder.path(), 3).await;
        let cluster = Self { identity, servers, folder };
        cluster.quorum().await;
        cluster
    }

    /// Like `start`, with every stream, bucket and consumer made, three times replicated.
    pub async fn with_streams() -> Self {
        let cluster = Self::start().await;
        let options = StreamOptions { replicas: 3, ..StreamOptions::single_node() };
        streams::ensure(&cluster.bus(Service::Setup).await, &options).await.expect("streams that can be made");
        cluster
    }

    /// The servers, named `n0`, `n1`, ...: to kill, pause or restart one.
    pub fn server(&mut self, index: usize) -> &mut NatsServer {
        self.servers.get_mut(index).expect("a server of that index")
    }

    /// Index of the server with that name, as JetStream names a stream's leader.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        (0..self.servers.len()).find(|index| server_name(*index) == name)
    }

    /// Addresses of all servers.
    pub fn urls(&self) -> Vec<String> {
        self.servers.iter().map(NatsServer::url).collect()
    }

    /// Connects as a service, to whichever server answers.
    pub async fn bus(&self, service: Service) -> Bus {
        Bus::connect(&self.bus_config(service)).await.expect("a connection to the bus")
    }

    /// What a service needs to connect by itself.
    pub fn bus_config(&self, service: Service) -> BusConfig {
        bus_config(&self.identity, self.urls(), service)
    }

    /// The identity it runs under.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A folder that lives as long as the cluster.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns when JetStream answers, which it does once a leader is elected.
    async fn quorum(&self) {
        let setup = self.bus(Service::Setup).await;
        let deadline = Instant::now() + QUORUM_WITHIN;
        while setup.jetstream().query_account().await.is_err() {
            assert!(Instant::now() < deadline, "the cluster elected no leader");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

fn server_name(index: usize) -> String {
    format!("n{index}")
}

/// A port of ours may be taken by somebody else before a server listens there: then with others.
async fn start_servers(identity: &Identity, folder: &Path, count: usize) -> Vec<NatsServer> {
    for _ in 1..START_ATTEMPTS {
        if let Ok(servers) = try_start_servers(identity, folder, count).await {
            return servers;
        }
    }
    try_start_servers(identity, folder, count).await.expect("nats-servers that start")
}

/// All at once: each waits for the others before it elects.
async fn try_start_servers(identity: &Identity, folder: &Path, count: usize) -> Result<Vec<NatsServer>, StartError> {
    let routes = free_ports(count);
    let starts = routes.iter().enumerate().map(|(index, port)| {
        let name = server_name(index);
        let node = ClusterNode { server_name: &name, cluster_name: "nightcrew", route_port: *port, routes: &routes };
        let text = cluster_config(identity, &node).expect("a configuration");
        let config_file = folder.join(format!("{name}.conf"));
        fs::write(&config_file, text).expect("a configuration that can be written");
        NatsServer::start(settings(config_file, folder.join(name)))
    });
    future::try_join_all(starts).await
}

/// Ports that were free a moment ago. Each server must know the others' before any of them runs.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

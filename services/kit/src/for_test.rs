//! For tests: a real bus of one's own, with everybody's credentials, gone when dropped.
//!
//! It is part of the library because the tests of every crate need it; no service may use it. Its functions
//! panic, as a test would.
#![expect(clippy::expect_used, reason = "a test's fixture fails by panicking, with the cause in the message")]

use std::path::{Path, PathBuf};

mod cluster;
mod request;

use async_nats::ConnectOptions;
use tempfile::TempDir;

use schemas::ProjectId;

use crate::bus::{Bus, BusConfig};
use crate::identity::{self, Identity, JetStreamLimits, Service, Spec};
use crate::nats_server::{Lifetime, NatsServer, Settings};
use crate::streams::{self, StreamOptions};

pub use cluster::TestCluster;
pub use request::{first, request};

/// Name of the project that a test's bus belongs to.
pub const PROJECT: &str = "test";

/// A nats-server with JetStream in a folder of its own, on a free port of loopback.
#[derive(Debug)]
pub struct TestBus {
    identity: Identity,
    server: NatsServer,
    // Last, so that the server is gone before its folder.
    folder: TempDir,
}

impl TestBus {
    /// Makes an identity, starts the server, and returns when it answers.
    pub async fn start() -> Self {
        let folder = TempDir::with_prefix("nightcrew-bus-").expect("a folder for the bus");
        let identity = make_identity(folder.path());
        let settings = settings(identity.config_file(), folder.path().join("nats"));
        let server = NatsServer::start(settings).await.expect("a nats-server that starts");
        Self { identity, server, folder }
    }

    /// Like `start`, with every stream, bucket and consumer made.
    pub async fn with_streams() -> Self {
        let bus = Self::start().await;
        let setup = bus.bus(Service::Setup).await;
        streams::ensure(&setup, &StreamOptions::single_node()).await.expect("streams that can be made");
        bus
    }

    /// Address for clients; the same over restarts.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Credentials file of a service's user.
    pub fn creds(&self, service: Service) -> PathBuf {
        self.identity.creds_file(service)
    }

    /// Connects as a service, with its inbox prefix.
    pub async fn connect(&self, service: Service) -> async_nats::Client {
        connect_options(&self.creds(service), service).await.connect(self.url()).await.expect("a connection to the bus")
    }

    /// Connects as a service, the way services do.
    pub async fn bus(&self, service: Service) -> Bus {
        Bus::connect(&self.bus_config(service)).await.expect("a connection to the bus")
    }

    /// What a service needs to connect by itself.
    pub fn bus_config(&self, service: Service) -> BusConfig {
        bus_config(&self.identity, vec![self.url()], service)
    }

    /// The identity it runs under.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The server, to stop, kill, pause or restart it.
    pub fn server(&mut self) -> &mut NatsServer {
        &mut self.server
    }

    /// A folder that lives as long as the bus, for whatever else a test keeps.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// Options to connect as `service` with the credentials in `creds`.
pub async fn connect_options(creds: &Path, service: Service) -> ConnectOptions {
    ConnectOptions::with_credentials_file(creds)
        .await
        .expect("credentials that can be read")
        .custom_inbox_prefix(service.inbox_prefix())
        .name(service.name())
}

fn make_identity(folder: &Path) -> Identity {
    let spec = Spec { project: PROJECT, limits: JetStreamLimits::default(), now: crate::clock::now() };
    identity::init(&folder.join("identity"), &spec).expect("an identity")
}

fn settings(config_file: PathBuf, state_dir: PathBuf) -> Settings {
    Settings { config_file, state_dir, port: None, lifetime: Lifetime::WithParent, binary: None }
}

fn bus_config(identity: &Identity, urls: Vec<String>, service: Service) -> BusConfig {
    BusConfig {
        urls,
        creds: Some(identity.creds_file(service)),
        service: service.name().to_owned(),
        project: ProjectId::try_new(PROJECT).expect("a valid name"),
    }
}

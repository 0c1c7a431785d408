//! For tests: a real bus of one's own, with everybody's credentials, gone when dropped.
//!
//! It is part of the library because the tests of every crate need it; no service may use it. Its functions
//! panic, as a test would.
#![expect(
    clippy::expect_used,
    reason = "a test's fixture fails by panicking, with the cause in the message"
)]

use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;
use tempfile::TempDir;

use crate::identity::{self, Identity, JetStreamLimits, Service, Spec};
use crate::nats_server::{Lifetime, NatsServer, Settings};

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
        let spec = Spec {
            project: PROJECT,
            limits: JetStreamLimits::default(),
            now: crate::clock::now(),
        };
        let identity = identity::init(&folder.path().join("identity"), &spec).expect("an identity");
        let server = NatsServer::start(Settings {
            config_file: identity.config_file(),
            state_dir: folder.path().join("nats"),
            port: None,
            lifetime: Lifetime::WithParent,
            binary: None,
        })
        .await
        .expect("a nats-server that starts");
        Self {
            identity,
            server,
            folder,
        }
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
        connect_options(&self.creds(service), service)
            .await
            .connect(self.url())
            .await
            .expect("a connection to the bus")
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

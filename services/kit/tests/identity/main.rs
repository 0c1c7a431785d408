//! Identity, permissions and tokens, against a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod init;
mod permissions;
mod probe;
mod server;
mod token;
mod work;

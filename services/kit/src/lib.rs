//! What two services need: identity, bus, journal, configuration, telemetry, token verification.

pub mod clock;
pub mod config;
pub mod crew;
pub mod dirs;
pub mod for_test;
pub mod http;
pub mod identity;
pub mod logs;
pub mod nats_server;
pub mod service;
pub mod telemetry;
pub mod token;
pub mod yaml;

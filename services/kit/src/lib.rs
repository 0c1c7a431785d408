//! What two services need: identity, bus, journal, configuration, telemetry, token verification.

pub mod bus;
pub mod class;
pub mod clock;
pub mod config;
pub mod consume;
pub mod consumer;
pub mod crew;
pub mod dead;
pub mod dirs;
pub mod due;
pub mod for_test;
pub mod http;
pub mod identity;
pub mod journal;
pub mod logs;
pub mod message;
pub mod nats_server;
mod pull;
pub mod scan;
pub mod service;
pub mod streams;
pub mod telemetry;
pub mod token;
pub mod yaml;
pub mod blobs;
pub mod epochs;

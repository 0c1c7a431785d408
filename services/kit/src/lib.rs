//! What two services need: identity, bus, journal, configuration, telemetry, token verification.

pub mod clock;
pub mod crew;
pub mod for_test;
pub mod identity;
pub mod nats_server;
pub mod token;
pub mod yaml;

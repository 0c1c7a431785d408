//! Bus, journal, streams, consumers, dead letters: against a real nats-server, with each service's own credentials.
#![expect(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test's helpers fail by panicking, and a test is the owner of the tasks that it starts"
)]

mod appender;
mod blobs;
mod cluster;
mod consume;
mod dead;
mod due;
mod epochs;
mod fixture;
mod health;
mod journal;
mod presence;
mod proxy;
mod requester;
mod streams;

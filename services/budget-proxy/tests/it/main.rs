//! The proxy through its public `run`: on a real bus, with the real issuer and the real rehearsal model, over real HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bearers;
mod client;
mod cuts;
mod faults;
mod headers;
mod journal;
mod life;
mod lost;
mod outages;
mod passing;
mod provider;
mod records;
mod refusals;
mod repeats;
mod stage;

//! run-correlator, from outside: its decisions on stories that are told, its service on a real nats-server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod archives;
mod gaps;
mod keeping;
mod log;
mod parked;
mod reading;
mod story;
mod summaries;
mod timelines;

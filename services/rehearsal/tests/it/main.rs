//! The rehearsal model over real HTTP.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod anthropic;
mod client;
mod demo;
mod faults;
mod gates;
mod openai;
mod scenarios;
mod server;

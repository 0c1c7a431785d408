//! What every service needs besides the bus: configuration, telemetry, stored log lines, life and HTTP.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking"
)]

mod config;
mod http;
mod life;
mod logs;
mod telemetry;

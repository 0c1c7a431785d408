//! The program as its users run it: against a real bus, with what it prints and the codes it exits with.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod controls;
mod dead;
mod doctor;
mod fixture;
mod init;
mod mistakes;
mod running;
mod runs;
mod say;
mod state;
mod up;

//! The contract: schemas that follow the types, samples that decode forever, subjects and ids that never change.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod envelope;
mod golden;
mod ids;
mod kinds;
mod published;
mod state;
mod subject;

//! Tests against a real homeserver and a real bus.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what a test is made of fails by panicking, like the test itself"
)]

mod audit;
mod bridge;
mod chaos;
mod matrix;
mod process;
mod proxy;
mod terminal;
mod unsaid;
mod world;

#[path = "../../../../tests/src/person.rs"]
pub mod person;
#[path = "../../../../tests/src/restarts.rs"]
pub mod restarts;
#[path = "../../../../tests/src/synapse.rs"]
pub mod synapse;

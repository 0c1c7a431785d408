//! The contract between Nightcrew's services: envelope, subjects, run events, signals, controls and records.
//!
//! Services share nothing but what is in this crate. It knows no bus, no clock and no file system; it only says what a
//! message looks like and where it travels. Published versions are append-only: a sample that decoded once decodes
//! forever, and a kind that this build does not know becomes an `Unknown` variant, never a panic.
//!
//! JSON Schemas are generated from these types into `schemas/json/`; a test fails when they differ.

pub mod call;
pub mod content;
pub mod control;
pub mod dead;
pub mod envelope;
pub mod event;
pub mod ids;
mod kinds;
pub mod money;
pub mod public;
pub mod signal;
pub mod subject;
pub mod summary;
pub mod trigger;

pub use content::{BlobRef, Block, Text};
pub use envelope::Envelope;
pub use event::{Decision, RunEvent};
pub use ids::{AgentName, Class, EventId, ProjectId, RunId};
pub use money::{MicroUsd, Usage};
pub use signal::Signal;
pub use subject::Subject;
pub use trigger::Trigger;

//! The contract between Nightcrew's services: envelope, subjects, run events, signals, controls and records.
//!
//! Services share nothing but what is in this crate. It knows no bus, no clock and no file system; it only says what a
//! message looks like and where it travels. Published versions are append-only: a sample that decoded once decodes
//! forever, and a kind that this build does not know becomes an `Unknown` variant, never a panic.
//!
//! What a reader does with what it does not know is deliberate:
//! - an unknown *field* is ignored, so that a newer writer may add fields without being a new version. Nobody decodes a
//!   message to write it again: what is replayed or archived is passed on as bytes.
//! - an unknown *kind* is kept whole in `Unknown`, so that timelines can show it and folds can skip it.
//! - an unknown value of a closed list, such as [`event::FailReason`] or [`Trigger`], can not be decoded, because a
//!   fold could not act on it. Adding one raises [`envelope::SCHEMA_VERSION`], and older builds refuse the message by name.
//! - a *known* kind that is malformed is an error that names the kind, never `Unknown`.
//!
//! A new field is therefore always optional; the samples in `tests/golden/` hold that.
//!
//! Requests and their answers ([`ask`]) are stricter: nothing of them is stored, and what is understood only in part must
//! not be granted, so they refuse unknown fields.
//!
//! JSON Schemas are generated from these types into `schemas/json/` ([`published`]); a test fails when they differ.

pub mod ask;
pub mod call;
pub mod cli;
pub mod content;
pub mod control;
pub mod dead;
pub mod envelope;
pub mod event;
pub mod ids;
mod kinds;
pub mod money;
pub mod presence;
pub mod public;
pub mod published;
pub mod signal;
pub mod state;
pub mod subject;
pub mod summary;
pub mod timeline;
mod totals;
pub mod trigger;

pub use content::{BlobRef, Block, Text};
pub use envelope::Envelope;
pub use event::{Decision, RunEvent};
pub use ids::{AgentName, Class, EventId, ProjectId, RunId};
pub use money::{MicroUsd, Usage};
pub use signal::Signal;
pub use state::SavedState;
pub use subject::Subject;
pub use trigger::Trigger;

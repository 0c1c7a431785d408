//! What the log says about a run, decided without any IO: its summary, its timeline and its gaps.

pub mod archive;
pub mod blobs;
pub mod evidence;
pub mod gaps;
pub mod summary;
pub mod text;
pub mod timeline;

mod event_lines;
mod happenings;
mod journal_lines;

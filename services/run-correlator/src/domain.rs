//! What the log says about a run, decided without any IO: its summary, its timeline and its gaps.

pub mod archive;
pub mod evidence;
pub mod gaps;
pub mod summary;
pub mod text;
pub mod timeline;

mod happenings;
mod journal_lines;

//! run-correlator, from outside.

mod gaps;
mod story;
mod summaries;
mod timelines;

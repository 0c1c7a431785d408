//! The channels. They do not see each other, and the core does not see them.

pub mod matrix;
pub mod terminal;

//! What tests across services, the demo and the benches share: real parts to play on.

pub mod bench;
pub mod demo;
pub mod line;
pub mod person;
pub mod process;
pub mod restarts;
pub mod rig;
pub mod synapse;

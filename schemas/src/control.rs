//! What people tell agents, on `swarm.control.<agent or all>`. Runners fold it and check it before each step.

use crate::{kinds::kinds, signal::ByWhom};

kinds! {
    /// One control message; the latest one for an agent, or for all, is in force.
    pub enum Control {
        /// Take no new step until resumed; wakes wait.
        Pause(ByWhom) = "pause",
        /// Go on.
        Resume(ByWhom) = "resume",
        /// Refuse wakes and end runs at their next step.
        Stop(ByWhom) = "stop",
        /// Refuse wakes and end runs at once.
        Kill(ByWhom) = "kill",
    }
}

//! What people told the crew: a fold of `swarm.control.>`, read before each step.
//!
//! The fold is pure; [`follow()`] keeps it up to date from the log, from its first message on, in every runner.

mod follow;

use std::collections::BTreeMap;

use schemas::{AgentName, control::Control, signal::ByWhom, subject::Target};

pub use follow::{ControlsError, Follower, follow};

/// Whether an agent may go on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Standing {
    /// It may.
    #[default]
    Free,
    /// It takes no new step until resumed.
    Paused(ByWhom),
    /// Its runs end at their next step and its wakes are refused.
    Stopped(ByWhom),
    /// Its runs end at once and its wakes are refused.
    Killed(ByWhom),
}

/// The latest control for each target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controls {
    all: (u64, Standing),
    agents: BTreeMap<AgentName, (u64, Standing)>,
}

impl Controls {
    /// Applies a control that stands at `sequence`. An older one, or a repeat, changes nothing.
    pub fn apply(&mut self, sequence: u64, target: &Target, control: &Control) {
        let standing = match control {
            Control::Pause(by) => Standing::Paused(by.clone()),
            Control::Resume(_) => Standing::Free,
            Control::Stop(by) => Standing::Stopped(by.clone()),
            Control::Kill(by) => Standing::Killed(by.clone()),
            Control::Unknown(_) => return,
        };
        let entry = match target {
            Target::All => &mut self.all,
            Target::Agent(agent) => self.agents.entry(agent.clone()).or_default(),
        };
        if sequence > entry.0 {
            *entry = (sequence, standing);
        }
    }

    /// Whether any agent was killed and not resumed since.
    pub fn kills(&self) -> bool {
        let mut standings = self.agents.values().chain([&self.all]);
        standings.any(|(_, standing)| matches!(standing, Standing::Killed(_)))
    }

    /// How `agent` stands: the later of what was said to it and to all.
    pub fn of(&self, agent: &AgentName) -> &Standing {
        match self.agents.get(agent) {
            Some((sequence, standing)) if *sequence > self.all.0 => standing,
            _ => &self.all.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(who: &str) -> ByWhom {
        ByWhom { by: who.to_owned(), reason: String::new() }
    }

    #[test]
    fn the_later_word_counts_whether_to_one_or_to_all() {
        let coder = AgentName::try_new("coder").unwrap();
        let one = Target::Agent(coder.clone());
        let mut controls = Controls::default();
        controls.apply(1, &Target::All, &Control::Stop(by("ada")));
        assert_eq!(*controls.of(&coder), Standing::Stopped(by("ada")));
        controls.apply(2, &one, &Control::Resume(by("ada")));
        assert_eq!(*controls.of(&coder), Standing::Free);
        controls.apply(3, &Target::All, &Control::Pause(by("bob")));
        assert_eq!(*controls.of(&coder), Standing::Paused(by("bob")));
        controls.apply(2, &one, &Control::Kill(by("eve")));
        assert_eq!(*controls.of(&coder), Standing::Paused(by("bob")), "a repeat or an older word changes nothing");
    }
}

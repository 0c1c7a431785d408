//! What people told the crew: a fold of `swarm.control.>`, read before each step.
//!
//! The fold is pure; [`follow()`] keeps it up to date from the log, from its first message on, in every runner.
//!
//! A control that can not be read, or that a later version may know, may be a stop. So it pauses whom its subject names,
//! unless they are stopped already, and health warns, until a later control of that target, or of all, can be read.

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

/// Who pauses for a control that can not be read.
const READER: &str = "agent-runner";

/// The latest control for each target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Controls {
    all: Word,
    agents: BTreeMap<AgentName, Word>,
}

/// The latest control for one target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Word {
    sequence: u64,
    standing: Standing,
    /// Why it could not be read, if so.
    unread: Option<String>,
}

impl Controls {
    /// Applies a control that stands at `sequence`. An older one, or a repeat, changes nothing.
    pub fn apply(&mut self, sequence: u64, target: &Target, control: &Control) {
        let standing = match control {
            Control::Pause(by) => Standing::Paused(by.clone()),
            Control::Resume(_) => Standing::Free,
            Control::Stop(by) => Standing::Stopped(by.clone()),
            Control::Kill(by) => Standing::Killed(by.clone()),
            Control::Unknown(control) => {
                let why = format!("this version knows no {:?}", control.kind);
                return self.apply_unread(sequence, target, &why);
            }
        };
        self.put(target, Word { sequence, standing, unread: None });
    }

    /// Applies a control that can not be read, by its place alone.
    pub fn apply_unread(&mut self, sequence: u64, target: &Target, why: &str) {
        let reason = format!("A control to {target} can not be read: {why}.");
        let before = match target {
            Target::All => Some(&self.all),
            Target::Agent(agent) => self.agents.get(agent),
        };
        let standing = match before.map(|word| &word.standing) {
            Some(stopped @ (Standing::Stopped(_) | Standing::Killed(_))) => stopped.clone(),
            _ => Standing::Paused(ByWhom { by: READER.to_owned(), reason: reason.clone() }),
        };
        self.put(target, Word { sequence, standing, unread: Some(reason) });
    }

    fn put(&mut self, target: &Target, word: Word) {
        let entry = match target {
            Target::All => &mut self.all,
            Target::Agent(agent) => self.agents.entry(agent.clone()).or_default(),
        };
        if word.sequence > entry.sequence {
            *entry = word;
        }
    }

    /// The controls in force that could not be read.
    pub fn unread(&self) -> impl Iterator<Item = &str> {
        let own = self.agents.values().filter(|word| word.sequence > self.all.sequence);
        own.chain([&self.all]).filter_map(|word| word.unread.as_deref())
    }

    /// Whether any agent was killed and not resumed since.
    pub fn kills(&self) -> bool {
        let mut standings = self.agents.values().chain([&self.all]);
        standings.any(|word| matches!(word.standing, Standing::Killed(_)))
    }

    /// How `agent` stands: the later of what was said to it and to all.
    pub fn of(&self, agent: &AgentName) -> &Standing {
        match self.agents.get(agent) {
            Some(word) if word.sequence > self.all.sequence => &word.standing,
            _ => &self.all.standing,
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

    #[test]
    fn what_can_not_be_read_takes_no_stop_back() {
        let lead = AgentName::try_new("lead").unwrap();
        let mut controls = Controls::default();
        controls.apply(1, &Target::All, &Control::Stop(by("ada")));
        controls.apply_unread(2, &Target::All, "no JSON");
        assert_eq!((controls.of(&lead), controls.unread().count()), (&Standing::Stopped(by("ada")), 1));
    }

    #[test]
    fn what_can_not_be_read_is_a_pause_until_a_later_word() {
        let coder = AgentName::try_new("coder").unwrap();
        let one = Target::Agent(coder.clone());
        let later: Control = serde_json::from_value(serde_json::json!({ "kind": "quarantine", "by": "ada" })).unwrap();
        let mut controls = Controls::default();
        controls.apply(1, &one, &later);
        assert!(matches!(controls.of(&coder), Standing::Paused(by) if by.reason.contains("quarantine")));
        assert_eq!(*controls.of(&AgentName::try_new("lead").unwrap()), Standing::Free);
        assert_eq!(controls.unread().count(), 1);
        controls.apply(2, &one, &Control::Resume(by("ada")));
        assert_eq!((controls.of(&coder), controls.unread().count()), (&Standing::Free, 0));
        controls.apply_unread(3, &one, "no JSON");
        controls.apply(4, &Target::All, &Control::Resume(by("ada")));
        assert_eq!((controls.of(&coder), controls.unread().count()), (&Standing::Free, 0));
        controls.apply_unread(5, &Target::All, "no JSON");
        assert!(matches!(controls.of(&coder), Standing::Paused(_)) && controls.unread().count() == 1);
    }
}

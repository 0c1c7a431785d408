//! How often each rule with `times` was used in each conversation.

use std::collections::{HashMap, VecDeque};

use crate::digest::Digest;

/// How many (rule, conversation) pairs are remembered: ten rules with `times` over a bench of a few thousand
/// conversations. The oldest is forgotten first, and its rule then starts again.
const USES_KEPT: usize = 65_536;

/// Counts of uses by rule and conversation.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    counts: HashMap<(usize, Digest), u32>,
    order: VecDeque<(usize, Digest)>,
}

impl Uses {
    /// How often the rule was used in the conversation.
    pub(crate) fn count(&self, rule: usize, conversation: Digest) -> u32 {
        self.counts.get(&(rule, conversation)).copied().unwrap_or(0)
    }

    /// Counts one more use.
    pub(crate) fn add(&mut self, rule: usize, conversation: Digest) {
        let key = (rule, conversation);
        let count = self.counts.entry(key).or_insert_with(|| {
            self.order.push_back(key);
            0
        });
        *count += 1;
        if self.order.len() > USES_KEPT
            && let Some(oldest) = self.order.pop_front()
        {
            self.counts.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_forgotten_when_there_are_too_many() {
        let mut uses = Uses::default();
        let conversation = Digest::of(&[]);
        for rule in 0..=USES_KEPT {
            uses.add(rule, conversation);
        }

        assert_eq!(uses.count(0, conversation), 0);
        assert_eq!(uses.count(1, conversation), 1);
        assert_eq!(uses.counts.len(), USES_KEPT);
    }
}

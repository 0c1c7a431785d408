//! What is wrong with the channels right now, as checks of the service.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kit::service::Check;

/// The problems of the bridge, each a red check under a key of its own. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    checks: kit::service::Health,
    red: Arc<Mutex<BTreeSet<String>>>,
}

impl Health {
    /// Shows problems among the checks of a service.
    pub fn new(checks: kit::service::Health) -> Self {
        Self { checks, red: Arc::default() }
    }

    /// Says that something is not there yet, until it is reported or cleared.
    pub fn starting(&self, key: &str) {
        self.checks.set(key, Check::Starting);
    }

    /// Says that something waits for something else, whose own problem it is: its end is nothing to tell anybody of.
    pub fn waits(&self, key: &str, why: &str) {
        if !self.lock().contains(key) {
            self.checks.set(key, Check::Red(why.to_owned()));
        }
    }

    /// Whether a problem was reported that is not over.
    pub fn is_reported(&self, key: &str) -> bool {
        self.lock().contains(key)
    }

    /// Reports a problem, or a change of one. True when it is new.
    pub fn report(&self, key: &str, problem: impl Into<String>) -> bool {
        let problem = problem.into();
        let new = self.lock().insert(key.to_owned());
        if new {
            tracing::warn!(key, problem, "chat is not healthy");
        }
        self.checks.set(key, Check::Red(problem));
        new
    }

    /// Says that something works, and shows so. True when it was reported.
    pub fn works(&self, key: &str) -> bool {
        let was = self.lock().remove(key);
        self.checks.set(key, Check::Green);
        if was {
            tracing::info!(key, "a problem of chat is over");
        }
        was
    }

    /// Takes a problem back, with its check. True when it was there.
    pub fn clear(&self, key: &str) -> bool {
        let was = self.lock().remove(key);
        if was {
            self.checks.remove(key);
            tracing::info!(key, "a problem of chat is over");
        }
        was
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // A set of strings is never half changed, so a panic elsewhere leaves it usable.
        self.red.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_new_once_and_gone_when_cleared() {
        let checks = kit::service::Health::new("chat-bridge");
        checks.set("started", Check::Green);
        let health = Health::new(checks.clone());
        assert!(checks.is_ready());
        assert!(health.report("sync", "stalled"));
        assert!(!health.report("sync", "still stalled"));
        assert_eq!(checks.report().checks["sync"], Check::Red("still stalled".to_owned()));
        assert!(health.clear("sync") && !health.clear("sync"));
        assert!(checks.is_ready());
    }

    #[test]
    fn what_only_waits_is_red_and_its_end_is_no_news() {
        let checks = kit::service::Health::new("chat-bridge");
        let health = Health::new(checks.clone());
        health.starting("sync");
        health.waits("sync", "not logged in");
        assert_eq!(checks.report().checks["sync"], Check::Red("not logged in".to_owned()));
        assert!(!health.works("sync"));
        health.report("sync", "stalled");
        health.waits("sync", "not logged in");
        assert_eq!(checks.report().checks["sync"], Check::Red("stalled".to_owned()));
        assert!(health.works("sync"));
    }
}

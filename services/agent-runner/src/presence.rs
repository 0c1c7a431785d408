//! Says to the registry of agents what this runner serves, what it has in hand, and how it is.
//!
//! Emits: KV `agents`, an entry an agent, when something of it changed and otherwise often enough that it does not expire.
//! On failure: said again a second later; what is missing there for a while stops no run.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use kit::{
    bus::Bus,
    class::chain,
    crew::Crew,
    presence::{self, TTL},
    service::Health,
};
use schemas::{AgentName, Class, presence::Presence};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::holds::Holds;

/// How often it is looked whether an entry changed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often an entry is said again that did not change: three times in its life, so that two may be lost.
const REPEAT_EVERY: Duration = Duration::from_secs(5);

/// How long taking the entries back may keep a runner from its end. They expire anyway.
const WITHDRAW_WITHIN: Duration = Duration::from_secs(2);

/// Problems that an entry lists: a runner has fewer checks.
const MOST_PROBLEMS: usize = 10;

/// Characters of one of them.
const PROBLEM_CHARS: usize = 300;

/// What a runner says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Registrar {
    /// The bus.
    pub(crate) bus: Bus,
    /// Who there is to serve.
    pub(crate) crew: Arc<Crew>,
    /// What is in hand.
    pub(crate) holds: Holds,
    /// How this runner is.
    pub(crate) health: Health,
    /// This runner.
    pub(crate) runner: Runner,
}

/// What does not change while a runner lives.
#[derive(Debug, Clone)]
pub(crate) struct Runner {
    /// Its name in `started` and `resumed`.
    pub(crate) name: String,
    /// What drives its runs.
    pub(crate) harness: &'static str,
    /// How many runs it holds at most.
    pub(crate) capacity: usize,
    /// When it started.
    pub(crate) since: Timestamp,
}

impl Registrar {
    /// Keeps the entries up to date until shutdown, and then takes them back.
    pub(crate) async fn keep(self, shutdown: CancellationToken) {
        let mut said: HashMap<AgentName, (Presence, Instant)> = HashMap::new();
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = looks.tick() => {}
            }
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = self.say(&mut said) => {}
            }
        }
        let withdrawn = tokio::time::timeout(WITHDRAW_WITHIN, self.withdraw(said));
        if withdrawn.await.is_err() {
            tracing::debug!("the registry does not know yet that this runner has ended");
        }
    }

    async fn say(&self, said: &mut HashMap<AgentName, (Presence, Instant)>) {
        let problems = self.health.report().problems();
        for entry in entries(&self.crew, &self.runner, &self.holds.by_agent(), &problems) {
            let known = said.get(&entry.agent);
            if known.is_some_and(|(last, when)| *last == entry && when.elapsed() < REPEAT_EVERY) {
                continue;
            }
            let when = Instant::now();
            if let Err(error) = presence::announce(&self.bus, &entry, TTL).await {
                tracing::warn!(error = %chain(&error), "the registry of agents can not be told now");
                return;
            }
            said.insert(entry.agent.clone(), (entry, when));
        }
    }

    async fn withdraw(&self, said: HashMap<AgentName, (Presence, Instant)>) {
        for (entry, _) in said.into_values() {
            if let Err(error) = presence::withdraw(&self.bus, &entry).await {
                tracing::debug!(error = %chain(&error), "an entry of the registry is left to expire");
            }
        }
    }
}

/// The entries of a runner: one for each agent whose runs wake it.
fn entries(crew: &Crew, runner: &Runner, held: &BTreeMap<AgentName, u64>, problems: &[String]) -> Vec<Presence> {
    let load = held.values().sum();
    let problems: Vec<String> =
        problems.iter().take(MOST_PROBLEMS).map(|problem| problem.chars().take(PROBLEM_CHARS).collect()).collect();
    let served = crew.agents.iter().filter(|agent| agent.capabilities.lifecycle == Class::Resident);
    served
        .map(|agent| Presence {
            runner: runner.name.clone(),
            agent: agent.name.clone(),
            class: agent.capabilities.lifecycle,
            harness: runner.harness.to_owned(),
            models: agent.capabilities.models.clone(),
            tools: agent.capabilities.tools.iter().map(|grant| grant.name.clone()).collect(),
            repositories: agent.capabilities.repositories.clone(),
            held: held.get(&agent.name).copied().unwrap_or(0),
            load,
            capacity: runner.capacity as u64,
            problems: problems.clone(),
            since: runner.since,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const TEAM: &str = "{project: test, time_zone: UTC, agents: [{name: lead}, {name: coder}, {name: batch}], \
        limits: {max_steps: 9, max_handoff_depth: 2, max_handoffs: 4, max_repeats: 3, deadline: 1h, max_tokens: 9, \
        max_messages_without_human: 9}}";
    const MODELS: &str = "routes: {play: {provider: rehearsal, model: rehearsal, context_window: 9000, \
        max_output_tokens: 900, unpriced: true}}";

    fn crew() -> Crew {
        let files = |path: &str| {
            let scope = "{lifecycle: resident, harness: native, models: [play], rooms: [], repositories: [], \
                tools: [read, search]}";
            Ok(match path {
                "team.yaml" => TEAM.to_owned(),
                "models.yaml" => MODELS.to_owned(),
                path if path.ends_with("capabilities.yaml") => scope.to_owned(),
                _ => "You help.".to_owned(),
            })
        };
        let mut crew = Crew::assemble(Path::new("/project"), files).unwrap();
        crew.agents[2].capabilities.lifecycle = Class::Ephemeral;
        crew
    }

    #[test]
    fn a_runner_says_what_it_serves_and_has_in_hand() {
        let runner = Runner { name: "r1".into(), harness: "native", capacity: 5, since: Timestamp::UNIX_EPOCH };
        let held = BTreeMap::from([(AgentName::try_new("coder").unwrap(), 2)]);
        let problems: Vec<String> = (0..20).map(|n| format!("{n}: {}", "x".repeat(1_000))).collect();
        let entries = entries(&crew(), &runner, &held, &problems);
        let seen: Vec<_> = entries.iter().map(|entry| (entry.agent.as_str(), entry.held, entry.load)).collect();
        assert_eq!(seen, [("lead", 0, 2), ("coder", 2, 2)], "what needs a process of its own is not served here");
        assert_eq!((entries[0].models.as_slice(), entries[0].tools.len()), (&["play".to_owned()][..], 2));
        assert_eq!((entries[0].capacity, entries[0].harness.as_str()), (5, "native"));
        assert_eq!(entries[0].problems.len(), MOST_PROBLEMS);
        assert!(entries[0].problems.iter().all(|problem| problem.len() == PROBLEM_CHARS), "bounded");
    }
}

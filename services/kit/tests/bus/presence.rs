//! The registry of agents: what is said there is read, replaced, withdrawn, and expires.

use std::time::Duration;

use kit::bus::Bus;
use kit::class::Classified as _;
use kit::identity::Service;
use kit::presence::{self, TTL};
use schemas::presence::Presence;
use schemas::{AgentName, Class};

use crate::fixture::{Fixture, until};

fn entry(agent: &str, runner: &str, held: u64) -> Presence {
    Presence {
        runner: runner.to_owned(),
        agent: AgentName::try_new(agent).expect("a name"),
        class: Class::Resident,
        harness: "native".to_owned(),
        models: vec!["strong".to_owned()],
        tools: vec!["read".to_owned()],
        repositories: Vec::new(),
        held,
        load: held,
        capacity: 10,
        problems: Vec::new(),
        since: "2026-11-21T03:00:00Z".parse().expect("a time"),
    }
}

async fn names(bus: &Bus) -> Vec<(String, String, u64)> {
    let entries = presence::list(bus).await.expect("a registry");
    entries.into_iter().map(|entry| (entry.agent.to_string(), entry.runner, entry.held)).collect()
}

fn listed(entries: &[(&str, &str, u64)]) -> Vec<(String, String, u64)> {
    entries.iter().map(|(agent, runner, held)| ((*agent).to_owned(), (*runner).to_owned(), *held)).collect()
}

#[tokio::test]
async fn the_last_word_of_each_runner_about_each_agent_is_there_until_it_is_taken_back() {
    let fixture = Fixture::start().await;
    let (runner, reader) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    assert_eq!(names(&reader).await, []);
    for said in [entry("scout", "r2", 0), entry("lead", "r1", 1), entry("lead", "r2", 2), entry("lead", "r1", 3)] {
        presence::announce(&runner, &said, TTL).await.expect("it is said");
    }
    assert_eq!(names(&reader).await, listed(&[("lead", "r1", 3), ("lead", "r2", 2), ("scout", "r2", 0)]));
    presence::withdraw(&runner, &entry("lead", "r2", 0)).await.expect("it is taken back");
    assert_eq!(names(&reader).await, listed(&[("lead", "r1", 3), ("scout", "r2", 0)]));
}

#[tokio::test]
async fn a_runner_that_is_lost_disappears() {
    let fixture = Fixture::start().await;
    let (runner, reader) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    presence::announce(&runner, &entry("lead", "lost", 1), Duration::from_secs(1)).await.expect("it is said");
    presence::announce(&runner, &entry("lead", "there", 1), TTL).await.expect("it is said");
    assert_eq!(names(&reader).await, listed(&[("lead", "lost", 1), ("lead", "there", 1)]));
    let gone = || async { (names(&reader).await == listed(&[("lead", "there", 1)])).then_some(()) };
    until("the lost runner is gone", gone).await;
}

#[tokio::test]
async fn only_runners_say_who_is_there() {
    let fixture = Fixture::start().await;
    let reader = fixture.connect(Service::Nightcrew).await;
    let refused = presence::announce(&reader, &entry("lead", "r1", 0), TTL).await.expect_err("not its own");
    assert_eq!(refused.code(), "bus_unavailable");
    let odd = presence::announce(&fixture.runner().await, &entry("lead", "a.b", 0), TTL).await.expect_err("no key");
    assert_eq!(odd.code(), "presence_name");
    assert_eq!(names(&reader).await, []);
}

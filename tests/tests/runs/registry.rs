//! The registry of agents: a runner is there with what it has in hand, and gone when it ends.

use std::time::Instant;

use kit::presence;
use nightcrew_tests::rig::{PATIENCE, Rig};
use schemas::{RunEvent, presence::Presence};

const SCENARIO: &str = "
name: registry
rules:
  - name: answers
    when: {agent: coder}
    gate: answer
    reply: {text: done}
";

/// Waits until the registry is as wanted.
async fn until(rig: &Rig, what: &str, wanted: impl Fn(&[Presence]) -> bool) -> Vec<Presence> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let entries = presence::list(&rig.client).await.expect("a registry");
        if wanted(&entries) {
            return entries;
        }
        assert!(Instant::now() < deadline, "{what}: {entries:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_is_there_with_what_it_holds_until_it_ends() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let first = rig.runner("disk").await.expect("a runner");
    let second = rig.runner("disk").await.expect("a runner");
    let well = |entry: &Presence| entry.problems.is_empty() && entry.held == 0;
    let entries = until(&rig, "two runners for three agents", |all| all.len() == 6 && all.iter().all(well)).await;
    let coder: Vec<_> = entries.iter().filter(|entry| entry.agent.as_str() == "coder").collect();
    assert_eq!(coder.len(), 2);
    assert!(coder.iter().all(|entry| entry.tools.contains(&"edit".to_owned()) && entry.capacity > 0), "{coder:?}");

    let run = rig.ask("coder", "Do it.").await.expect("a run");
    let started = rig.wait(run, |event| matches!(event, RunEvent::Started(_))).await.expect("it starts");
    let RunEvent::Started(started) = started else { unreachable!("it was matched") };
    let holds = |entry: &Presence| entry.runner == started.runner && entry.agent.as_str() == "coder" && entry.held == 1;
    let entries = until(&rig, "the run is in hand", |all| all.iter().any(holds)).await;
    let mut others = entries.iter().filter(|entry| entry.runner != started.runner || entry.agent.as_str() != "coder");
    assert!(others.all(|entry| entry.held == 0), "{entries:#?}");

    rig.rehearsal.open_gate("answer").expect("a gate");
    rig.end(run).await.expect("an end");
    until(&rig, "nothing is in hand", |all| all.len() == 6 && all.iter().all(well)).await;
    first.stop().await;
    second.stop().await;
    until(&rig, "nobody is there", <[Presence]>::is_empty).await;
}

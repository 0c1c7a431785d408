//! `pause`, `resume`, `stop`, `agents`, `retry` and `rebuild`.

use kit::{journal::Journal, presence, streams::StreamOptions};
use schemas::{
    AgentName, Class, Decision, RunEvent, Trigger,
    cli::{AgentList, Rebuilt, Retried, RunList, Standing, Told},
    control::Control,
    presence::Presence,
};

use crate::fixture::{Crew, Story, run};

fn entry(agent: &str, runner: &str, held: u64, problems: &[&str]) -> Presence {
    Presence {
        runner: runner.to_owned(),
        agent: AgentName::try_new(agent).unwrap(),
        class: Class::Resident,
        harness: "native".to_owned(),
        models: vec!["play".to_owned()],
        tools: Vec::new(),
        repositories: Vec::new(),
        held,
        load: held,
        capacity: 10,
        problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
        since: jiff::Timestamp::UNIX_EPOCH,
    }
}

async fn standings(crew: &Crew) -> Vec<(String, Standing, Option<Control>)> {
    let list: AgentList = crew.run(&["agents", "--json"]).await.json();
    list.agents.into_iter().map(|agent| (agent.agent.to_string(), agent.standing, agent.control)).collect()
}

fn words(standings: &[(String, Standing, Option<Control>)]) -> Vec<(&str, Standing)> {
    standings.iter().map(|(agent, standing, _)| (agent.as_str(), *standing)).collect()
}

#[tokio::test]
async fn the_last_word_to_an_agent_or_to_all_is_in_force() {
    let crew = Crew::start().await;
    let free = standings(&crew).await;
    assert_eq!(words(&free), [("lead", Standing::Free), ("scout", Standing::Free)]);

    let told = crew.run(&["pause", "scout", "--reason", "noisy\u{1b}[2J"]).await.well();
    assert_eq!(told, "scout: takes no new step until `nightcrew resume scout`\n");
    let paused = standings(&crew).await;
    assert_eq!(words(&paused), [("lead", Standing::Free), ("scout", Standing::Paused)]);
    let Some(Control::Pause(by)) = &paused[1].2 else { panic!("{paused:?}") };
    assert_eq!((by.by.as_str(), by.reason.as_str()), ("ada", "noisy\u{1b}[2J"));
    let text = crew.run(&["agents"]).await.well();
    assert!(text.contains("paused by ada: noisy\\u{1b}[2J") && !text.contains('\u{1b}'), "{text:?}");

    let told: Told = crew.run(&["stop", "--all", "--json"]).await.json();
    assert_eq!((told.told[0].what.as_str(), told.told[0].to.as_str()), ("stop", "all"));
    assert_eq!(words(&standings(&crew).await), [("lead", Standing::Stopped), ("scout", Standing::Stopped)]);
    let told: Told = crew.run(&["resume", "lead", "scout", "--json"]).await.json();
    assert_eq!(told.told.len(), 2);
    assert_eq!(words(&standings(&crew).await), [("lead", Standing::Free), ("scout", Standing::Free)]);
    crew.run(&["stop", "lead", "--now"]).await.well();
    assert_eq!(words(&standings(&crew).await), [("lead", Standing::Killed), ("scout", Standing::Free)]);
}

#[tokio::test]
async fn a_mistake_in_one_name_tells_nobody_anything() {
    let crew = Crew::start().await;
    let done = crew.run(&["pause", "lead", "skout"]).await;
    assert_eq!(done.code, 2);
    assert!(done.err.contains("there is no agent skout"), "{done:?}");
    assert_eq!(words(&standings(&crew).await)[0], ("lead", Standing::Free));
    assert_eq!(crew.run(&["stop"]).await.code, 2);
}

#[tokio::test]
async fn agents_are_there_when_a_runner_says_so_and_have_their_open_runs() {
    let crew = Crew::start().await;
    crew.write(&Story::asked(1, "lead", "one").started()).await;
    crew.write(&Story::asked(2, "lead", "two")).await;
    crew.write(&Story::asked(3, "lead", "three").started().finished("well")).await;
    crew.summarise().await;
    let list: AgentList = crew.run(&["agents", "--json"]).await.json();
    assert_eq!((list.agents[0].open_runs, list.agents[1].open_runs), (2, 0));
    assert_eq!((list.agents[0].present, list.agents[0].runners.len()), (Some(false), 0), "no runner is there");

    for entry in [entry("lead", "r1", 2, &[]), entry("lead", "r2", 1, &["log: full\u{1b}[2J"])] {
        presence::announce(&crew.runner, &entry, presence::TTL).await.unwrap();
    }
    let list: AgentList = crew.run(&["agents", "--json"]).await.json();
    assert_eq!((list.agents[0].present, list.agents[1].present), (Some(true), Some(false)));
    assert_eq!(list.agents[0].runners, [entry("lead", "r1", 2, &[]), entry("lead", "r2", 1, &["log: full\u{1b}[2J"])]);
    let text = crew.run(&["agents"]).await.well();
    let lead = text.lines().find(|line| line.starts_with("lead")).unwrap();
    for wanted in ["1 of 2 runners", "free", " 2 ", " 3 ", "takes requests and answers"] {
        assert!(lead.contains(wanted), "{wanted}: {text}");
    }
    assert!(text.contains("no runner") && text.contains("runner r2 is not well: log: full\\u{1b}[2J"), "{text}");
}

#[tokio::test]
async fn a_retry_is_a_new_run_below_the_old_one() {
    let crew = Crew::start().await;
    crew.write(&Story::asked(1, "scout", "look at it").started()).await;
    let early = crew.run(&["retry", &run(1).to_string()]).await;
    assert_eq!(early.code, 1);
    assert!(early.err.contains("has not ended"), "{early:?}");

    crew.write(&Story::asked(1, "scout", "look at it").started().finished("nothing")).await;
    let retried: Retried = crew.run(&["retry", &run(1).to_string(), "--json"]).await.json();
    assert_eq!((retried.of, retried.agent.as_str()), (run(1), "scout"));
    assert_eq!(retried.run_id.as_uuid().get_version_num(), 7);
    let first = Journal::new(&crew.runner).first(retried.run_id).await.unwrap().unwrap();
    assert_eq!(first.envelope.parent_run_id, Some(run(1)));
    let decision: Decision = first.decode().unwrap();
    let [RunEvent::Requested(requested)] = decision.events.as_slice() else { panic!("{decision:?}") };
    assert_eq!(requested.prompt, "look at it".into());
    assert_eq!((requested.parent_run_id, requested.root_run_id), (Some(run(1)), run(1)));
    assert!(requested.reply_to.is_some() && requested.deadline > kit::clock::now());
    let Trigger::Retry { of, by, .. } = &requested.trigger else { panic!("{requested:?}") };
    assert_eq!((*of, by.as_str()), (run(1), "ada"));

    let again: Retried = crew.run(&["retry", &run(1).to_string(), "--json"]).await.json();
    assert_ne!(again.run_id, retried.run_id, "each retry is a run of its own");
    assert_eq!(crew.run(&["retry", &run(9).to_string()]).await.code, 1);
}

#[tokio::test]
async fn a_retry_is_refused_while_the_log_has_no_room() {
    let crew = Crew::with(StreamOptions { swarm_max_bytes: 1 << 20, ..StreamOptions::single_node() }).await;
    // Nine tenths of the log.
    crew.write(&Story::asked(1, "scout", "look at it").started().finished(&"x".repeat(950_000))).await;
    let refused = crew.run(&["retry", &run(1).to_string()]).await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""), "{refused:?}");
    let why = "no run can be started: the log is 9";
    assert!(refused.err.contains(why) && refused.err.contains("new runs are refused from 80 % on"), "{refused:?}");
}

#[tokio::test]
async fn summaries_are_made_anew_from_the_log() {
    let crew = Crew::start().await;
    crew.write(&Story::asked(1, "lead", "one").started()).await;
    crew.write(&Story::asked(2, "scout", "two")).await;
    let rebuilt: Rebuilt = crew.run(&["rebuild", "--json"]).await.json();
    assert_eq!(rebuilt.runs, 2);
    let list: RunList = crew.run(&["runs", "--json"]).await.json();
    assert_eq!(list.runs.len(), 2);
    assert!(crew.run(&["rebuild"]).await.well().starts_with("2 runs told anew from the log in "));
}

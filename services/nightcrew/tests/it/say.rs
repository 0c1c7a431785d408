//! `say`, with the real chat-bridge between the terminal and a runner that this test plays.

use std::{sync::Arc, time::Duration};

use kit::{bus::Bus, config::Env, crew, identity, journal::Journal, message::Outgoing, service::Context};
use schemas::{
    Decision, Envelope, EventId, RunEvent, RunId, Subject,
    cli::{DeadList, Spoken},
    event::{FailReason, Failed, Finished, Footer, MessageSent, Outcome, Requested, Totals},
    ids::Token,
};

use crate::fixture::{Crew, Story, run};

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// chat-bridge, as `nightcrew up` runs it.
async fn bridge(crew: &Crew) -> Context {
    let context = Context::new("chat-bridge");
    let deps = chat_bridge::Deps {
        bus: crew.bus.bus(identity::Service::ChatBridge).await,
        crew: Arc::new(crew::Crew::load(crew.folder.path()).unwrap()),
    };
    let env = Env::from_process();
    let config = chat_bridge::Config { folder: crew.folder.path().join("chat"), env };
    context.spawn_vital("run", chat_bridge::run(config, deps, context.clone()));
    context.health.until_ready().await;
    context
}

/// The next run that somebody asks for.
async fn next_request(bus: &Bus) -> (RunId, u64, Requested) {
    next_request_after(bus, RunId::from_uuid(uuid::Uuid::nil())).await
}

/// The next run that somebody asks for besides `known`.
async fn next_request_after(bus: &Bus, known: RunId) -> (RunId, u64, Requested) {
    let asked = async {
        loop {
            let page = bus.scan("SWARM", "swarm.run.*.requested.>", 1).await.unwrap();
            let stored = page.messages.iter().map(|message| message.stored().unwrap());
            if let Some(stored) = stored.into_iter().find(|stored| stored.run_id() != Some(known)) {
                let decision: Decision = stored.decode().unwrap();
                let [RunEvent::Requested(requested)] = decision.events.as_slice() else { panic!("{decision:?}") };
                return (stored.run_id().unwrap(), stored.sequence, (**requested).clone());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asked).await.expect("a request")
}

/// Ends a run with a word to whoever asked, as the runner does.
async fn answer(bus: &Bus, (run_id, sequence, requested): &(RunId, u64, Requested), text: &str, end: RunEvent) {
    let to = requested.reply_to.clone().unwrap();
    let subject = Subject::Say(*run_id, Token::try_new(to.channel.as_str()).unwrap());
    let footer = Footer { agent: requested.agent.clone(), run_id: *run_id, totals: Totals::default(), rehearsal: true };
    let sent = RunEvent::MessageSent(MessageSent { to, text: text.into(), footer });
    let id = EventId::new(kit::clock::uuid7().to_string());
    let envelope = Envelope::new(id, "decision", "agent-runner", kit::clock::now());
    let outgoing = Outgoing::decision(subject, envelope, &Decision { events: vec![sent, end] }).unwrap();
    Journal::new(bus).append(*run_id, *sequence, outgoing).await.unwrap();
}

fn finished(answer: &str) -> RunEvent {
    RunEvent::Finished(Finished { answer: answer.into(), totals: Totals::default() })
}

#[tokio::test]
async fn what_is_said_wakes_an_agent_whose_answer_comes_back_with_its_footer() {
    let crew = Crew::start().await;
    let bridge = bridge(&crew).await;
    let play = async {
        let request = next_request(&crew.runner).await;
        answer(&crew.runner, &request, "It is in \u{1b}[31mmain.rs.", finished("It is in main.rs.")).await;
        request
    };
    let (said, (run_id, _, requested)) = tokio::join!(crew.run(&["say", "find", "the", "failing", "test"]), play);
    let text = said.well();
    assert!(text.starts_with(&format!("lead has it: run {run_id}\n")), "{text:?}");
    assert!(text.contains("\n\nIt is in \\u{1b}[31mmain.rs."), "{text:?}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // The footer names the agent and the run.
    assert!(text.contains(&run_id.short()) && text.contains("rehearsal"), "{text}");
    assert_eq!(requested.prompt, "find the failing test".into());
    assert_eq!(requested.reply_to.unwrap().channel, "terminal");
    let signals = Journal::new(&crew.runner).signals(run_id, 1).await.unwrap();
    assert_eq!(signals.iter().map(|signal| signal.envelope.kind.as_str()).collect::<Vec<_>>(), ["delivered"]);
    bridge.begin_shutdown();
}

#[tokio::test]
async fn a_first_word_names_the_agent_and_a_run_that_fails_is_a_failure() {
    let crew = Crew::start().await;
    let bridge = bridge(&crew).await;
    let play = async {
        let request = next_request(&crew.runner).await;
        let failed = Failed { reason: FailReason::Model, message: "no model".to_owned(), totals: Totals::default() };
        answer(&crew.runner, &request, "I could not.", RunEvent::Failed(failed)).await;
        request
    };
    let (said, (run_id, _, requested)) = tokio::join!(crew.run(&["say", "--json", "scout", "look"]), play);
    assert_eq!(said.code, 1, "{said:?}");
    let spoken: Vec<Spoken> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [Spoken::Woken { agent, run_id: woken }, Spoken::Said { text, .. }, Spoken::Ended { outcome, .. }] =
        spoken.as_slice()
    else {
        panic!("{spoken:?}")
    };
    assert_eq!((agent.as_str(), *woken, *outcome), ("scout", run_id, Outcome::Failed));
    assert!(text.contains("I could not."));
    assert_eq!(requested.agent.as_str(), "scout");
    bridge.begin_shutdown();
}

#[tokio::test]
async fn the_answer_of_a_run_that_goes_on_from_another_comes_back_too() {
    let crew = Crew::start().await;
    let bridge = bridge(&crew).await;
    crew.write(&Story::asked(1, "scout", "look").started().finished("seen")).await;
    let play = async {
        let request = next_request_after(&crew.runner, run(1)).await;
        answer(&crew.runner, &request, "It was teal.", finished("It was teal.")).await;
        request
    };
    let from = run(1).to_string();
    let words = ["say", "--from", from.as_str(), "Which?"];
    let (said, (run_id, _, requested)) = tokio::join!(crew.run(&words), play);
    let text = said.well();
    assert!(text.starts_with(&format!("scout has it: run {run_id}\n")), "{text:?}");
    assert!(text.contains("\n\nIt was teal."), "{text:?}");
    assert!(requested.state.is_some());
    bridge.begin_shutdown();
}

#[tokio::test]
async fn who_does_not_wait_gets_the_run_alone() {
    let crew = Crew::start().await;
    let bridge = bridge(&crew).await;
    let said = crew.run(&["say", "--no-wait", "--json", "look"]).await;
    assert_eq!(said.code, 0, "{said:?}");
    assert!(matches!(said.json(), Spoken::Woken { .. }));
    bridge.begin_shutdown();
}

#[tokio::test]
async fn who_may_not_be_woken_is_told_with_who_may() {
    let crew = Crew::start().await;
    let team = crew.folder.path().join("team.yaml");
    let text = std::fs::read_to_string(&team).unwrap();
    std::fs::write(&team, text.replace("agents: [lead, scout]", "agents: [lead]")).unwrap();
    let bridge = bridge(&crew).await;
    let said = crew.run(&["say", "scout", "look"]).await;
    assert_eq!(said.code, 1);
    assert!(said.out.contains("**scout** may not be woken in this room. Try `@lead`."), "{said:?}");
    assert!(said.err.contains("nobody was woken"), "{said:?}");
    let parked: DeadList = crew.run(&["dead", "list", "--json"]).await.json();
    assert_eq!(parked.parked.len(), 1);
    bridge.begin_shutdown();
}

#[tokio::test]
async fn what_has_to_wait_is_said_with_what_it_waits_for() {
    let crew = Crew::start().await;
    let bridge = bridge(&crew).await;
    let alone = crew.run(&["say", "--no-wait", "look"]).await.well();
    assert!(alone.contains("no runner is there") && alone.lines().count() == 2, "{alone}");
    crew.run(&["pause", "scout", "--reason", "lunch\u{1b}[2J"]).await.well();
    let paused = crew.run(&["say", "--no-wait", "scout", "look"]).await.well();
    let wanted = "scout is paused by ada (lunch\\u{1b}[2J): it goes on after `nightcrew resume scout`";
    assert!(paused.contains(wanted), "{paused}");
    bridge.begin_shutdown();
}

#[tokio::test]
async fn without_a_bridge_nobody_hears() {
    let crew = Crew::start().await;
    let said = crew.run(&["say", "hello"]).await;
    assert_eq!(said.code, 1);
    assert!(said.err.contains("chat-bridge does not run"), "{said:?}");
}

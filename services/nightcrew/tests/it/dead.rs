//! `dead list`, `show`, `replay` and `drop`.

use kit::{dead::park_outgoing, journal::Journal, message::Outgoing};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, Subject,
    cli::{DeadList, DeadOutcome, DeadResults, ParkedLetter},
};

use crate::fixture::{Crew, run};

async fn park(crew: &Crew, number: u128, reason: &str) {
    let subject = Subject::Requested(run(number), Class::Resident, AgentName::try_new("nobody").unwrap());
    let envelope = Envelope::new(EventId::new(format!("m{number}")), "decision", "chat-bridge", kit::clock::now());
    let outgoing = Outgoing::decision(subject, envelope, &Decision { events: vec![] }).unwrap();
    park_outgoing(&crew.chat, &outgoing, "unknown_agent", reason).await.unwrap();
}

fn outcomes(results: &DeadResults) -> Vec<(u64, DeadOutcome)> {
    results.results.iter().map(|result| (result.number, result.result)).collect()
}

#[tokio::test]
async fn what_is_parked_is_listed_shown_replayed_and_dropped() {
    let crew = Crew::start().await;
    assert_eq!(crew.run(&["dead", "list"]).await.well(), "nothing is parked\n");
    for number in 1..=3 {
        park(&crew, number, "no agent \u{1b}[31mnobody").await;
    }

    let text = crew.run(&["dead", "list"]).await.well();
    assert!(
        text.contains("unknown_agent") && text.contains("\\u{1b}[31mnobody") && !text.contains('\u{1b}'),
        "{text:?}"
    );
    let page: DeadList = crew.run(&["dead", "list", "--limit", "2", "--json"]).await.json();
    assert_eq!((page.parked.iter().map(|parked| parked.number).collect::<Vec<_>>(), page.more), (vec![1, 2], true));

    let one: ParkedLetter = crew.run(&["dead", "show", "2", "--json"]).await.json();
    assert_eq!((one.number, one.letter.code.as_str()), (2, "unknown_agent"));
    let text = crew.run(&["dead", "show", "2"]).await.well();
    for wanted in ["never published", "\"events\": []", "header    ce-id: m2", "(unknown_agent)"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let none = crew.run(&["dead", "show", "9"]).await;
    assert_eq!(none.code, 1);
    assert!(none.err.contains("there is no parked message 9"), "{none:?}");

    let replayed: DeadResults = crew.run(&["dead", "replay", "1", "--json"]).await.json();
    assert_eq!(outcomes(&replayed), [(1, DeadOutcome::Published)]);
    assert!(Journal::new(&crew.runner).last(run(1)).await.unwrap().is_some());
    let mixed = crew.run(&["dead", "drop", "1", "2", "--json"]).await;
    assert_eq!(mixed.code, 1, "{mixed:?}");
    assert_eq!(outcomes(&mixed.json()), [(1, DeadOutcome::StillParked), (2, DeadOutcome::Dropped)]);
    assert_eq!(crew.run(&["dead", "drop", "--all"]).await.well(), "3  dropped\n");
    assert_eq!(crew.run(&["dead", "replay", "--all"]).await.well(), "nothing is parked\n");
    assert_eq!(crew.run(&["dead", "drop"]).await.code, 2);
}

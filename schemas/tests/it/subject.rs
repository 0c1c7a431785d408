//! Subjects: one spelling each, and filters that catch what they are meant to.

use proptest::prelude::*;
use schemas::{
    AgentName, Class, RunId, Subject,
    ids::Token,
    subject::{Target, filter},
};
use uuid::Uuid;

fn run() -> impl Strategy<Value = RunId> {
    any::<u128>().prop_map(|id| RunId::from_uuid(Uuid::from_u128(id)))
}

fn token() -> impl Strategy<Value = Token> {
    "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?".prop_map(|text| Token::try_new(text).unwrap())
}

fn agent() -> impl Strategy<Value = AgentName> {
    let name = "[a-z0-9_]([a-z0-9_-]{0,20}[a-z0-9_])?".prop_filter("a reserved word", |name| name != "all");
    name.prop_map(|text| AgentName::try_new(text).unwrap())
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(vec![Class::Resident, Class::Ephemeral])
}

fn subject() -> impl Strategy<Value = Subject> {
    prop_oneof![
        (run(), class(), agent()).prop_map(|(run, class, agent)| Subject::Requested(run, class, agent)),
        run().prop_map(Subject::Journal),
        (run(), token()).prop_map(|(run, channel)| Subject::Say(run, channel)),
        (run(), token()).prop_map(|(run, system)| Subject::Effect(run, system)),
        (run(), token()).prop_map(|(run, name)| Subject::Signal(run, name)),
        run().prop_map(Subject::Call),
        token().prop_map(Subject::Event),
        Just(Subject::Control(Target::All)),
        agent().prop_map(|agent| Subject::Control(Target::Agent(agent))),
        (token(), token()).prop_map(|(service, operation)| Subject::Ask(service, operation)),
        run().prop_map(Subject::Hold),
        run().prop_map(Subject::Due),
        run().prop_map(Subject::DueAt),
        token().prop_map(Subject::Ledger),
        token().prop_map(Subject::Usage),
        token().prop_map(Subject::Audit),
        (token(), token()).prop_map(|(kind, id)| Subject::Memory(kind, id)),
        token().prop_map(Subject::Dead),
    ]
}

/// Whether a NATS filter takes a subject.
fn takes(filter: &str, subject: &str) -> bool {
    let mut subject = subject.split('.');
    for token in filter.split('.') {
        match (token, subject.next()) {
            (">", Some(_)) => return true,
            ("*", Some(_)) => {}
            (token, Some(found)) if token == found => {}
            _ => return false,
        }
    }
    subject.next().is_none()
}

/// The filters that must take a subject.
fn filters_of(subject: &Subject) -> Vec<String> {
    match subject {
        Subject::Requested(run, class, _) => vec![filter::RUNS.into(), filter::run(*run), filter::requested(*class)],
        Subject::Journal(run) => vec![filter::RUNS.into(), filter::run(*run)],
        Subject::Say(run, channel) => {
            vec![filter::RUNS.into(), filter::run(*run), filter::say(channel)]
        }
        Subject::Effect(run, system) => vec![filter::RUNS.into(), filter::run(*run), filter::effect(system)],
        Subject::Signal(run, _) => vec![filter::SIGNALS.into(), filter::signals_of(*run)],
        Subject::Call(_) => vec![filter::CALLS.into()],
        Subject::Event(_) => vec![filter::EVENTS.into()],
        Subject::Control(_) => vec![filter::CONTROLS.into()],
        Subject::Hold(_) => vec![filter::HOLDS.into()],
        Subject::Due(_) => vec![filter::SCHEDULES.into(), filter::DUE.into()],
        Subject::DueAt(_) => vec![filter::SCHEDULES.into()],
        Subject::Ledger(_) => vec![filter::LEDGER.into()],
        Subject::Usage(_) => vec![filter::USAGE.into()],
        Subject::Audit(_) => vec![filter::AUDIT.into()],
        Subject::Memory(..) => vec![filter::MEMORY.into()],
        Subject::Dead(_) => vec![filter::DEAD.into()],
        Subject::Ask(..) => vec![],
    }
}

/// Every filter that is not about one run, channel, system or class.
const WIDE: [&str; 13] = [
    filter::RUNS,
    filter::SIGNALS,
    filter::CALLS,
    filter::EVENTS,
    filter::CONTROLS,
    filter::LEDGER,
    filter::SCHEDULES,
    filter::MEMORY,
    filter::USAGE,
    filter::AUDIT,
    filter::DEAD,
    filter::HOLDS,
    filter::DUE,
];

#[test]
fn subjects_are_those_of_the_design() {
    let id = "0199f3a1-7c00-7000-8000-00000000000a";
    let run: RunId = id.parse().unwrap();
    let token = |text| Token::try_new(text).unwrap();
    let lead = AgentName::try_new("lead").unwrap();
    let expected = [
        (Subject::Requested(run, Class::Resident, lead.clone()), format!("swarm.run.{id}.requested.resident.lead")),
        (Subject::Journal(run), format!("swarm.run.{id}.event")),
        (Subject::Say(run, token("matrix")), format!("swarm.run.{id}.say.matrix")),
        (Subject::Effect(run, token("forge")), format!("swarm.run.{id}.effect.forge")),
        (Subject::Signal(run, token("child_ended")), format!("swarm.signal.{id}.child_ended")),
        (Subject::Call(run), format!("swarm.call.{id}")),
        (Subject::Event(token("pr_opened")), "swarm.events.pr_opened".into()),
        (Subject::Control(Target::All), "swarm.control.all".into()),
        (Subject::Control(Target::Agent(lead)), "swarm.control.lead".into()),
        (Subject::Ask(token("issuer"), token("mint")), "swarm.ask.issuer.mint".into()),
        (Subject::Hold(run), format!("swarm.hold.{id}")),
        (Subject::Due(run), format!("swarm.schedule.due.{id}")),
        (Subject::Dead(token("matrix")), "swarm.dead.matrix".into()),
    ];
    for (subject, text) in expected {
        assert_eq!(subject.to_string(), text);
    }
}

#[test]
fn what_is_almost_a_subject_is_refused() {
    let id = "0199f3a1-7c00-7000-8000-00000000000a";
    let almost = [
        String::new(),
        "swarm".into(),
        "swarm.run".into(),
        format!("swarm.run.{id}"),
        format!("swarm.run.{id}.event.more"),
        format!("swarm.run.{id}.requested.temporary.lead"),
        format!("swarm.run.{id}.requested.resident.all"),
        format!("swarm.run.{}.event", id.to_uppercase()),
        format!("swarm.run.{id}.say.*"),
        format!("swarm.signal.{id}.Child"),
        "swarm.run.*.event".into(),
        "swarm.control.".into(),
        format!(" swarm.run.{id}.event"),
    ];
    for text in almost {
        assert!(text.parse::<Subject>().is_err(), "{text:?}");
    }
}

proptest! {
    #[test]
    fn a_subject_round_trips(subject in subject()) {
        let text = subject.to_string();
        prop_assert_eq!(text.parse::<Subject>().unwrap(), subject);
    }

    #[test]
    fn a_subject_is_taken_by_its_filters_and_by_no_other(subject in subject()) {
        let text = subject.to_string();
        let filters = filters_of(&subject);
        for filter in &filters {
            prop_assert!(takes(filter, &text), "{} should take {}", filter, text);
        }
        for wide in WIDE {
            prop_assert_eq!(takes(wide, &text), filters.iter().any(|filter| filter == wide), "{} and {}", wide, text);
        }
        if let Some(run) = subject.run_id() {
            prop_assert!(text.contains(&run.to_string()));
        }
    }

    #[test]
    fn no_text_makes_it_panic(text in ".{0,60}") {
        let _ = text.parse::<Subject>();
    }

    #[test]
    fn what_parses_is_spelled_in_the_one_way(
        head in prop::sample::select(vec!["run", "signal", "call", "events", "control", "ask", "hold", "schedule", "dead"]),
        rest in prop::collection::vec(prop_oneof![
            Just("event".to_owned()),
            Just("all".to_owned()),
            Just("requested".to_owned()),
            Just("0199f3a1-7c00-7000-8000-00000000000a".to_owned()),
            Just("0199F3A1-7C00-7000-8000-00000000000A".to_owned()),
            "[a-zA-Z0-9_*>-]{0,8}",
        ], 0..5),
    ) {
        let text = [vec!["swarm".to_owned(), head.to_owned()], rest].concat().join(".");
        if let Ok(subject) = text.parse::<Subject>() {
            prop_assert_eq!(subject.to_string(), text);
        }
    }
}

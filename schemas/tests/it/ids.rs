//! Ids that derive from what they name. The expected values were computed by another implementation of UUIDv5 and must
//! never change: a trigger keeps its run for as long as the log lives.

use proptest::prelude::*;
use schemas::{AgentName, EventId, ProjectId, RunId, Trigger, ids::Token};

const PARENT: &str = "0199f3a1-7c00-7000-8000-00000000000b";
const DECISION: &str = "0199f3a1-7c00-7000-8000-0000000000e1";

fn agent(name: &str) -> AgentName {
    AgentName::try_new(name).unwrap()
}

fn derive(trigger: &Trigger, rule: &str, agent_name: &str) -> String {
    RunId::derive(&ProjectId::try_new("demo").unwrap(), trigger, rule, &agent(agent_name)).to_string()
}

fn chat(room: &str, event_id: &str, sender: &str) -> Trigger {
    Trigger::Chat { channel: "matrix".into(), room: room.into(), event_id: event_id.into(), sender: sender.into() }
}

fn handoff(call_id: &str) -> Trigger {
    Trigger::Handoff {
        parent_run_id: PARENT.parse().unwrap(),
        decision_id: EventId::new(DECISION),
        index: 1,
        call_id: call_id.into(),
    }
}

#[test]
fn a_trigger_keeps_its_run() {
    let message = chat("!abc:example.org", "$ev1", "@ann:example.org");
    assert_eq!(derive(&message, "mention", "lead"), "55f7a191-c2bb-5b73-9b04-1f6e479614a0");

    let slot = "2026-11-21T02:00:00Z".parse().unwrap();
    let nightly = Trigger::Schedule { schedule: "nightly".into(), version: 3, slot };
    assert_eq!(derive(&nightly, "nightly", "lead"), "496952df-c4e0-5a98-987f-700d8e27a9da");

    let opened = Trigger::PullRequest {
        repository: "acme/app".into(),
        number: 41,
        head_sha: "3b18e512dba79e4c8300dd08aeb37f8e728b8dad".into(),
        action: "opened".into(),
    };
    assert_eq!(derive(&opened, "review", "lead"), "cf98eae2-a9f3-5e35-8c26-4b06e3a9d355");

    assert_eq!(derive(&handoff("toolu_3"), "handoff", "coder"), "95662f92-c6f2-5aec-8dba-d13d220e6f51");

    let odd = chat("!ü\"\\:x", "$ev\n", "@ann:example.org");
    assert_eq!(derive(&odd, "mention", "lead"), "26542bdf-9483-5f53-a420-76e20218d26e");
}

#[test]
fn who_reports_a_trigger_does_not_matter() {
    let by_one = chat("!abc:example.org", "$ev1", "@ann:example.org");
    let by_another = chat("!abc:example.org", "$ev1", "@bot:example.org");
    assert_eq!(derive(&by_one, "mention", "lead"), derive(&by_another, "mention", "lead"));
    assert_eq!(derive(&handoff("toolu_3"), "handoff", "coder"), derive(&handoff("renamed"), "handoff", "coder"));
}

#[test]
fn one_message_that_wakes_two_agents_is_two_runs() {
    let message = chat("!abc:example.org", "$ev1", "@ann:example.org");
    assert_ne!(derive(&message, "mention", "lead"), derive(&message, "mention", "scout"));
    assert_ne!(derive(&message, "mention", "lead"), derive(&message, "room", "lead"));
}

#[test]
fn an_id_derives_from_an_id() {
    let id = EventId::new(DECISION);
    assert_eq!(id.derive("child").as_str(), "1e717b06-1633-5e3c-869e-29f5636fa749");
    assert_ne!(id.derive("child"), id.derive("sibling"));
    assert_eq!(id.nth(2).as_str(), format!("{DECISION}/2"));
}

#[test]
fn a_run_id_has_one_spelling() {
    assert_eq!(PARENT.parse::<RunId>().unwrap().to_string(), PARENT);
    for other in [PARENT.to_uppercase(), PARENT.replace('-', ""), format!("{{{PARENT}}}"), format!("urn:uuid:{PARENT}")]
    {
        assert!(other.parse::<RunId>().is_err(), "{other}");
    }
    assert_eq!(PARENT.parse::<RunId>().unwrap().short(), "0000000b");
}

#[test]
fn names_are_one_lower_case_token() {
    let longest = "a".repeat(63);
    for good in ["lead", "a", "code-reviewer_2", "0", "_x", longest.as_str()] {
        assert_eq!(agent(good).as_str(), good);
    }
    let too_long = "a".repeat(64);
    for bad in ["", "Lead", "a b", "a.b", "a*", ">", "-a", "a-", "é", "a\n", too_long.as_str(), "all"] {
        assert!(AgentName::try_new(bad).is_err(), "{bad:?}");
        assert!(serde_json::from_value::<AgentName>(bad.into()).is_err(), "{bad:?}");
    }
    assert!(Token::try_new("all").is_ok(), "only for agents it means something else");
}

proptest! {
    #[test]
    fn a_natural_key_can_not_be_forged_by_its_parts(a in ".{0,12}", b in ".{0,12}", c in ".{0,12}", d in ".{0,12}") {
        prop_assume!((&a, &b) != (&c, &d));
        let first = derive(&chat(&a, &b, "x"), "mention", "lead");
        let second = derive(&chat(&c, &d, "x"), "mention", "lead");
        prop_assert_ne!(first, second);
    }

    #[test]
    fn no_text_makes_a_name_panic(text in ".{0,80}") {
        let _ = text.parse::<RunId>();
        if let Ok(name) = AgentName::try_new(text.as_str()) {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}

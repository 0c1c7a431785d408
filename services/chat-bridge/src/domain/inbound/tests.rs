//! What each kind of message leads to.

use kit::crew::UserPattern;

use super::*;
use crate::domain::rules::Senders;

fn agents(names: &[&str]) -> BTreeSet<AgentName> {
    names.iter().map(|name| AgentName::try_new(*name).unwrap()).collect()
}

fn rules(listen: Listen) -> Rules {
    let room = RoomRules {
        listen,
        agents: agents(&["lead", "scout"]),
        default_agent: Some(AgentName::try_new("lead").unwrap()),
    };
    Rules {
        senders: Senders::Listed(vec![UserPattern::new("@ada:x")]),
        crew: agents(&["lead", "scout", "coder"]),
        rooms: [("crew".to_owned(), room)].into(),
        account: vec!["@crew:x".to_owned(), "Crew".to_owned()],
    }
}

fn message(body: &str) -> IncomingMessage {
    IncomingMessage {
        channel: "matrix".to_owned(),
        room: "!room:x".to_owned(),
        room_name: Some("crew".to_owned()),
        event_id: "$1".to_owned(),
        sender: "@ada:x".to_owned(),
        thread_root: None,
        mentions_account: false,
        kind: Kind::New,
        content: Content::Text(body.to_owned()),
        at: Timestamp::UNIX_EPOCH,
    }
}

fn woken(decisions: &[Decision]) -> Vec<(String, String)> {
    let wakes = decisions.iter().filter_map(|decision| match decision {
        Decision::Wake(wake) => Some((wake.agent.to_string(), wake.event_id.clone())),
        _ => None,
    });
    wakes.collect()
}

fn pairs(wanted: &[(&str, &str)]) -> Vec<(String, String)> {
    wanted.iter().map(|(agent, id)| ((*agent).to_owned(), (*id).to_owned())).collect()
}

#[test]
fn a_mention_wakes_and_two_wake_two() {
    let rules = rules(Listen::Mentions);
    assert_eq!(woken(&decide(&rules, &message("@lead fix it"))), pairs(&[("lead", "$1")]));
    assert_eq!(woken(&decide(&rules, &message("@lead @scout fix it"))), pairs(&[("lead", "$1"), ("scout", "$1")]));
    assert_eq!(decide(&rules, &message("nice weather")), [Decision::Ignore(Why::NotAddressed)]);
}

#[test]
fn the_account_alone_means_the_default_agent() {
    let rules = rules(Listen::Mentions);
    assert_eq!(woken(&decide(&rules, &message("Crew: hello"))), pairs(&[("lead", "$1")]));
    let pill = IncomingMessage { mentions_account: true, ..message("hello") };
    assert_eq!(woken(&decide(&rules, &pill)), pairs(&[("lead", "$1")]));
    let named = IncomingMessage { mentions_account: true, ..message("Crew scout, hello") };
    assert_eq!(woken(&decide(&rules, &named)), pairs(&[("scout", "$1")]));
}

#[test]
fn a_room_that_listens_to_all_needs_no_name() {
    assert_eq!(woken(&decide(&rules(Listen::All), &message("fix it"))), pairs(&[("lead", "$1")]));
    assert_eq!(woken(&decide(&rules(Listen::All), &message("scout: look"))), pairs(&[("scout", "$1")]));
}

#[test]
fn strangers_unknown_rooms_and_listen_only_rooms_lead_to_nothing() {
    let stranger = IncomingMessage { sender: "@eve:x".to_owned(), ..message("@lead fix it") };
    assert_eq!(decide(&rules(Listen::All), &stranger), [Decision::Ignore(Why::Stranger)]);
    let elsewhere = IncomingMessage { room_name: None, ..message("fix it") };
    assert_eq!(decide(&rules(Listen::All), &elsewhere), [Decision::Ignore(Why::UnknownRoom)]);
    let meant = IncomingMessage { room_name: None, ..message("@lead fix it") };
    assert!(matches!(decide(&rules(Listen::All), &meant).as_slice(), [Decision::Tell(_)]));
    assert_eq!(decide(&rules(Listen::Nothing), &message("@lead fix it")), [Decision::Ignore(Why::ListenOnly)]);
}

#[test]
fn an_agent_that_may_not_be_woken_here_is_refused_aloud() {
    let decisions = decide(&rules(Listen::Mentions), &message("@coder @lead fix it"));
    assert_eq!(woken(&decisions), pairs(&[("lead", "$1")]));
    assert!(
        decisions
            .iter()
            .any(|decision| matches!(decision, Decision::Unroutable { wake, .. } if wake.agent.as_str() == "coder"))
    );
    let Some(Decision::Tell(tell)) = decisions.last() else { panic!("nothing told: {decisions:?}") };
    assert!(tell.text.contains("**coder** may not be woken"), "{}", tell.text);
    assert_eq!(tell.thread.as_deref(), Some("$1"));
}

#[test]
fn an_edit_keeps_the_originals_key_and_thread() {
    let edit = IncomingMessage { kind: Kind::Edit { of: "$0".to_owned() }, ..message("@lead fix it") };
    let decisions = decide(&rules(Listen::Mentions), &edit);
    let [Decision::Wake(wake)] = decisions.as_slice() else { panic!("{decisions:?}") };
    assert_eq!((wake.event_id.as_str(), wake.edit), ("$0", true));
    assert_eq!(wake.reply_to.thread.as_deref(), Some("$0"));
}

#[test]
fn an_answer_goes_to_the_thread_of_the_message() {
    let inside = IncomingMessage { thread_root: Some("$root".to_owned()), ..message("@lead more") };
    let decisions = decide(&rules(Listen::Mentions), &inside);
    let [Decision::Wake(wake)] = decisions.as_slice() else { panic!("{decisions:?}") };
    assert_eq!(wake.reply_to.thread.as_deref(), Some("$root"));
    assert_eq!(wake.event_id, "$1");
}

#[test]
fn a_redaction_calls_off_what_the_message_started() {
    let redaction =
        IncomingMessage { kind: Kind::Redaction { of: "$0".to_owned() }, content: Content::Nothing, ..message("") };
    let wanted = Decision::CallOff { of: "$0".to_owned(), agents: agents(&["lead", "scout"]) };
    assert_eq!(decide(&rules(Listen::Mentions), &redaction), [wanted]);
    let stranger = IncomingMessage { sender: "@eve:x".to_owned(), ..redaction };
    assert_eq!(decide(&rules(Listen::Mentions), &stranger), [Decision::Ignore(Why::Stranger)]);
}

#[test]
fn what_can_not_be_read_is_said_only_when_it_was_meant_for_the_crew() {
    let image = IncomingMessage { content: Content::Other("image"), ..message("") };
    assert_eq!(decide(&rules(Listen::Mentions), &image), [Decision::Ignore(Why::NotAddressed)]);
    assert!(matches!(decide(&rules(Listen::All), &image).as_slice(), [Decision::Tell(_)]));
    let long = message(&format!("@lead {}", "x".repeat(MAX_PROMPT_BYTES)));
    assert!(matches!(decide(&rules(Listen::Mentions), &long).as_slice(), [Decision::Tell(_)]));
}

#[test]
fn a_thread_belongs_to_whom_its_root_named() {
    let rules = rules(Listen::Mentions);
    assert_eq!(thread_agents(&rules, Some("crew"), "scout: look"), agents(&["scout"]));
    assert_eq!(thread_agents(&rules, Some("crew"), "@coder look"), agents(&[]));
}

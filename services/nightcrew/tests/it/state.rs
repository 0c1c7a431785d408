//! `state save`, `state show`, and `say --from`.

use kit::blobs::Blobs;
use schemas::{
    BlobRef, Block, Decision, RunEvent, RunId, SavedState, Trigger, Usage,
    cli::{Spoken, StateSaved},
    event::{ContextLoaded, ModelCalled, ModelReplied, Requested, StopReason},
    state::Turn,
};
use serde_json::{Value, json};

use crate::fixture::{Crew, Story, run};

/// A run in which scout was told something, and answered.
fn told() -> Story {
    let context = ContextLoaded { model: "play".into(), context_window: 9_000, system: "s".into(), tools: vec![] };
    let called = ModelCalled { step: 1, attempt: 1, model: "play".into(), input_estimate: 1, dropped_messages: 0 };
    let replied = ModelReplied {
        step: 1,
        model: "m".into(),
        content: vec![Block::Text { text: "I noted \u{1b}[31mteal".into() }],
        stop: StopReason::EndTurn,
        usage: Usage::default(),
        cost: None,
        estimated: false,
        millis: 1,
    };
    Story::asked(1, "scout", "The colour is teal.")
        .started()
        .then(RunEvent::ContextLoaded(context))
        .then(RunEvent::ModelCalled(called))
        .then(RunEvent::ModelReplied(replied))
        .finished("I noted teal")
}

/// The runs that were asked for, the first one left out.
async fn requests(crew: &Crew) -> Vec<(RunId, Requested)> {
    let page = crew.runner.scan("SWARM", "swarm.run.*.requested.>", 1).await.unwrap();
    let request = |message: &kit::message::Verbatim| {
        let stored = message.stored().unwrap();
        let decision: Decision = stored.decode().unwrap();
        let [RunEvent::Requested(requested)] = decision.events.as_slice() else { panic!("{decision:?}") };
        (stored.run_id().unwrap(), (**requested).clone())
    };
    page.messages.iter().skip(1).map(request).collect()
}

async fn state_of(crew: &Crew, blob: &BlobRef) -> SavedState {
    SavedState::parse(&Blobs::new(&crew.runner).get(blob).await.unwrap()).unwrap()
}

#[tokio::test]
async fn what_an_agent_knows_after_a_run_is_kept_in_a_file_and_shown() {
    let crew = Crew::start().await;
    let last = crew.write(&told()).await;
    let id = run(1).to_string();
    let saved = crew.run(&["state", "save", &id]).await.well();
    let file = format!("scout-{id}.state.json");
    assert_eq!(saved, format!("{file} has what scout knows after run {id}\n"));
    let other: StateSaved = crew.run(&["state", "save", &id, "-o", "mine.json", "--json"]).await.json();
    assert_eq!((other.file.as_str(), other.agent.as_str(), other.sequence), ("mine.json", "scout", last));
    let read = |file: &str| std::fs::read(crew.folder.path().join(file)).unwrap();
    assert_eq!(read("mine.json"), read(&file), "the same run is the same state");
    assert_eq!(read("mine.json").len() as u64, other.bytes);

    let state: SavedState = crew.run(&["state", "show", &id, "--json"]).await.json();
    assert_eq!(state, crew.run(&["state", "show", "mine.json", "--json"]).await.json());
    let [Turn::User { texts }, Turn::Assistant { .. }] = state.turns.as_slice() else { panic!("{state:#?}") };
    assert_eq!(texts[0].preview(), "The colour is teal.");
    let text = crew.run(&["state", "show", "mine.json"]).await.well();
    for wanted in ["scout", "finished, up to message", "2 messages", "none", "I noted \\u{1b}[31mteal"] {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    // A file needs no crew.
    let mut command = crew.folder.command(&["state", "show", "mine.json"]);
    let alone = command.env_remove("NIGHTCREW_NATS_URL").output().unwrap();
    assert_eq!(String::from_utf8(alone.stdout).unwrap(), text);
}

#[tokio::test]
async fn a_new_run_goes_on_from_a_run_or_a_file() {
    let crew = Crew::start().await;
    crew.write(&told()).await;
    let id = run(1).to_string();
    crew.run(&["state", "save", &id, "-o", "mine.json"]).await.well();
    for from in [id.as_str(), "mine.json"] {
        let said = crew.run(&["say", "--from", from, "--no-wait", "--json", "Which", "was", "it?"]).await;
        let Spoken::Woken { agent, run_id } = said.json() else { panic!("{said:?}") };
        assert_eq!((agent.as_str(), run_id.as_uuid().get_version_num()), ("scout", 7));
        let (new, requested) = requests(&crew).await.pop().unwrap();
        assert_eq!((new, requested.root_run_id, requested.parent_run_id), (run_id, run_id, None));
        assert_eq!((requested.prompt.preview(), requested.agent.as_str()), ("Which was it?", "scout"));
        assert!(matches!(&requested.trigger, Trigger::Command { by, .. } if by == "ada"), "{requested:?}");
        assert_eq!(requested.reply_to.as_ref().unwrap().channel, "terminal");
        assert!(requested.deadline > kit::clock::now());
        let state = state_of(&crew, requested.state.as_ref().unwrap()).await;
        assert_eq!((state.run_id, state.turns.len()), (run(1), 2));
    }
    // The agent may be named, and the state of a run that went on from one has both conversations.
    crew.run(&["say", "--from", &id, "--no-wait", "scout", "again"]).await.well();
    let asked = requests(&crew).await;
    assert_eq!(asked.len(), 3);
    let states: Vec<_> = asked.iter().map(|(_, requested)| requested.state.as_ref().unwrap().blob.clone()).collect();
    assert!(states.iter().all(|state| *state == states[0]), "the same state is the same blob: {states:?}");
    let chained: SavedState = crew.run(&["state", "show", &asked[2].0.to_string(), "--json"]).await.json();
    assert_eq!((chained.turns.len(), chained.run_id), (3, asked[2].0));
}

#[tokio::test]
async fn what_nobody_can_go_on_from_is_refused_before_a_run_is_there() {
    let crew = Crew::start().await;
    crew.write(&told()).await;
    let id = run(1).to_string();
    crew.run(&["state", "save", &id, "-o", "good.json"]).await.well();
    let good: Value = serde_json::from_slice(&std::fs::read(crew.folder.path().join("good.json")).unwrap()).unwrap();
    let with = |field: &str, value: Value| {
        let mut state = good.clone();
        state[field] = value;
        state.to_string()
    };
    let text = good.to_string();
    let foreign_worktree = json!([{
        "call_id": "c", "repository": "elsewhere", "branch": "b", "base": "1".repeat(40), "head": "1".repeat(40),
        "snapshot": "2".repeat(40), "bundle": { "blob": "3".repeat(64), "bytes": 1 },
    }]);
    let orphan = json!([{ "role": "tools", "results": [] }]);
    for (name, content, code, why) in [
        ("cut.json", text[..text.len() / 2].to_owned(), 1, "it is damaged, or no saved state"),
        ("future.json", with("version", json!(99)), 1, "it has version 99, and 1 is the newest"),
        ("turns.json", with("turns", orphan), 1, "its conversation is damaged at turn 1"),
        ("project.json", with("project", json!("other")), 1, "it is of project other, and this is test"),
        ("agent.json", with("agent", json!("coder")), 2, "there is no agent coder in team.yaml"),
        ("run.json", with("run_id", json!(run(7).to_string())), 1, "which is not in this crew's log"),
        ("repository.json", with("worktree", foreign_worktree), 1, "repository elsewhere, which is not in the scope"),
    ] {
        std::fs::write(crew.folder.path().join(name), content).unwrap();
        let refused = crew.run(&["say", "--from", name, "--no-wait", "go on"]).await;
        assert_eq!((refused.code, refused.out.as_str()), (code, ""), "{name}: {refused:?}");
        assert!(refused.err.contains(why), "{name}: {refused:?}");
    }
    let other = crew.run(&["say", "--from", &id, "--no-wait", "lead", "go on"]).await;
    assert_eq!(other.code, 1);
    assert!(other.err.contains("it is the state of scout, and lead can not go on from it"), "{other:?}");
    let unknown = crew.run(&["say", "--from", "nothing.json", "--no-wait", "go on"]).await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("there is no file nothing.json, and"), "{unknown:?}");
    assert_eq!(crew.run(&["state", "save", &run(9).to_string()]).await.code, 1);
    let nowhere = crew.run(&["state", "save", &id, "-o", "no/such/folder/file"]).await;
    assert!(nowhere.err.contains("can not be written"), "{nowhere:?}");
    assert_eq!(requests(&crew).await.len(), 0, "nothing was started");
}

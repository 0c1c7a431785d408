//! The whole service: rooms, log and back.

use std::collections::BTreeSet;

use chat_bridge::adapters::{
    matrix::MARKER,
    terminal::{Say, Session},
};
use futures::{FutureExt as _, StreamExt as _};
use kit::{identity::Service, streams::StreamOptions};
use matrix_sdk::{room::power_levels::RoomPowerLevelChanges, ruma::RoomId};
use schemas::{RunId, Subject, Trigger, ids::Token, signal::Delivered};

use crate::{
    person::{Line, NewRoom, Person},
    proxy::{Proxy, plain},
    synapse::RateLimits,
    world::{Log, Room, WITHIN, World, until},
};

/// A world with one person, a room that needs mentions, and an audit room.
pub(crate) async fn small_world() -> (World, Person, String, String, Log) {
    furnish(World::new(RateLimits::Off).await).await
}

/// A log that is soon full.
fn small_log() -> StreamOptions {
    StreamOptions { swarm_max_bytes: 2 << 20, ..StreamOptions::single_node() }
}

async fn furnish(mut world: World) -> (World, Person, String, String, Log) {
    let ada = world.person("ada").await;
    let crew = world.crew_id();
    let invite = [crew.as_str()];
    let room = ada.create_room(NewRoom { name: "work", invite: &invite, ..NewRoom::default() }).await.unwrap();
    let audit = ada.create_room(NewRoom { name: "audit", invite: &invite, ..NewRoom::default() }).await.unwrap();
    let rooms = [
        Room { name: "work", id: room.clone(), mode: "mention" },
        Room { name: "audit", id: audit.clone(), mode: "listen" },
    ];
    world.write_project(&[ada.id()], &rooms);
    world.start_runner().await;
    world.start_bridge().await;
    ada.wait_for_member(&room, &crew, WITHIN).await.unwrap();
    ada.wait_for_member(&audit, &crew, WITHIN).await.unwrap();
    let log = world.log().await;
    (world, ada, room, audit, log)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_becomes_a_run_and_its_answer_stands_in_the_thread() {
    let (world, ada, room, audit, log) = small_world().await;
    ada.say(&room, "nice weather").await.unwrap();
    let question = ada.say(&room, "@lead how are you?").await.unwrap();
    let reply = ada.wait_for_reply(&room, &question, WITHIN).await.unwrap();
    assert!(reply.text.starts_with("answer: @lead how are you?\n\n---\n\n*lead · [run "), "{}", reply.text);
    assert!(
        reply.text.contains("](https://console.test/runs/") && reply.text.contains(" · 1.5 s · "),
        "{}",
        reply.text
    );
    assert!(reply.text.ends_with("rehearsal: no model was asked, nothing was paid*"), "{}", reply.text);

    let runs = log.runs().await;
    assert_eq!(runs.len(), 1);
    let (run, requested) = runs.first_key_value().unwrap();
    assert_eq!(reply.content[MARKER]["run_id"], run.to_string());
    assert!(
        matches!(&requested.trigger, Trigger::Chat { event_id, sender, .. } if *event_id == question && sender == ada.id())
    );
    let delivered =
        until("delivered is in the log", || async { log.signals("delivered").await.into_iter().next() }).await;
    assert_eq!(delivered.run_id(), Some(*run));
    let schemas::Signal::Delivered(Delivered { external_id, .. }) = delivered.decode().unwrap() else { panic!() };
    assert_eq!(external_id, reply.event_id);

    let line = ada.wait_for(&audit, WITHIN, |line| line.kind == "m.notice").await.unwrap();
    assert!(line.text.starts_with("✓ **lead** finished") && line.text.contains(&run.to_string()), "{}", line.text);
    assert_eq!(line.thread, None);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_names_are_two_runs_and_one_that_may_not_is_parked_and_told() {
    let (world, ada, room, _, log) = small_world().await;
    let both = ada.say(&room, "@lead @scout compare").await.unwrap();
    until("both answered", || async { (ada.thread(&room, &both).await.unwrap().len() == 2).then_some(()) }).await;
    let wrong = ada.say(&room, "@coder fix it").await.unwrap();
    let told = ada.wait_for_reply(&room, &wrong, WITHIN).await.unwrap();
    assert_eq!(told.kind, "m.notice");
    assert!(told.text.contains("**coder** may not be woken in this room"), "{}", told.text);
    let agents: Vec<String> = log.runs().await.values().map(|run| run.agent.to_string()).collect();
    assert_eq!(agents.len(), 2);
    assert!(agents.contains(&"lead".to_owned()) && agents.contains(&"scout".to_owned()));
    let dead = log.all("DEAD", schemas::subject::filter::DEAD).await;
    let letter: schemas::dead::DeadLetter = dead[0].decode().unwrap();
    assert_eq!((dead.len(), letter.code.as_str()), (1, "agent_not_in_room"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_for_two_that_is_read_again_starts_and_answers_nothing() {
    let (mut world, ada, room, _, log) = small_world().await;
    let position = world.state().join("matrix/position.json");
    let before = std::fs::read(&position).unwrap();
    let both = ada.say(&room, "@lead @scout compare").await.unwrap();
    until("both answered", || async { (ada.thread(&room, &both).await.unwrap().len() == 2).then_some(()) }).await;
    world.wait_until_nothing_is_left_to_send(&log).await;
    let runs: BTreeSet<RunId> = log.runs().await.into_keys().collect();
    assert_eq!(runs.len(), 2);

    // As after a crash before the position was kept: the homeserver gives the same event once more.
    world.stop_bridge().await;
    assert_ne!(std::fs::read(&position).unwrap(), before);
    std::fs::write(&position, before).unwrap();
    world.start_bridge().await;
    let next = ada.say(&room, "@lead and now?").await.unwrap();
    ada.wait_for_reply(&room, &next, WITHIN).await.unwrap();
    // Batches follow one another: the next message is answered, so the repeated one has had its consequences.
    world.wait_until_nothing_is_left_to_send(&log).await;
    assert_eq!(ada.thread(&room, &both).await.unwrap().len(), 2);
    let after = log.runs().await;
    assert_eq!((after.len(), log.said().await.len()), (3, 3));
    assert!(runs.iter().all(|run| after.contains_key(run)));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_and_redactions_reach_the_run_they_are_about() {
    let (world, ada, room, _, log) = small_world().await;
    // No mention, then one: the edit wakes.
    let late = ada.say(&room, "how are you?").await.unwrap();
    ada.edit(&room, &late, "@lead how are you?").await.unwrap();
    let reply = ada.wait_for_reply(&room, &late, WITHIN).await.unwrap();
    assert!(reply.text.starts_with("answer: @lead how are you?"), "{}", reply.text);

    // A run under way is told of the edit, and called off when the message is taken back.
    let held = ada.say(&room, "hold on, @lead").await.unwrap();
    until("the run is requested", || async { (log.runs().await.len() == 2).then_some(()) }).await;
    ada.edit(&room, &held, "hold on longer, @lead").await.unwrap();
    let told = until("the edit is told", || async { log.signals("message").await.into_iter().next() }).await;
    let schemas::Signal::Message(message) = told.decode().unwrap() else { panic!() };
    assert!(message.text.preview().contains("hold on longer, @lead"));
    ada.redact(&room, &held).await.unwrap();
    let cancelled = until("the run is called off", || async { log.signals("cancel").await.into_iter().next() }).await;
    assert_eq!(cancelled.run_id(), told.run_id());
    // The run that had ended was told nothing.
    assert_eq!(log.runs().await.len(), 2);
    assert_eq!((log.signals("message").await.len(), log.signals("cancel").await.len()), (1, 1));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_ends_without_is_said_where_it_was_written() {
    let (world, ada, room, _, log) = small_world().await;
    let late = |line: &Line| line.kind == "m.notice" && line.text.contains("had ended its work before");
    // The run has ended when the message is edited.
    let answered = ada.say(&room, "@lead how are you?").await.unwrap();
    ada.wait_for_reply(&room, &answered, WITHIN).await.unwrap();
    ada.edit(&room, &answered, "@lead how is everybody?").await.unwrap();
    let told = ada.wait_for(&room, WITHIN, late).await.unwrap();
    assert_eq!(told.thread.as_ref(), Some(&answered));
    assert!(log.signals("message").await.is_empty());

    // The run ends with a message on its way.
    let held = ada.say(&room, "hold on, @lead").await.unwrap();
    let runs = until("the run is requested", || async { Some(log.runs().await).filter(|runs| runs.len() == 2) }).await;
    ada.edit(&room, &held, "hold on longer, @lead").await.unwrap();
    until("the edit is told", || async { log.signals("message").await.pop() }).await;
    let (run, _) = runs.iter().find(|(_, requested)| requested.prompt.preview().starts_with("hold")).unwrap();
    world.finish(*run, &log).await;
    until("that is said", || async { ada.thread(&room, &held).await.unwrap().into_iter().find(late) }).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follow_up_goes_to_the_threads_own_agent_with_what_was_said() {
    let (world, ada, room, _, log) = small_world().await;
    let root = ada.say(&room, "@scout look at the fountain").await.unwrap();
    ada.wait_for_reply(&room, &root, WITHIN).await.unwrap();
    let content = serde_json::json!({
        "msgtype": "m.text", "body": "and the pipe?", "m.mentions": { "user_ids": [world.crew_id()] },
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    ada.send(&room, content).await.unwrap();
    until("answered twice", || async { (ada.thread(&room, &root).await.unwrap().len() == 3).then_some(()) }).await;
    let runs = log.runs().await;
    let follow_up = runs.values().find(|run| run.prompt.preview() == "and the pipe?").unwrap();
    assert_eq!(follow_up.agent.as_str(), "scout");
    let context = follow_up.context.as_ref().unwrap().preview();
    assert!(context.contains("look at the fountain") && context.contains("answer: "), "{context}");
    assert!(!context.contains("and the pipe?"), "{context}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_that_can_not_be_read_holds_nothing_up() {
    let mut world = World::new(RateLimits::Off).await;
    let proxy = Proxy::start(&world.synapse.url()).await;
    world.homeserver = proxy.url();
    let (world, ada, room, _, log) = furnish(world).await;
    let root = ada.say(&room, "@lead look at the fountain").await.unwrap();
    ada.wait_for_reply(&room, &root, WITHIN).await.unwrap();
    proxy.refuse(&["/relations/", plain(&root)], 400, "M_INVALID_PARAM");
    ada.say_in_thread(&room, &root, "@lead and the pipe?").await.unwrap();
    let next = ada.say(&room, "@lead and now?").await.unwrap();
    ada.wait_for_reply(&room, &next, WITHIN).await.unwrap();
    let is_told = |line: &Line| line.text.contains("I can not read what was said in this thread before");
    let told = ada.wait_for(&room, WITHIN, is_told).await.unwrap();
    assert_eq!(told.thread.as_ref(), Some(&root));
    let runs = log.runs().await;
    let follow_up = runs.values().find(|run| run.prompt.preview() == "@lead and the pipe?").unwrap();
    assert!(follow_up.context.as_ref().unwrap().preview().contains("could not be read"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_is_waited_for_while_its_homeserver_is_ill() {
    let mut world = World::new(RateLimits::Off).await;
    let proxy = Proxy::start(&world.synapse.url()).await;
    world.homeserver = proxy.url();
    let (world, ada, room, _, log) = furnish(world).await;
    let root = ada.say(&room, "@scout look at the fountain").await.unwrap();
    ada.wait_for_reply(&room, &root, WITHIN).await.unwrap();
    // matrix-sdk does not try this status again by itself.
    proxy.refuse(&["/relations/", plain(&root)], 520, "M_UNKNOWN");
    let content = serde_json::json!({
        "msgtype": "m.text", "body": "and the pipe?", "m.mentions": { "user_ids": [world.crew_id()] },
        "m.relates_to": { "rel_type": "m.thread", "event_id": root },
    });
    ada.send(&room, content).await.unwrap();
    let health = world.bridge_health();
    let waits = |problem: &String| problem.contains("a thread can not be read");
    until("it waits", || async { health.report().problems().iter().any(waits).then_some(()) }).await;
    proxy.mend();
    until("answered twice", || async { (ada.thread(&room, &root).await.unwrap().len() == 3).then_some(()) }).await;
    let runs = log.runs().await;
    let follow_up = runs.values().find(|run| run.prompt.preview() == "and the pipe?").unwrap();
    assert_eq!(follow_up.agent.as_str(), "scout");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_terminal_is_a_channel_like_any_other() {
    let (world, _ada, _, _, log) = small_world().await;
    let bus = world.bus.bus(Service::Nightcrew).await;
    let mut session = Session::open(&bus, kit::clock::uuid4()).await.unwrap();
    let event = kit::clock::uuid7();
    let runs = until("the bridge listens", || async {
        let mut session = Session::open(&bus, kit::clock::uuid4()).await.unwrap();
        session.say(kit::clock::uuid7(), "local", "hold: is anybody there?", kit::clock::now()).await.ok()
    })
    .await;
    assert_eq!(runs.len(), 1);
    let started = session.say(event, "local", "@scout hello", kit::clock::now()).await.unwrap();
    let said = tokio::time::timeout(WITHIN, session.next()).await.unwrap().unwrap();
    assert!(said.text.starts_with("answer: @scout hello"), "{}", said.text);
    assert_eq!(said.run_id, Some(started[0].run_id));
    // The same message again is the same run.
    let again = session.say(event, "local", "@scout hello", kit::clock::now()).await.unwrap();
    assert_eq!(again[0].run_id, started[0].run_id);
    assert_eq!(log.runs().await.len(), 2);
    until("delivered is in the log", || async { (!log.signals("delivered").await.is_empty()).then_some(()) }).await;
    // One that wakes two is two runs and two answers; again it is the same two.
    let mut session = Session::open(&bus, kit::clock::uuid4()).await.unwrap();
    let event = kit::clock::uuid7();
    let started = session.say(event, "local", "@lead @scout compare", kit::clock::now()).await.unwrap();
    assert_eq!(started.len(), 2);
    let mut answered = BTreeSet::new();
    for _ in 0..2 {
        let said = tokio::time::timeout(WITHIN, session.next()).await.unwrap().unwrap();
        answered.insert(said.run_id.unwrap());
    }
    assert_eq!(answered, started.iter().map(|run| run.run_id).collect());
    let again = session.say(event, "local", "@lead @scout compare", kit::clock::now()).await.unwrap();
    assert_eq!(again, started);
    assert_eq!(log.runs().await.len(), 4);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_is_split() {
    let (world, ada, room, _, _log) = small_world().await;
    let text = format!("@lead {}", "one two three four five six seven. ".repeat(400));
    let question = ada.say(&room, &text).await.unwrap();
    until("two parts", || async { (ada.thread(&room, &question).await.unwrap().len() == 2).then_some(()) }).await;
    let parts = ada.thread(&room, &question).await.unwrap();
    assert!(!parts[0].text.contains("---") && parts[1].text.contains("*lead · "));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_while_the_bus_is_away_is_answered_when_it_is_back() {
    let (mut world, ada, room, _, log) = small_world().await;
    world.bus.server().kill().await.unwrap();
    let question = ada.say(&room, "@lead are you there?").await.unwrap();
    let health = world.bridge_health();
    until("health is red", || async { health.report().problems().iter().any(|p| p.contains("log")).then_some(()) })
        .await;
    world.bus.server().restart().await.unwrap();
    let reply = ada.wait_for_reply(&room, &question, WITHIN).await.unwrap();
    assert!(reply.text.starts_with("answer: "), "{}", reply.text);
    until("health is green", || async { health.is_ready().then_some(()) }).await;
    assert_eq!(log.runs().await.len(), 1);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_nearly_full_refuses_in_the_room() {
    let (world, ada, room, _, log) = furnish(World::with_log(RateLimits::Off, small_log()).await).await;
    world.fill_log(85).await;
    let question = ada.say(&room, "@lead how are you?").await.unwrap();
    let reply = ada.wait_for_reply(&room, &question, WITHIN).await.unwrap();
    assert_eq!(reply.kind, "m.notice");
    assert!(reply.text.contains("new runs are refused from 80 % on"), "{}", reply.text);
    assert!(log.runs().await.is_empty());
    world.end().await;
}

/// Sets the power that it takes to speak in a room; the crew has none.
pub(crate) async fn let_speak(owner: &Person, room: &str, level: i64) {
    let room = owner.client().get_room(&RoomId::parse(room).unwrap()).unwrap();
    let changes = RoomPowerLevelChanges { events_default: Some(level), ..RoomPowerLevelChanges::default() };
    room.apply_power_level_changes(changes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_its_room_refuses_is_parked_and_its_run_knows() {
    let (world, ada, room, _, log) = small_world().await;
    let_speak(&ada, &room, 50).await;
    let run = world.request("matrix", &room).await;
    let told = until("the run is told", || async { log.signals("undelivered").await.pop() }).await;
    assert_eq!(told.run_id(), Some(run));
    let dead = || log.all("DEAD", schemas::subject::filter::DEAD);
    let parked = until("it is parked", || async { dead().await.pop() }).await;
    let letter: schemas::dead::DeadLetter = parked.decode().unwrap();
    let schemas::Signal::Undelivered(refused) = told.decode().unwrap() else { panic!() };
    assert_eq!((letter.code.as_str(), &letter.reason, &refused.room), ("room_refused", &refused.reason, &room));

    let_speak(&ada, &room, 0).await;
    let operator = world.bus.bus(Service::Nightcrew).await;
    kit::dead::replay(&operator, parked.sequence).await.unwrap();
    until("it is delivered", || async { log.signals("delivered").await.pop() }).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_can_not_be_told_is_parked_and_said() {
    let (world, ada, room, _, log) = small_world().await;
    let held = ada.say(&room, "hold on, @lead").await.unwrap();
    let run = until("the run is requested", || async { log.runs().await.into_keys().next() }).await;
    // Its journal ends with something that nobody can read.
    let runner = world.bus.bus(Service::AgentRunner).await;
    runner.client().publish(Subject::Journal(run).to_string(), "garbled".into()).await.unwrap();
    runner.client().flush().await.unwrap();
    ada.redact(&room, &held).await.unwrap();
    let told = ada.wait_for_reply(&room, &held, WITHIN).await.unwrap();
    assert!(told.text.contains("I can not tell run") && told.text.contains("nightcrew dead list"), "{}", told.text);
    let dead = log.all("DEAD", schemas::subject::filter::DEAD).await;
    let letters = dead.iter().map(|stored| stored.decode::<schemas::dead::DeadLetter>().unwrap());
    let subjects: Vec<String> = letters.map(|letter| letter.subject).collect();
    assert!(subjects.contains(&format!("swarm.signal.{run}.cancel")), "{subjects:?}");
    assert!(log.signals("cancel").await.is_empty());
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_request_is_parked_when_its_room_can_not_be_told() {
    let (world, ada, room, _, log) = furnish(World::with_log(RateLimits::Off, small_log()).await).await;
    let crews_say = |level| let_speak(&ada, &room, level);
    crews_say(50).await;
    world.fill_log(85).await;
    let unheard = ada.say(&room, "@lead how are you?").await.unwrap();
    let dead = || log.all("DEAD", schemas::subject::filter::DEAD);
    let parked = until("it is parked", || async { dead().await.pop() }).await;
    let letter: schemas::dead::DeadLetter = parked.decode().unwrap();
    assert_eq!(letter.code, "refused_untold");
    assert!(letter.reason.contains("new runs are refused from 80 % on"), "{}", letter.reason);
    assert!(letter.reason.contains("the room could not be told"), "{}", letter.reason);

    // What comes after it is not held up, and is not parked where the room can be told.
    crews_say(0).await;
    let heard = ada.say(&room, "@lead and now?").await.unwrap();
    assert_eq!(ada.wait_for_reply(&room, &heard, WITHIN).await.unwrap().kind, "m.notice");
    assert_eq!(dead().await.len(), 1);
    assert!(log.runs().await.is_empty() && ada.thread(&room, &unheard).await.unwrap().is_empty());

    // An operator finds it, and once there is room its replay is answered where it was asked.
    let operator = world.bus.bus(Service::Nightcrew).await;
    let early = kit::dead::replay(&operator, parked.sequence).await;
    assert!(matches!(early, Err(kit::dead::DeadError::NoRoom(_))) && dead().await.len() == 1, "{early:?}");
    world.empty_log().await;
    let replayed = kit::dead::replay(&operator, parked.sequence).await.unwrap();
    assert!(matches!(replayed, kit::dead::Replayed::Published(_)), "{replayed:?}");
    let reply = ada.wait_for_reply(&room, &unheard, WITHIN).await.unwrap();
    assert!(reply.text.starts_with("answer: @lead how are you?"), "{}", reply.text);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bridge_that_ends_does_not_wait_for_a_room_that_does_not_answer() {
    let (mut world, _ada, _, _, log) = furnish(World::with_log(RateLimits::Off, small_log()).await).await;
    world.fill_log(85).await;
    let bus = world.bus.bus(Service::Nightcrew).await;
    until("the bridge listens", || async {
        let mut session = Session::open(&bus, kit::clock::uuid4()).await.unwrap();
        session.say(kit::clock::uuid7(), "local", "hello", kit::clock::now()).await.ok()
    })
    .await;
    let ask = |service: &str, what: &str| {
        Subject::Ask(Token::try_new(service).unwrap(), Token::try_new(what).unwrap()).to_string()
    };
    let mut silent = bus.client().subscribe(ask("nightcrew", "silent")).await.unwrap();
    let say = Say {
        session: "silent".to_owned(),
        event_id: kit::clock::uuid7().to_string(),
        sender: "local".to_owned(),
        thread: None,
        earlier: Vec::new(),
        text: "hello".to_owned(),
        at: kit::clock::now(),
    };
    let say = serde_json::to_vec(&say).unwrap().into();
    bus.client().publish(ask("chat-bridge", "say"), say).await.unwrap();
    let tried = tokio::time::timeout(WITHIN, silent.next()).await.unwrap().unwrap();
    assert!(String::from_utf8_lossy(&tried.payload).contains("new runs are refused"));
    world.stop_bridge().await;
    // It did not try again before it ended, and what is not said is not given up: it was not heard yet.
    assert!(silent.next().now_or_never().is_none());
    assert!(log.all("DEAD", schemas::subject::filter::DEAD).await.is_empty() && log.runs().await.is_empty());
    world.end().await;
}

//! What runs say and nobody can bring into a room.

use kit::{identity::Service, journal::Journal, message::Outgoing};
use schemas::{
    AgentName, BlobRef, Decision, Envelope, EventId, RunEvent, RunId, Signal, Subject, Text,
    dead::DeadLetter,
    envelope::DECISION_TYPE,
    event::{Finished, Footer, MessageSent, Totals},
    ids::Token,
    signal::Undelivered,
    subject::filter,
    trigger::ReplyTo,
};

use crate::{
    bridge::small_world,
    person::Line,
    world::{Log, World, until},
};

/// `lead` says something in a room.
fn said(run: RunId, room: &str, thread: Option<String>, text: Text) -> RunEvent {
    let agent = AgentName::try_new("lead").unwrap();
    RunEvent::MessageSent(MessageSent {
        to: ReplyTo { channel: "matrix".to_owned(), room: room.to_owned(), thread },
        text,
        footer: Footer { agent, run_id: run, totals: Totals::default(), rehearsal: true },
    })
}

/// What a run decides and says.
fn saying(run: RunId, events: Vec<RunEvent>) -> Outgoing {
    let id = EventId::new(kit::clock::uuid7().to_string());
    let envelope = Envelope::new(id, DECISION_TYPE, "test", kit::clock::now());
    let subject = Subject::Say(run, Token::try_new("matrix").unwrap());
    Outgoing::decision(subject, envelope, &Decision { events }).unwrap()
}

async fn append(world: &World, run: RunId, after: u64, outgoing: Outgoing) {
    Journal::new(&world.bus.bus(Service::AgentRunner).await).append(run, after, outgoing).await.unwrap();
}

/// What the run hears, once the message is parked for the same reason.
async fn undelivered(log: &Log, run: RunId) -> Undelivered {
    let told = until("the run is told", || async { log.signals("undelivered").await.pop() }).await;
    assert_eq!(told.run_id(), Some(run));
    let Signal::Undelivered(undelivered) = told.decode().unwrap() else { panic!() };
    let parked = until("it is parked", || async { log.all("DEAD", filter::DEAD).await.pop() }).await;
    let letter: DeadLetter = parked.decode().unwrap();
    assert_eq!(letter.reason, undelivered.reason);
    undelivered
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_can_not_be_read_is_parked_and_its_run_knows() {
    let (world, _ada, room, _, log) = small_world().await;
    let run = RunId::from_uuid(kit::clock::uuid7());
    let garbled = Outgoing { body: "garbled".into(), ..saying(run, vec![said(run, &room, None, "hello".into())]) };
    let id = garbled.envelope.id.clone();
    append(&world, run, 0, garbled).await;
    let told = undelivered(&log, run).await;
    assert_eq!((told.decision_id, told.channel.as_str()), (id, "matrix"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_ends_without_is_said_when_its_answer_is_lost_too() {
    let (world, ada, room, _, log) = small_world().await;
    let held = ada.say(&room, "hold on, @lead").await.unwrap();
    let run = until("the run is requested", || async { log.runs().await.into_keys().next() }).await;
    ada.edit(&room, &held, "hold on longer, @lead").await.unwrap();
    until("the edit is told", || async { log.signals("message").await.pop() }).await;

    let lost = Text::Blob(BlobRef { blob: "0".repeat(64), bytes: 1, preview: None });
    let answer = said(run, &room, Some(held.clone()), lost);
    let end = RunEvent::Finished(Finished { answer: "lost".into(), totals: Totals::default() });
    let request = log.all("SWARM", &filter::run(run)).await.remove(0);
    append(&world, run, request.sequence, saying(run, vec![answer, end])).await;
    let late = |line: &Line| line.kind == "m.notice" && line.text.contains("had ended its work before");
    until("that is said", || async { ada.thread(&room, &held).await.unwrap().into_iter().find(late) }).await;
    undelivered(&log, run).await;
    world.end().await;
}

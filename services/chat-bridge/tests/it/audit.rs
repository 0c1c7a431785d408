//! The audit room after an absence.

use std::collections::BTreeMap;

use kit::{consumer, identity::Service, journal::STREAM, message::Stored};
use schemas::{BlobRef, RunEvent, RunId, Subject, dead::DeadLetter, event::Archived, subject::filter};

use crate::{
    bridge::{let_speak, small_world},
    person::{Line, Person},
    world::{Log, WITHIN, World, until},
};

#[tokio::test(flavor = "multi_thread")]
async fn ends_that_were_archived_unseen_are_told_in_one_line() {
    let (mut world, ada, room, audit, log) = small_world().await;
    let question = ada.say(&room, "@lead how are you?").await.unwrap();
    ada.wait_for_reply(&room, &question, WITHIN).await.unwrap();
    ada.wait_for(&audit, WITHIN, |line| line.text.starts_with("✓")).await.unwrap();
    let seen = *log.runs().await.first_key_value().unwrap().0;
    wait_until_read(&world).await;
    world.stop_bridge().await;

    // They answer where nobody is.
    let request = || world.request("terminal", "gone");
    let (gone, gone_too, kept) = (request().await, request().await, request().await);
    for run in [seen, gone, gone_too] {
        archive(&world, &log, run).await;
    }
    until("the last one ended", || async { end_of(&log, kept).await }).await;
    world.start_bridge().await;
    ada.wait_for(&audit, WITHIN, |line| line.text.contains(&kept.to_string())).await.unwrap();
    let told = ada.wait_for(&audit, WITHIN, |line| line.text.contains("could not tell")).await.unwrap();
    assert!(told.text.contains(" 2 runs ended") && told.text.contains("nightcrew runs"), "{}", told.text);
    wait_until_read(&world).await;
    let before = lines(&ada, &audit).await;
    assert_eq!(before.len(), 3, "the one that was seen is not told again: {before:?}");

    // Nor is one that was told by this process, and neither by the next one.
    archive(&world, &log, kept).await;
    wait_until_read(&world).await;
    world.stop_bridge().await;
    world.start_bridge().await;
    let next = ada.say(&room, "@lead and now?").await.unwrap();
    ada.wait_for_reply(&room, &next, WITHIN).await.unwrap();
    until("the next line is written", || async { (lines(&ada, &audit).await.len() > before.len()).then_some(()) })
        .await;
    wait_until_read(&world).await;
    let after = lines(&ada, &audit).await;
    assert_eq!(after.len(), before.len() + 1, "{after:?}");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_that_was_parked_is_written_when_it_is_replayed_to_the_next_bridge() {
    let (mut world, ada, _, audit, log) = small_world().await;
    let_speak(&ada, &audit, 50).await;
    let run = world.request("terminal", "gone").await;
    let dead = || async { log.all("DEAD", filter::DEAD).await };
    let of_audit = |stored: &Stored| {
        let letter: DeadLetter = stored.decode().unwrap();
        (letter.consumer.as_deref() == Some(consumer::CHAT_AUDIT.name)).then_some(stored.sequence)
    };
    let parked = until("the line is parked", || async { dead().await.iter().find_map(of_audit) }).await;
    wait_until_read(&world).await;
    world.stop_bridge().await;
    let_speak(&ada, &audit, 0).await;
    world.start_bridge().await;
    // By what ends after it the bridge knows how far it was done.
    let next = world.request("terminal", "gone too").await;
    ada.wait_for(&audit, WITHIN, |line| line.text.contains(&next.to_string())).await.unwrap();

    let operator = world.bus.bus(Service::Nightcrew).await;
    kit::dead::replay(&operator, parked).await.unwrap();
    until("the line is there", || async { (lines(&ada, &audit).await.len() == 2).then_some(()) }).await;
    let all = lines(&ada, &audit).await;
    assert!(all.iter().any(|line| line.text.contains(&run.to_string())), "{all:?}");
    world.end().await;
}

/// What the crew said in the room.
async fn lines(reader: &Person, room: &str) -> Vec<Line> {
    let lines = reader.read(room).await.unwrap_or_default();
    lines.into_iter().filter(|line| line.kind == "m.notice").collect()
}

/// Waits until the bridge has handled all that runs decided.
async fn wait_until_read(world: &World) {
    let bus = world.bus.bus(Service::ChatBridge).await;
    let stream = bus.jetstream().get_stream_no_info(STREAM).await.unwrap();
    until("the bridge has read all ends", || async {
        let consumer = stream.consumer_info(consumer::CHAT_AUDIT.name).await.ok()?;
        (consumer.num_pending == 0 && consumer.num_ack_pending == 0).then_some(())
    })
    .await;
}

/// Does to an ended run what its archiving does to the log.
async fn archive(world: &World, log: &Log, run: RunId) {
    let end = until("the run ended", || async { end_of(log, run).await }).await;
    let archived = Archived {
        archive: BlobRef { blob: "0".repeat(64), bytes: 1, preview: None },
        digest: "0".repeat(64),
        messages: BTreeMap::new(),
        first_sequence: 1,
        last_sequence: end,
        blobs: None,
    };
    let event = RunEvent::Archived(archived);
    let last = world.append(Service::RunCorrelator, Subject::Journal(run), run, end, event).await;
    let bus = world.bus.bus(Service::RunCorrelator).await;
    let stream = bus.jetstream().get_stream_no_info(STREAM).await.unwrap();
    stream.purge().filter(filter::run(run)).sequence(last).await.unwrap();
}

/// Where a run ended.
async fn end_of(log: &Log, run: RunId) -> Option<u64> {
    let messages = log.all(STREAM, &filter::run(run)).await;
    messages.iter().find(|message| message.is_end()).map(|message| message.sequence)
}

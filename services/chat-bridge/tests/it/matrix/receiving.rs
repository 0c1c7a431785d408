//! What the channel receives, and from where on.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_committed_comes_again_and_what_was_does_not() {
    for encrypted in [false, true] {
        let world = World::new(RateLimits::Off, encrypted).await;
        let mut bridge = world.open();
        world.ada.say(&world.room, "before the crew has joined").await.unwrap();
        bridge.read_until(|all| encrypted || !all.is_empty()).await;
        bridge.commit().await;
        world.ada.wait_for_member(&world.room, &world.crew_id(), WITHIN).await.unwrap();

        world.ada.say(&world.room, "one").await.unwrap();
        let first = bridge.read_until(|all| texts(all).contains(&"one".to_owned())).await;
        // A crash: matrix-sdk has stored the response, the bridge has not committed it.
        drop(bridge);
        let mut bridge = world.open();
        let again = bridge.read_until(|all| texts(all).contains(&"one".to_owned())).await;
        let one = |all: &[IncomingMessage]| {
            let is_one = |message: &&IncomingMessage| message.content == Content::Text("one".to_owned());
            all.iter().find(is_one).map(|message| message.event_id.clone())
        };
        assert_eq!(one(&first), one(&again), "encrypted: {encrypted}");
        bridge.commit().await;
        drop(bridge);

        let mut bridge = world.open();
        world.ada.say(&world.room, "two").await.unwrap();
        assert_eq!(bridge.read_texts("two").await, ["two"], "encrypted: {encrypted}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_is_read_in_full_and_in_order() {
    let mut world = World::new(RateLimits::Off, false).await;
    world.limit = 5;
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    world.ada.wait_for_member(&world.room, &world.crew_id(), WITHIN).await.unwrap();
    world.ada.say(&world.room, "start").await.unwrap();
    bridge.read_texts("start").await;
    bridge.commit().await;
    drop(bridge);

    let wanted: Vec<String> = (0..40).map(|n| format!("message {n}")).collect();
    for text in &wanted {
        world.ada.say(&world.room, text).await.unwrap();
    }
    let mut bridge = world.open();
    assert_eq!(bridge.read_texts("message 39").await, wanted);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_to_be_read_before_the_first_time_is_told() {
    const WRITTEN: usize = 1_100;
    let mut world = World::new(RateLimits::Off, false).await;
    world.limit = 5;
    let texts: Vec<String> = (0..WRITTEN).map(|n| format!("message {n}")).collect();
    for some in texts.chunks(50) {
        futures::future::try_join_all(some.iter().map(|text| world.ada.say(&world.room, text))).await.unwrap();
    }
    let mut bridge = world.open();
    let told = async {
        loop {
            let batch = bridge.receiver.next().await.unwrap();
            bridge.receiver.commit(&[]).await.unwrap();
            if !batch.messages.is_empty() {
                return batch;
            }
        }
    };
    let batch = tokio::time::timeout(WITHIN, told).await.unwrap();
    assert!(batch.messages.len() < WRITTEN);
    assert!(batch.notices[0].text.contains("more than 1000 things were written here"), "{:?}", batch.notices);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_people_can_invite_and_be_heard_after_it() {
    let world = World::new(RateLimits::Off, false).await;
    let mut bridge = world.open();
    let eve = person(&world.synapse, "eve").await;
    let crew = world.crew_id();
    let trap = eve.create_room(NewRoom { name: "trap", invite: &[&crew], ..NewRoom::default() }).await.unwrap();
    eve.say(&trap, "@lead hello").await.unwrap();
    world.ada.say(&world.room, "written before the crew joined").await.unwrap();
    let read = bridge.read_texts("written before the crew joined").await;
    assert_eq!(read, ["written before the crew joined"]);
    eve.wait_for_member(&trap, &crew, Duration::from_secs(1)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn edits_threads_mentions_and_redactions_are_told_apart() {
    let world = World::new(RateLimits::Off, false).await;
    let mut bridge = world.open();
    let (room, ada) = (&world.room, &world.ada);
    let root = ada.say(room, "root").await.unwrap();
    let follow_up = ada.say_in_thread(room, &root, "more").await.unwrap();
    ada.edit(room, &follow_up, "much more").await.unwrap();
    ada.mention(room, &world.crew_id(), "crew").await.unwrap();
    ada.redact(room, &root).await.unwrap();
    ada.say(room, "end").await.unwrap();
    let all = bridge.read_until(|all| texts(all).contains(&"end".to_owned())).await;
    let edit = all.iter().find(|message| matches!(message.kind, Kind::Edit { .. })).unwrap();
    assert_eq!(edit.kind, Kind::Edit { of: follow_up.clone() });
    assert_eq!(edit.thread_root.as_ref(), Some(&root));
    assert_eq!(edit.content, Content::Text("much more".to_owned()));
    let more = all.iter().find(|message| message.event_id == follow_up).unwrap();
    assert_eq!(more.thread_root.as_ref(), Some(&root));
    assert!(all.iter().any(|message| message.mentions_account));
    assert!(all.iter().any(|message| message.kind == Kind::Redaction { of: root.clone() }));
}

//! What the channel sends, and how often.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_id_is_one_message() {
    for encrypted in [false, true] {
        let mut world = World::new(RateLimits::Off, encrypted).await;
        let mut bridge = world.open();
        bridge.read_until(|_| true).await;
        world.ada.wait_for_member(&world.room, &world.crew_id(), WITHIN).await.unwrap();
        let root = world.ada.say(&world.room, "root").await.unwrap();
        bridge.commit().await;
        bridge.read_texts("root").await;
        bridge.commit().await;

        let answer = outgoing("work", Some(&root), "said/0", "**done**");
        let first = bridge.deliver(&answer).await;
        assert_eq!(bridge.deliver(&answer).await, first);
        world.synapse.kill().unwrap();
        world.synapse.launch().await.unwrap();
        drop(bridge);
        let mut bridge = world.open();
        bridge.read_until(|_| true).await;
        assert_eq!(bridge.deliver(&answer).await, first, "after a restart of both");

        if !encrypted {
            // A new device has transaction ids of its own: the thread is looked through.
            drop(bridge);
            std::fs::remove_file(world.folder.path().join("session.json")).unwrap();
            let mut bridge = world.open();
            bridge.read_until(|_| true).await;
            let again = Outgoing { maybe_sent: true, ..answer };
            assert_eq!(bridge.deliver(&again).await, first, "from a new device");
        }
        let replies = world.ada.thread(&world.room, &root).await.unwrap();
        assert_eq!(replies.len(), 1, "{replies:?}");
        assert_eq!(replies[0].text, "**done**");
        assert_eq!(replies[0].content[MARKER]["id"], "said/0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_answer_arrives_as_a_file() {
    for encrypted in [false, true] {
        let world = World::new(RateLimits::Off, encrypted).await;
        let mut bridge = world.open();
        bridge.read_until(|_| true).await;
        let body = Body::File { name: "answer.md".to_owned(), text: "long ".repeat(20_000) };
        let message = Outgoing { body, ..outgoing("work", None, "said/1", "") };
        let id = bridge.deliver(&message).await;
        let line = world.ada.wait_for(&world.room, WITHIN, |line| line.event_id == id).await.unwrap();
        assert_eq!((line.kind.as_str(), line.text.as_str()), ("m.file", "answer.md"));
        assert_eq!(line.content["file"].is_object(), encrypted);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limited_homeserver_only_slows_it_down() {
    let world = World::new(RateLimits::Messages { per_second: 3.0, burst: 2 }, false).await;
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    for n in 0..8 {
        bridge.deliver(&outgoing("work", None, &format!("said/{n}"), &format!("answer {n}"))).await;
    }
    let lines = world.ada.read(&world.room).await.unwrap();
    let answers: Vec<_> = lines.iter().filter(|line| line.text.starts_with("answer")).collect();
    assert_eq!(answers.len(), 8);
    assert!(bridge.checks.report().problems().is_empty());
}

/// More than one key of an encrypted room serves: it is for a hundred messages.
const AT_ONCE: usize = 120;

#[tokio::test(flavor = "multi_thread")]
async fn many_messages_at_once_arrive_in_an_encrypted_room() {
    let world = World::new(RateLimits::Off, true).await;
    let mut bridge = world.open();
    bridge.read_until(|_| true).await;
    bridge.commit().await;
    // The first one shares the key, so that the others have nothing to wait for.
    bridge.deliver(&outgoing("work", None, "said/first", "the first")).await;
    let mut sending = tokio::task::JoinSet::new();
    for n in 0..AT_ONCE {
        let sender = bridge.sender.clone();
        let message = outgoing("work", None, &format!("said/{n}"), &format!("answer {n}"));
        sending.spawn(async move { sender.deliver(&message).await.unwrap() });
    }
    let sent: BTreeSet<String> = sending.join_all().await.into_iter().collect();
    assert_eq!(sent.len(), AT_ONCE);
    let last = outgoing("work", None, "said/last", "the last");
    let last = bridge.deliver(&last).await;
    world.ada.wait_for(&world.room, WITHIN, |line| line.event_id == last).await.unwrap();
    let lines = world.ada.read(&world.room).await.unwrap();
    let answers: BTreeSet<&str> =
        lines.iter().map(|line| line.text.as_str()).filter(|text| text.starts_with("answer")).collect();
    assert_eq!(answers.len(), AT_ONCE, "each can be read");
}

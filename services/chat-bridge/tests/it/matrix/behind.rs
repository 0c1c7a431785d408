//! Rooms, edits and aliases that can not be had, and what others have of it: nothing.

use super::*;
use crate::proxy::{Proxy, plain};

/// A world whose crew reads two rooms through a proxy, of which the second is the audit room.
struct TwoRooms {
    world: World,
    proxy: Proxy,
    other: String,
}

impl TwoRooms {
    async fn new() -> Self {
        let mut world = World::new(RateLimits::Off, false).await;
        world.limit = 5;
        let crew = world.crew_id();
        let other = NewRoom { name: "other", invite: &[&crew], ..NewRoom::default() };
        let other = world.ada.create_room(other).await.unwrap();
        let proxy = Proxy::start(&world.synapse.url()).await;
        Self { world, proxy, other }
    }

    fn open(&self) -> Bridge {
        let mut settings = self.world.settings();
        settings.matrix.homeserver = self.proxy.url();
        settings.matrix.audit_room = Some("other".to_owned());
        let other = Room { name: "other".to_owned(), address: RoomAddress::Id(self.other.clone()), ..work(&settings) };
        settings.matrix.rooms.push(other);
        let mut rules = Rules::clone(&settings.rules);
        rules.rooms.insert("other".to_owned(), rules.rooms["work"].clone());
        settings.rules = Arc::new(rules);
        Bridge::open(settings)
    }

    /// Both rooms are read, and then more is written in the first than one response holds, and something in the other.
    async fn with_a_gap(&self) -> Vec<String> {
        let World { ada, room, .. } = &self.world;
        let mut bridge = self.open();
        for room in [room, &self.other] {
            ada.say(room, &format!("start of {room}")).await.unwrap();
        }
        let starts = [room, &self.other].map(|room| format!("start of {room}"));
        bridge.read_until(|all| starts.iter().all(|start| texts(all).contains(start))).await;
        bridge.commit().await;
        drop(bridge);
        let missed: Vec<String> = (0..20).map(|n| format!("message {n}")).collect();
        for text in &missed {
            ada.say(room, text).await.unwrap();
        }
        ada.say(&self.other, "beside").await.unwrap();
        missed
    }

    fn refuse_to_read(&self) {
        self.proxy.refuse(&["/messages", plain(&self.world.room)], 403, "M_FORBIDDEN");
    }
}

fn work(settings: &Settings) -> Room {
    settings.matrix.rooms[0].clone()
}

fn is_behind(bridge: &Bridge) -> bool {
    bridge.checks.report().problems().iter().any(|problem| problem.contains("the room work is not read since"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_can_not_be_read_holds_up_no_other_and_is_read_in_full_later() {
    let rooms = TwoRooms::new().await;
    let missed = rooms.with_a_gap().await;
    rooms.refuse_to_read();
    let mut bridge = rooms.open();
    assert_eq!(bridge.read_texts("beside").await, ["beside"]);
    bridge.commit().await;
    assert!(is_behind(&bridge), "{:?}", bridge.checks.report());
    rooms.world.ada.say(&rooms.other, "and later").await.unwrap();
    bridge.read_texts("and later").await;
    bridge.commit().await;

    // Its position outlives the process, and what is written meanwhile is in it.
    drop(bridge);
    rooms.world.ada.say(&rooms.world.room, "the last one").await.unwrap();
    rooms.proxy.mend();
    let mut bridge = rooms.open();
    assert!(is_behind(&bridge), "{:?}", bridge.checks.report());
    let wanted: Vec<String> = missed.into_iter().chain(["the last one".to_owned()]).collect();
    assert_eq!(bridge.read_texts("the last one").await, wanted);
    bridge.commit().await;
    assert!(!is_behind(&bridge), "{:?}", bridge.checks.report());
    rooms.world.ada.say(&rooms.world.room, "as ever").await.unwrap();
    assert_eq!(bridge.read_texts("as ever").await, ["as ever"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_whose_server_is_ill_holds_up_no_other_and_is_no_stall() {
    // Less than the first try takes, and more than what comes later.
    const SOON: Duration = Duration::from_secs(20);
    let mut rooms = TwoRooms::new().await;
    rooms.with_a_gap().await;
    rooms.world.stalled_after = SOON;
    // matrix-sdk tries this again, until our own time is up.
    rooms.proxy.refuse(&["/messages", plain(&rooms.world.room)], 502, "M_UNKNOWN");
    let mut bridge = rooms.open();
    bridge.read_texts("beside").await;
    bridge.commit().await;
    for n in 0..2 {
        let text = format!("later {n}");
        rooms.world.ada.say(&rooms.other, &text).await.unwrap();
        let read = tokio::time::timeout(SOON, bridge.read_texts(&text)).await;
        assert_eq!(read.unwrap(), [text]);
        bridge.commit().await;
        let problems = bridge.checks.report().problems();
        assert!(is_behind(&bridge) && problems.len() == 1, "{problems:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_stays_unreadable_is_told_until_the_crew_is_taken_out_of_it() {
    let rooms = TwoRooms::new().await;
    rooms.with_a_gap().await;
    rooms.refuse_to_read();
    let mut bridge = rooms.open();
    let told = told(&mut bridge, "I can not read the room work since").await;
    assert_eq!(told, [rooms.world.room.clone(), "other".to_owned()]);
    let room = matrix_sdk::ruma::RoomId::parse(&rooms.world.room).unwrap();
    let crew = matrix_sdk::ruma::UserId::parse(rooms.world.crew_id()).unwrap();
    rooms.world.ada.client().get_room(&room).unwrap().kick_user(&crew, None).await.unwrap();
    assert_eq!(self::told(&mut bridge, "The crew is not in the room work any more").await, ["other"]);
    assert!(!is_behind(&bridge), "{:?}", bridge.checks.report());
}

/// Reads until something is told that begins so, and gives the rooms that are told.
async fn told(bridge: &mut Bridge, beginning: &str) -> Vec<String> {
    let told = async {
        loop {
            let batch = bridge.receiver.next().await.unwrap();
            bridge.receiver.commit(&[]).await.unwrap();
            let rooms = batch.notices.iter().filter(|tell| tell.text.starts_with(beginning)).map(|tell| &tell.room);
            let rooms: Vec<String> = rooms.cloned().collect();
            if !rooms.is_empty() {
                return rooms;
            }
        }
    };
    tokio::time::timeout(WITHIN, told).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_whose_original_can_not_be_read_is_told_and_costs_no_other_message() {
    let rooms = TwoRooms::new().await;
    let World { ada, room, .. } = &rooms.world;
    let mut bridge = rooms.open();
    let original = ada.say(room, "one").await.unwrap();
    bridge.read_texts("one").await;
    bridge.commit().await;
    rooms.proxy.refuse(&["/event/", plain(&original)], 400, "M_INVALID_PARAM");
    ada.edit(room, &original, "two").await.unwrap();
    ada.say(room, "three").await.unwrap();
    let mut notices = Vec::new();
    let read = async {
        loop {
            let batch = bridge.receiver.next().await.unwrap();
            notices.extend(batch.notices);
            if texts(&batch.messages).contains(&"three".to_owned()) {
                return;
            }
            bridge.receiver.commit(&[]).await.unwrap();
        }
    };
    tokio::time::timeout(WITHIN, read).await.unwrap();
    assert!(notices[0].text.contains("I have not taken its correction"), "{notices:?}");
    assert_eq!(notices[0].thread.as_ref(), Some(&original));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_is_taken_when_its_homeserver_was_ill_meanwhile() {
    let rooms = TwoRooms::new().await;
    let World { ada, room, .. } = &rooms.world;
    let mut bridge = rooms.open();
    let original = ada.say(room, "one").await.unwrap();
    bridge.read_texts("one").await;
    bridge.commit().await;
    // matrix-sdk does not try this status again by itself.
    rooms.proxy.refuse(&["/event/", plain(&original)], 520, "M_UNKNOWN");
    ada.edit(room, &original, "two").await.unwrap();
    let behind = async {
        while !is_behind(&bridge) {
            let batch = bridge.receiver.next().await.unwrap();
            assert!(batch.messages.is_empty() && batch.notices.is_empty(), "{batch:?}");
            bridge.receiver.commit(&[]).await.unwrap();
        }
    };
    tokio::time::timeout(WITHIN, behind).await.unwrap();
    rooms.proxy.mend();
    assert_eq!(bridge.read_texts("two").await, ["two"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_alias_whose_server_is_away_holds_up_no_room() {
    let world = World::new(RateLimits::Off, false).await;
    let proxy = Proxy::start(&world.synapse.url()).await;
    proxy.refuse(&["/directory/room/"], 502, "M_UNKNOWN");
    let mut settings = world.settings();
    settings.matrix.homeserver = proxy.url();
    let alias = RoomAddress::Alias("#nowhere:nightcrew.test".to_owned());
    settings.matrix.rooms.push(Room { name: "nowhere".to_owned(), address: alias, ..work(&settings) });
    let mut bridge = Bridge::open(settings);
    for text in ["one", "two"] {
        world.ada.say(&world.room, text).await.unwrap();
        bridge.read_texts(text).await;
        bridge.commit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_homeserver_that_is_ill_does_not_cost_the_position() {
    let world = World::new(RateLimits::Off, false).await;
    let proxy = Proxy::start(&world.synapse.url()).await;
    let mut settings = world.settings();
    settings.matrix.homeserver = proxy.url();
    let mut bridge = Bridge::open(settings);
    world.ada.say(&world.room, "one").await.unwrap();
    bridge.read_texts("one").await;
    bridge.commit().await;
    // The code of a position that is not known, and a status that matrix-sdk does not try again by itself.
    proxy.refuse(&["/sync"], 520, "M_UNKNOWN");
    bridge.receiver.next().await.unwrap_err();
    proxy.mend();
    world.ada.say(&world.room, "two").await.unwrap();
    let next = async {
        loop {
            let batch = bridge.receiver.next().await.unwrap();
            assert!(batch.notices.is_empty(), "{:?}", batch.notices);
            if !batch.messages.is_empty() {
                return texts(&batch.messages);
            }
            bridge.receiver.commit(&[]).await.unwrap();
        }
    };
    assert_eq!(tokio::time::timeout(WITHIN, next).await.unwrap(), ["two"]);
}

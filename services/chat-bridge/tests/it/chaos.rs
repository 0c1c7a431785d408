//! Nothing is lost and nothing is done twice while bridge and homeserver are ended at random.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::task::JoinSet;

use crate::{
    person::{Line, NewRoom, Person},
    synapse::RateLimits,
    world::{Room, World},
};

/// Messages in all, unless `NIGHTCREW_CHAOS_MESSAGES` says otherwise.
const MESSAGES: u64 = 1_000;

/// The same seed is the same messages and the same plan of what is ended when; the machine does the rest.
/// `NIGHTCREW_CHAOS_SEED` takes another one.
const SEED: u64 = 0x6e69_6768_7463_7265;

/// Between two ends of something.
const PEACE: std::ops::Range<u64> = 1_000..6_000;

/// For all answers to arrive after the last message was sent and everything is up again.
const SETTLE: Duration = Duration::from_mins(5);

/// A room, as the test plans it.
const ROOMS: [(&str, &str, bool); 4] =
    [("mention", "mention", false), ("all", "all", false), ("sealed", "mention", true), ("mute", "listen", false)];

/// What one sender writes where.
struct Planned {
    room: usize,
    text: String,
    /// The agents that it has to wake.
    wakes: BTreeSet<&'static str>,
}

#[tokio::test(flavor = "multi_thread")]
async fn every_allowed_message_is_one_run_and_one_reply() {
    let mut world = World::new(RateLimits::Off).await;
    let mut people = Vec::new();
    for name in ["ada", "ben", "cleo", "eve"] {
        people.push(world.person(name).await);
    }
    let rooms = rooms(&world, &people).await;
    world.start_runner().await;
    let mut bridge = Some(world.start_bridge_process());
    for room in &rooms {
        people[0].wait_for_member(room, &world.crew_id(), Duration::from_mins(1)).await.unwrap();
    }

    let seed = number("NIGHTCREW_CHAOS_SEED", SEED);
    let messages = usize::try_from(number("NIGHTCREW_CHAOS_MESSAGES", MESSAGES)).unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    let mut senders = JoinSet::new();
    let readers = people.len();
    for (n, person) in people.into_iter().enumerate() {
        let plan = plan(&mut dice, messages / readers, n == readers - 1);
        let rooms = rooms.clone();
        senders.spawn(async move { (write(&person, &rooms, &plan).await, person) });
    }
    let mut sent = Vec::new();
    let mut people = Vec::new();
    let mut ends = 0;
    while !senders.is_empty() {
        tokio::select! {
            Some(done) = senders.join_next() => {
                let (events, person) = done.unwrap();
                sent.extend(events);
                people.push(person);
            }
            () = tokio::time::sleep(Duration::from_millis(dice.random_range(PEACE))) => {
                ends += 1;
                if dice.random_bool(0.3) {
                    world.synapse.kill().unwrap();
                    world.synapse.launch().await.unwrap();
                } else if let Some(running) = bridge.take() {
                    running.kill();
                    bridge = Some(world.start_bridge_process());
                }
            }
        }
    }
    assert!(ends >= 5, "only {ends} things were ended while {messages} messages were sent");

    let wanted: BTreeMap<String, usize> = sent.iter().map(|(event, wakes)| (event.clone(), wakes.len())).collect();
    let is_ada = |person: &&Person| person.id().starts_with("@ada");
    let reader = people.iter().find(is_ada).unwrap();
    let replies = settled(reader, &rooms, &wanted, &world.crew_id()).await;

    let mut runs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let log = world.log().await;
    for requested in log.runs().await.into_values() {
        let schemas::Trigger::Chat { event_id, .. } = requested.trigger else { panic!("{:?}", requested.trigger) };
        let agents = runs.entry(event_id).or_default();
        assert!(agents.insert(requested.agent.to_string()));
    }
    let mut wrong = Vec::new();
    for (event, wakes) in &sent {
        let run = runs.remove(event).unwrap_or_default();
        let replied = replies.get(event).copied().unwrap_or_default();
        if replied != wakes.len() || !run.iter().eq(wakes.iter()) {
            wrong.push(format!("{event}: wakes {wakes:?}, started {run:?}, was answered {replied} times"));
        }
    }
    let dead = log.all("DEAD", schemas::subject::filter::DEAD).await;
    assert!(
        wrong.is_empty() && runs.is_empty() && dead.is_empty(),
        "seed {seed}, {} messages, {ends} ends:\n{}\nruns of nothing: {runs:?}\nparked: {dead:#?}\n{}",
        sent.len(),
        wrong.join("\n"),
        bridge_log(&world),
    );
    drop(bridge);
    world.end().await;
}

/// What the bridges said.
fn bridge_log(world: &World) -> String {
    std::fs::read_to_string(world.state().join("bridge.log")).unwrap_or_default()
}

fn number(variable: &str, default: u64) -> u64 {
    let given = std::env::var(variable).ok();
    given.map_or(default, |text| text.parse().unwrap())
}

async fn rooms(world: &World, people: &[Person]) -> Vec<String> {
    let crew = world.crew_id();
    let mut invite: Vec<&str> = people[1..].iter().map(Person::id).collect();
    invite.push(&crew);
    let mut ids = Vec::new();
    for (name, _, encrypted) in ROOMS {
        let room = NewRoom { name, encrypted, invite: &invite, alias: None };
        ids.push(people[0].create_room(room).await.unwrap());
    }
    let rooms: Vec<Room> =
        ROOMS.iter().zip(&ids).map(|((name, mode, _), id)| Room { name, id: id.clone(), mode }).collect();
    let allow: Vec<&str> = people[..3].iter().map(Person::id).collect();
    world.write_project(&allow, &rooms);
    for person in &people[1..] {
        for id in &ids {
            person.join(id).await.unwrap();
        }
    }
    ids
}

/// What one person writes. `stranger` is on nobody's list.
fn plan(dice: &mut StdRng, messages: usize, stranger: bool) -> Vec<Planned> {
    let one = |n: usize| {
        let room = dice.random_range(0..ROOMS.len());
        let mode = ROOMS[room].1;
        let names: &[&'static str] = [&[][..], &["lead"], &["scout"], &["lead", "scout"]][dice.random_range(0..4)];
        let mentions: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        let text = format!("{} message {n}", mentions.join(" "));
        let wakes: BTreeSet<&'static str> = match (stranger, mode, names.is_empty()) {
            (true, _, _) | (_, "listen", _) | (_, "mention", true) => BTreeSet::new(),
            (_, _, true) => BTreeSet::from(["lead"]),
            (_, _, false) => names.iter().copied().collect(),
        };
        Planned { room, text, wakes }
    };
    (0..messages).map(one).collect()
}

async fn write(person: &Person, rooms: &[String], plan: &[Planned]) -> Vec<(String, BTreeSet<&'static str>)> {
    let mut sent = Vec::new();
    for planned in plan {
        let event = person.say(&rooms[planned.room], &planned.text).await.unwrap();
        sent.push((event, planned.wakes.clone()));
    }
    sent
}

/// The number of the crew's replies to each message, once there are as many as wanted, or too many.
async fn settled(
    reader: &Person,
    rooms: &[String],
    wanted: &BTreeMap<String, usize>,
    crew: &str,
) -> BTreeMap<String, usize> {
    let deadline = tokio::time::Instant::now() + SETTLE;
    let total: usize = wanted.values().sum();
    loop {
        let mut replies: BTreeMap<String, usize> = BTreeMap::new();
        for room in rooms {
            let lines: Vec<Line> = reader.read(room).await.unwrap_or_default();
            for line in lines.into_iter().filter(|line| line.sender == crew) {
                assert_eq!(line.kind, "m.text", "the bridge had something to say: {}", line.text);
                *replies.entry(line.thread.unwrap()).or_default() += 1;
            }
        }
        if replies.values().sum::<usize>() >= total || tokio::time::Instant::now() > deadline {
            return replies;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

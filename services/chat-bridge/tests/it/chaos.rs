//! Nothing is lost and nothing is done twice while bridge and homeserver are ended at random.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    person::{NewRoom, Person},
    synapse::RateLimits,
    world::{Log, Room, World},
};

/// Messages in all, unless `NIGHTCREW_CHAOS_MESSAGES` says otherwise.
const MESSAGES: u64 = 1_000;

/// The same seed is the same messages and the same plan of what is ended when; the machine does the rest.
/// `NIGHTCREW_CHAOS_SEED` takes another one.
const SEED: u64 = 0x6e69_6768_7463_7265;

/// How often the bridge is ended while the messages are written, and how often the homeserver, which takes longer to come
/// back. Each often enough that one is ended while the other is still catching up.
const ENDS: [(Part, usize); 2] = [(Part::Bridge, 10), (Part::Synapse, 5)];

/// Messages that may be written beyond the one at which something is ended: it ends while people write, and before they
/// are done.
const AHEAD: usize = 10;

/// For all answers to arrive after the last message was sent and everything is up again.
const SETTLE: Duration = Duration::from_mins(5);

/// Between two looks at how far they are.
const LOOK: Duration = Duration::from_millis(500);

/// A room, as the test plans it.
const ROOMS: [(&str, &str, bool); 4] =
    [("mention", "mention", false), ("all", "all", false), ("sealed", "mention", true), ("mute", "listen", false)];

/// What is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Bridge,
    Synapse,
}

/// What is ended, and after how many messages.
struct End {
    after: usize,
    what: Part,
}

/// Counts what is written, and holds writers back until what is to be ended before it was ended.
struct Gate {
    written: watch::Sender<usize>,
    places: Semaphore,
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { written: watch::Sender::new(0), places: Semaphore::new(AHEAD) })
    }

    /// Waits until so many messages are written.
    async fn reached(&self, messages: usize) -> usize {
        *self.written.subscribe().wait_for(|written| *written >= messages).await.unwrap()
    }
}

/// What one sender writes where.
struct Planned {
    room: usize,
    text: String,
    /// The agents that it has to wake.
    wakes: BTreeSet<&'static str>,
}

/// A message that was written, and the agents that it has to wake.
type Written = (String, BTreeSet<&'static str>);

#[tokio::test(flavor = "multi_thread")]
async fn every_allowed_message_is_one_run_and_one_reply() {
    let mut world = World::new(RateLimits::Off).await;
    let mut people = Vec::new();
    for name in ["ada", "ben", "cleo", "eve"] {
        people.push(world.person(name).await);
    }
    let rooms = rooms(&world, &people).await;
    world.start_runner().await;
    let mut bridge = world.start_bridge_process();
    for room in &rooms {
        people[0].wait_for_member(room, &world.crew_id(), Duration::from_mins(1)).await.unwrap();
    }

    let seed = number("NIGHTCREW_CHAOS_SEED", SEED);
    let messages = usize::try_from(number("NIGHTCREW_CHAOS_MESSAGES", MESSAGES)).unwrap();
    let mut dice = StdRng::seed_from_u64(seed);
    let gate = Gate::new();
    let mut senders = JoinSet::new();
    let readers = people.len();
    let messages = messages - messages % readers;
    for (n, person) in people.into_iter().enumerate() {
        let plan = plan(&mut dice, messages / readers, n == readers - 1);
        let (rooms, gate) = (rooms.clone(), Arc::clone(&gate));
        senders.spawn(async move { (write(&person, &rooms, &plan, &gate).await, person) });
    }
    let mut passed = 0;
    for end in ends(&mut dice, messages) {
        gate.places.add_permits(end.after - passed);
        passed = end.after;
        let written = gate.reached(end.after).await;
        assert!(written < messages, "{:?} is not ended while messages are written", end.what);
        match end.what {
            Part::Synapse => {
                world.synapse.kill().unwrap();
                world.synapse.launch().await.unwrap();
            }
            Part::Bridge => {
                bridge.kill();
                bridge = world.start_bridge_process();
            }
        }
    }
    gate.places.add_permits(messages - passed);
    let mut sent = Vec::new();
    let mut people = Vec::new();
    for (events, person) in senders.join_all().await {
        sent.extend(events);
        people.push(person);
    }
    assert_eq!(sent.len(), messages);

    let log = world.log().await;
    let is_ada = |person: &&Person| person.id().starts_with("@ada");
    let reader = people.iter().find(is_ada).unwrap();
    answered(&log, &sent).await;
    // Whatever the bridge reads again it reads before this: what it takes for new would be in the log by then.
    for (room, _) in rooms.iter().zip(ROOMS).filter(|(_, (_, mode, _))| *mode != "listen") {
        sent.push((reader.say(room, "@lead the last message").await.unwrap(), BTreeSet::from(["lead"])));
    }
    answered(&log, &sent).await;
    world.wait_until_nothing_is_left_to_send(&log).await;
    let mut replies = replies(reader, &rooms, &world.crew_id()).await;

    let mut runs: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for requested in log.runs().await.into_values() {
        let schemas::Trigger::Chat { event_id, .. } = requested.trigger else { panic!("{:?}", requested.trigger) };
        let agents = runs.entry(event_id).or_default();
        assert!(agents.insert(requested.agent.to_string()));
    }
    let mut wrong = Vec::new();
    for (event, wakes) in &sent {
        let run = runs.remove(event).unwrap_or_default();
        let replied = replies.remove(event).unwrap_or_default();
        if replied != wakes.len() || !run.iter().eq(wakes.iter()) {
            wrong.push(format!("{event}: wakes {wakes:?}, started {run:?}, was answered {replied} times"));
        }
    }
    let dead = log.all("DEAD", schemas::subject::filter::DEAD).await;
    assert!(
        wrong.is_empty() && runs.is_empty() && replies.is_empty() && dead.is_empty(),
        "seed {seed}, {} messages:\n{}\nruns of nothing: {runs:?}\nreplies to nothing: {replies:?}\nparked: {dead:#?}\n{}",
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

/// What is ended when: each part as often as [`ENDS`] says, in any order, anywhere between the first messages and the
/// last.
fn ends(dice: &mut StdRng, messages: usize) -> Vec<End> {
    let mut parts: Vec<Part> = ENDS.iter().flat_map(|(part, times)| std::iter::repeat_n(*part, *times)).collect();
    parts.shuffle(dice);
    let mut after: Vec<usize> = parts.iter().map(|_| dice.random_range(1..messages - 2 * AHEAD)).collect();
    after.sort_unstable();
    after.into_iter().zip(parts).map(|(after, what)| End { after, what }).collect()
}

async fn write(person: &Person, rooms: &[String], plan: &[Planned], gate: &Gate) -> Vec<Written> {
    let mut sent = Vec::new();
    for planned in plan {
        gate.places.acquire().await.unwrap().forget();
        let event = person.say(&rooms[planned.room], &planned.text).await.unwrap();
        gate.written.send_modify(|written| *written += 1);
        sent.push((event, planned.wakes.clone()));
    }
    sent
}

/// Waits until as many answers are delivered as the messages have to get, or for as long as that may take: what is missing
/// or too much is shown message by message.
async fn answered(log: &Log, sent: &[Written]) {
    let deadline = tokio::time::Instant::now() + SETTLE;
    let total: usize = sent.iter().map(|(_, wakes)| wakes.len()).sum();
    while log.signals("delivered").await.len() < total && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(LOOK).await;
    }
}

/// The number of the crew's replies to each message.
async fn replies(reader: &Person, rooms: &[String], crew: &str) -> BTreeMap<String, usize> {
    let mut replies: BTreeMap<String, usize> = BTreeMap::new();
    for room in rooms {
        for line in reader.read(room).await.unwrap().into_iter().filter(|line| line.sender == crew) {
            assert_eq!(line.kind, "m.text", "the bridge had something to say: {}", line.text);
            *replies.entry(line.thread.unwrap()).or_default() += 1;
        }
    }
    replies
}

//! People write in several rooms, and what stands between them and the crew is ended at random meanwhile: every allowed
//! message has to lead to exactly one run and one reply of each agent that it wakes, every other to none.
//!
//! A test plays it with a bridge and a runner that answers at once, `bench matrix` with a whole crew. Here is what both
//! share: who writes what where, what is ended after which message, and what has to come of it. How it is ended is the
//! caller's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use kit::{bus::Bus, journal::STREAM};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use schemas::{Decision, RunEvent, Trigger, subject::filter};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
};

use crate::{
    person::{NewRoom, Person},
    synapse::Synapse,
};

/// Who writes; the last is on nobody's list.
const PEOPLE: [&str; 4] = ["ada", "ben", "cleo", "eve"];

/// The rooms that they write in: name, mode, encrypted. The default of each is `lead`, and `lead` and `scout` are there.
const ROOMS: [(&str, &str, bool); 4] =
    [("mention", "mention", false), ("all", "all", false), ("sealed", "mention", true), ("mute", LISTEN, false)];

/// The mode of a room that no message of which wakes anybody.
pub const LISTEN: &str = "listen";

/// Messages that may be written beyond the one at which something is ended: it ends while people write, and before they
/// are done.
const AHEAD: usize = 10;

/// For the crew to come into the rooms.
const JOIN_WITHIN: Duration = Duration::from_mins(1);

/// For the next answer to be delivered, after the last message was sent and everything is up again.
const NEXT_WITHIN: Duration = Duration::from_mins(5);

/// Between two looks at how far they are.
const LOOK: Duration = Duration::from_millis(500);

/// A room as `team.yaml` has to have it.
#[derive(Debug, Clone)]
pub struct Room {
    /// Its name.
    pub name: &'static str,
    /// Its id.
    pub id: String,
    /// Which messages of it count: `mention`, `all` or `listen`.
    pub mode: &'static str,
}

/// What is ended, to be started again at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The bridge.
    Bridge,
    /// The homeserver.
    Homeserver,
}

/// How much is written, and how often what is ended.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Messages in all; as many as everybody writes the same number of.
    pub messages: usize,
    /// The same seed is the same messages and the same plan of what is ended when; the machine does the rest.
    pub seed: u64,
    /// How often each part is ended while messages are written.
    pub ends: [(Part, usize); 2],
}

/// People and rooms.
#[derive(Debug)]
pub struct Cast {
    people: Vec<Person>,
    rooms: Vec<Room>,
}

/// What was written.
#[derive(Debug)]
pub struct Played {
    /// Until the last message was sent.
    pub sending: Duration,
    /// From then until the last answer was delivered.
    pub settling: Duration,
    sent: Vec<Written>,
    reader: Person,
    rooms: Vec<Room>,
}

/// A message that was written, and the agents that it has to wake.
type Written = (String, BTreeSet<&'static str>);

/// What is ended, and after how many messages.
struct End {
    after: usize,
    what: Part,
}

/// What one sender writes where.
struct Planned {
    room: usize,
    text: String,
    wakes: BTreeSet<&'static str>,
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
    async fn reached(&self, messages: usize) -> anyhow::Result<usize> {
        Ok(*self.written.subscribe().wait_for(|written| *written >= messages).await?)
    }
}

impl Cast {
    /// Registers the people, and makes rooms that they are in and the user `crew` is invited to.
    pub async fn assemble(synapse: &Synapse, crew: &str) -> anyhow::Result<Self> {
        let mut people = Vec::new();
        for name in PEOPLE {
            let password = synapse.register(name).await?;
            people.push(Person::log_in(&synapse.url(), name, &password).await?);
        }
        let mut invite: Vec<&str> = people[1..].iter().map(Person::id).collect();
        invite.push(crew);
        let mut rooms = Vec::new();
        for (name, mode, encrypted) in ROOMS {
            let id = people[0].create_room(NewRoom { name, encrypted, invite: &invite, alias: None }).await?;
            for person in &people[1..] {
                person.join(&id).await?;
            }
            rooms.push(Room { name, id, mode });
        }
        Ok(Self { people, rooms })
    }

    /// Who may wake the crew.
    pub fn allowed(&self) -> Vec<&str> {
        self.people[..self.people.len() - 1].iter().map(Person::id).collect()
    }

    /// The rooms.
    pub fn rooms(&self) -> &[Room] {
        &self.rooms
    }

    /// Waits for `crew` in every room, lets everybody write while `end` ends parts, and waits until as many answers are
    /// delivered as there have to be, or no more come.
    pub async fn play(
        self,
        plan: Plan,
        crew: &str,
        bus: &Bus,
        mut end: impl AsyncFnMut(Part) -> anyhow::Result<()>,
    ) -> anyhow::Result<Played> {
        let Self { people, rooms } = self;
        for room in &rooms {
            people[0].wait_for_member(&room.id, crew, JOIN_WITHIN).await?;
        }
        let mut dice = StdRng::seed_from_u64(plan.seed);
        let each = plan.messages / people.len();
        let messages = each * people.len();
        let gate = Gate::new();
        let mut began = Instant::now();
        let mut senders = JoinSet::new();
        let last = people.len() - 1;
        for (n, person) in people.into_iter().enumerate() {
            let planned = planned(&mut dice, each, n == last);
            let (rooms, gate) = (rooms.clone(), Arc::clone(&gate));
            senders.spawn(async move { anyhow::Ok((write(&person, &rooms, planned, &gate).await?, person)) });
        }
        let (mut passed, mut done_writing) = (0, Vec::new());
        for End { after, what } in ends(&mut dice, messages, &plan.ends) {
            gate.places.add_permits(after - passed);
            passed = after;
            let reached = gate.reached(after);
            let written = tokio::select! {
                written = reached => written?,
                // Whoever is done or failed first; the others come to the message all the same.
                Some(done) = senders.join_next() => {
                    done_writing.push(done??);
                    gate.reached(after).await?
                }
            };
            ensure!(written < messages, "{what:?} is not ended while messages are written");
            end(what).await?;
        }
        gate.places.add_permits(messages - passed);
        while let Some(done) = senders.join_next().await {
            done_writing.push(done??);
        }
        let (mut sent, mut people) = (Vec::new(), Vec::new());
        for (written, person) in done_writing {
            sent.extend(written);
            people.push(person);
        }
        ensure!(sent.len() == messages, "{} messages were sent, not {messages}", sent.len());
        let sending = began.elapsed();
        began = Instant::now();
        // Who made the rooms reads all that was ever written there.
        let maker = |person: &Person| person.id().starts_with(&format!("@{}:", PEOPLE[0]));
        let reader = people.into_iter().find(maker).context("the maker of the rooms writes too")?;
        answered(bus, &sent).await?;
        let settling = began.elapsed();
        // Whatever the bridge reads again it reads before this: what it takes for new would be in the log by then.
        for room in rooms.iter().filter(|room| room.mode != LISTEN) {
            sent.push((reader.say(&room.id, "@lead the last message").await?, BTreeSet::from(["lead"])));
        }
        answered(bus, &sent).await?;
        Ok(Played { sending, settling, sent, reader, rooms })
    }
}

impl Played {
    /// How many messages were sent.
    pub fn messages(&self) -> usize {
        self.sent.len()
    }

    /// How many answers they had to have.
    pub fn wanted(&self) -> usize {
        wanted(&self.sent)
    }

    /// What is wrong, a line each: a message that did not lead to what it had to, and runs and replies of no message. Nothing
    /// may be left to send when this reads the rooms.
    pub async fn wrong(&self, crew: &str, bus: &Bus) -> anyhow::Result<Vec<String>> {
        let mut started = started(bus).await?;
        let mut replies = self.replies(crew).await?;
        let mut wrong = Vec::new();
        for (event, wakes) in &self.sent {
            let runs = started.remove(event).unwrap_or_default();
            let replied = replies.remove(event).unwrap_or_default();
            if replied != wakes.len() || !runs.iter().map(String::as_str).eq(wakes.iter().copied()) {
                wrong.push(format!("{event}: wakes {wakes:?}, started {runs:?}, was answered {replied} times"));
            }
        }
        wrong.extend(started.into_iter().map(|(event, runs)| format!("{event}: was not sent, and started {runs:?}")));
        wrong.extend(
            replies.into_iter().map(|(event, times)| format!("{event}: was not sent, and answered {times} times")),
        );
        Ok(wrong)
    }

    /// The number of the crew's replies to each message.
    async fn replies(&self, crew: &str) -> anyhow::Result<BTreeMap<String, usize>> {
        let mut replies: BTreeMap<String, usize> = BTreeMap::new();
        for room in &self.rooms {
            for line in self.reader.read(&room.id).await?.into_iter().filter(|line| line.sender == crew) {
                ensure!(line.kind == "m.text", "the bridge had something to say: {}", line.text);
                *replies.entry(line.thread.context("an answer is in a thread")?).or_default() += 1;
            }
        }
        Ok(replies)
    }
}

/// What one person writes. `stranger` is on nobody's list.
fn planned(dice: &mut StdRng, messages: usize, stranger: bool) -> Vec<Planned> {
    let one = |n: usize| {
        let room = dice.random_range(0..ROOMS.len());
        let mode = ROOMS[room].1;
        let names: &[&'static str] = [&[][..], &["lead"], &["scout"], &["lead", "scout"]][dice.random_range(0..4)];
        let mentions: Vec<String> = names.iter().map(|name| format!("@{name}")).collect();
        let text = format!("{} message {n}", mentions.join(" "));
        let wakes: BTreeSet<&'static str> = match (stranger, mode, names.is_empty()) {
            (true, _, _) | (_, LISTEN, _) | (_, "mention", true) => BTreeSet::new(),
            (_, _, true) => BTreeSet::from(["lead"]),
            (_, _, false) => names.iter().copied().collect(),
        };
        Planned { room, text, wakes }
    };
    (0..messages).map(one).collect()
}

/// What is ended when: each part as often as it is to be, in any order, anywhere between the first messages and the last.
fn ends(dice: &mut StdRng, messages: usize, times: &[(Part, usize)]) -> Vec<End> {
    let mut parts: Vec<Part> = times.iter().flat_map(|(part, times)| std::iter::repeat_n(*part, *times)).collect();
    parts.shuffle(dice);
    let mut after: Vec<usize> = parts.iter().map(|_| dice.random_range(1..messages - 2 * AHEAD)).collect();
    after.sort_unstable();
    after.into_iter().zip(parts).map(|(after, what)| End { after, what }).collect()
}

async fn write(person: &Person, rooms: &[Room], planned: Vec<Planned>, gate: &Gate) -> anyhow::Result<Vec<Written>> {
    let mut sent = Vec::with_capacity(planned.len());
    for Planned { room, text, wakes } in planned {
        gate.places.acquire().await?.forget();
        let event = person.say(&rooms[room].id, &text).await?;
        gate.written.send_modify(|written| *written += 1);
        sent.push((event, wakes));
    }
    Ok(sent)
}

fn wanted(sent: &[Written]) -> usize {
    sent.iter().map(|(_, wakes)| wakes.len()).sum()
}

/// Waits until as many answers are delivered as the messages have to get, or until no more come: what is missing or too
/// much is shown message by message.
async fn answered(bus: &Bus, sent: &[Written]) -> anyhow::Result<()> {
    let mut last = (0, Instant::now());
    loop {
        let delivered = delivered(bus).await?;
        if delivered > last.0 {
            last = (delivered, Instant::now());
        }
        if delivered >= wanted(sent) || last.1.elapsed() > NEXT_WITHIN {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many answers the log says are delivered.
async fn delivered(bus: &Bus) -> anyhow::Result<usize> {
    let mut delivered = 0;
    for message in bus.scan_all(STREAM, filter::SIGNALS, 1).await? {
        delivered += usize::from(message.stored()?.envelope.kind == "delivered");
    }
    Ok(delivered)
}

/// The agents of the runs that each message started.
async fn started(bus: &Bus) -> anyhow::Result<BTreeMap<String, BTreeSet<String>>> {
    let mut started: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for message in bus.scan_all(STREAM, filter::RUNS, 1).await? {
        let message = message.stored()?;
        if !message.has("requested") {
            continue;
        }
        for event in message.decode::<Decision>()?.events {
            let RunEvent::Requested(requested) = event else { continue };
            let Trigger::Chat { event_id, .. } = requested.trigger else { bail!("{:?}", requested.trigger) };
            let agents = started.entry(event_id).or_default();
            ensure!(agents.insert(requested.agent.to_string()), "{} was asked twice", requested.agent);
        }
    }
    Ok(started)
}

//! `up`: how soon a crew is ready on an empty disk, and whether its memory grows with what it has done.
//!
//! The crew is in an encrypted room of a real homeserver, though what it does is asked for at the terminal. The floor of a
//! start is keys and a nats-server that answers, without streams and services.

use std::time::{Duration, Instant};

use kit::{for_test::TestBus, requester::Requester, service};

use super::{
    Scale,
    crew::{self, Chat, Project, Up},
    load,
    log::Follower,
    report::{Measured, Target, Times, Unit, count},
    wake,
};
use crate::{
    person::{NewRoom, Person},
    restarts::Room,
    synapse::{RateLimits, Synapse},
};

/// The crew's user, and the one who made its room.
const USERS: [&str; 2] = ["crew", "ada"];

/// Starts that are measured, each with a state of its own.
const STARTS: usize = 5;

/// Each start takes at most so many seconds.
const TARGET_READY: f64 = 2.0;

/// Megabytes of an idle crew.
const TARGET_IDLE: f64 = 150.0;

/// Megabytes after all runs.
const TARGET_AFTER: f64 = 200.0;

/// Runs that are done before memory is measured again.
const RUNS: usize = 10_000;

/// Runs at once.
const AT_ONCE: usize = 500;

/// A crew that did nothing for so long is idle: longer than any of its services waits between two looks.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let synapse = Synapse::start_with(RateLimits::Off).await?;
    let [crew, ada] = USERS;
    let (password, crew_id) = (synapse.register(crew).await?, synapse.user_id(crew));
    let ada = Person::log_in(&synapse.url(), ada, &synapse.register(ada).await?).await?;
    let room = NewRoom { name: "crew", encrypted: true, invite: &[&crew_id], alias: None };
    let rooms = [Room { name: "crew", id: ada.create_room(room).await?, mode: "mention" }];
    let (homeserver, allow) = (synapse.url(), [ada.id()]);
    let chat = Chat { homeserver: &homeserver, user: &crew_id, password: &password, allow: &allow, rooms: &rooms };

    let (mut ready, mut bus_alone) = (Times::new()?, Times::new()?);
    for _ in 1..STARTS {
        let began = Instant::now();
        drop(TestBus::start().await);
        bus_alone.add(began.elapsed())?;
        let project = Project::in_rooms(wake::SCENARIO, &chat)?;
        let up = project.up().await?;
        ready.add(up.ready_after)?;
        up.stop().await?;
    }
    let project = Project::in_rooms(wake::SCENARIO, &chat)?;
    let up = project.up().await?;
    ready.add(up.ready_after)?;
    let idle = settled(&up).await?;
    let (runs, at_once) = (scale.of(RUNS), scale.of(AT_ONCE));
    let first = work(&project, at_once, at_once).await?;
    let after_first = settled(&up).await?;
    let finished = first + work(&project, runs - first, at_once).await?;
    let after = settled(&up).await?;
    up.stop().await?;
    let seconds = |percent| ready.percentile(percent) / 1_000.0;
    Ok(vec![
        Measured::new(format!("ready on an empty disk, half of {STARTS}"), Unit::Seconds, seconds(50.0))
            .over(bus_alone.percentile(50.0) / 1_000.0),
        Measured::new(format!("ready on an empty disk, slowest of {STARTS}"), Unit::Seconds, seconds(100.0))
            .target(Target::AtMost(TARGET_READY)),
        Measured::new("resident memory, idle", Unit::Megabytes, idle).target(Target::AtMost(TARGET_IDLE)),
        Measured::new(format!("finished of {runs}"), Unit::Runs, count(finished)).target(Target::Exactly(count(runs))),
        // What a crowd needs at once stays with the process; what comes on top of it grew with history.
        Measured::new(format!("resident memory after the first {at_once}, at once"), Unit::Megabytes, after_first),
        Measured::new(format!("resident memory after {runs} finished runs"), Unit::Megabytes, after)
            .target(Target::AtMost(TARGET_AFTER)),
    ])
}

/// Memory once nothing is under way.
async fn settled(up: &Up) -> anyhow::Result<f64> {
    tokio::time::sleep(SETTLE).await;
    up.resident()
}

/// Lets the crew do so many runs, some at once; gives how many finished.
async fn work(project: &Project, runs: usize, at_once: usize) -> anyhow::Result<usize> {
    let bus = project.bus().await?;
    let id = crew::id()?;
    let context = service::Context::new("bench");
    let requester = Requester::start(&bus, &context);
    let mut log = Follower::start(&bus).await?;
    let mut asked = 0;
    while asked < runs {
        let now = at_once.min(runs - asked);
        load::at_once(&requester, &id, now).await?;
        asked += now;
        log.wait("finished", asked).await?;
    }
    context.begin_shutdown();
    drop(requester);
    context.drain(service::GRACE).await;
    Ok(log.count("finished"))
}

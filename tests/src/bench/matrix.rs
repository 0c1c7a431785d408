//! `matrix`: ten thousand messages in real rooms while bridge and homeserver are ended at random, and what came of each.
//!
//! The crew is a whole one; its bridge is a process of its own, so that it can be ended with SIGKILL and started again.
//! It is not among the benches that run when none is named: it takes a quarter of an hour, most of it the homeserver's.

use anyhow::Context as _;
use schemas::subject::filter;

use super::{
    Scale,
    crew::{Chat, Project},
    report::{Measured, Target, Unit, count},
    wake,
};
use crate::{
    restarts::{Cast, Part, Plan},
    synapse::{RateLimits, Synapse},
};

/// Messages in all.
const MESSAGES: usize = 10_000;

/// The same messages each time, and the same plan of what is ended when.
const SEED: u64 = 0x6e69_6768_7463_7265;

/// The crew's user.
const CREW: &str = "crew";

/// The service that is ended and started again.
const BRIDGE: &str = "chat-bridge";

/// The stream of messages that could not be handled.
const DEAD: &str = "DEAD";

/// How often the bridge is ended, and how often the homeserver, which takes longer to come back.
const ENDS: [(Part, usize); 2] = [(Part::Bridge, 40), (Part::Homeserver, 20)];

pub(super) async fn measure(scale: Scale) -> anyhow::Result<Vec<Measured>> {
    let mut synapse = Synapse::start_with(RateLimits::Off).await?;
    let password = synapse.register(CREW).await?;
    let crew = synapse.user_id(CREW);
    let cast = Cast::assemble(&synapse, &crew).await?;
    let (homeserver, allow, rooms) = (synapse.url(), cast.allowed(), cast.rooms());
    let chat = Chat { homeserver: &homeserver, user: &crew, password: &password, allow: &allow, rooms };
    let project = Project::in_rooms(wake::SCENARIO, &chat)?;
    let up = project.up_without(BRIDGE).await?;
    let mut bridge = project.service(BRIDGE)?;
    let bus = project.bus().await?;

    let end = async |part| {
        match part {
            Part::Homeserver => {
                synapse.kill()?;
                synapse.launch().await?;
            }
            Part::Bridge => {
                bridge.kill().await?;
                bridge = project.service(BRIDGE)?;
            }
        }
        Ok(())
    };
    let played = cast.play(Plan { messages: scale.of(MESSAGES), seed: SEED, ends: ENDS }, &crew, &bus, end).await?;
    bridge.kill().await?;
    let wrong = played.wrong(&crew, &bus).await?;
    let parked = bus.scan_all(DEAD, filter::DEAD, 1).await.context("what was parked can not be read")?.len();
    up.stop().await?;
    for line in &wrong {
        super::complain(line);
    }

    let ends: usize = ENDS.iter().map(|(_, times)| times).sum();
    let case = |what: &str| format!("{} messages, {ends} ends of bridge or homeserver: {what}", played.messages());
    let right = count(played.messages()) - count(wrong.len());
    Ok(vec![
        Measured::new(case("led to what they had to"), Unit::Messages, right)
            .target(Target::Exactly(count(played.messages()))),
        Measured::new(case("parked"), Unit::Messages, count(parked)).target(Target::Exactly(0.0)),
        Measured::new(case("runs, each answered once"), Unit::Runs, count(played.wanted())),
        Measured::new(case("all written after"), Unit::Seconds, played.sending.as_secs_f64()),
        Measured::new(case("all answered after another"), Unit::Seconds, played.settling.as_secs_f64()),
    ])
}

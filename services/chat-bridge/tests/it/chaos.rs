//! Nothing is lost and nothing is done twice while bridge and homeserver are ended at random.

use crate::{
    restarts::{Cast, Part, Plan},
    synapse::RateLimits,
    world::World,
};

/// Messages in all, unless `NIGHTCREW_CHAOS_MESSAGES` says otherwise.
const MESSAGES: u64 = 1_000;

/// `NIGHTCREW_CHAOS_SEED` takes another one.
const SEED: u64 = 0x6e69_6768_7463_7265;

/// How often the bridge is ended, and how often the homeserver, which takes longer to come back. Each often enough that
/// one is ended while the other is still catching up.
const ENDS: [(Part, usize); 2] = [(Part::Bridge, 10), (Part::Homeserver, 5)];

#[tokio::test(flavor = "multi_thread")]
async fn every_allowed_message_is_one_run_and_one_reply() {
    let mut world = World::new(RateLimits::Off).await;
    let crew = world.crew_id();
    let cast = Cast::assemble(&world.synapse, &crew).await.unwrap();
    world.write_project(&cast.allowed(), cast.rooms());
    world.start_runner().await;
    let mut bridge = Some(world.start_bridge_process());

    let seed = number("NIGHTCREW_CHAOS_SEED", SEED);
    let messages = usize::try_from(number("NIGHTCREW_CHAOS_MESSAGES", MESSAGES)).unwrap();
    let log = world.log().await;
    let end = async |part| {
        match part {
            Part::Homeserver => {
                world.synapse.kill()?;
                world.synapse.launch().await?;
            }
            Part::Bridge => {
                bridge.take().unwrap().kill();
                bridge = Some(world.start_bridge_process());
            }
        }
        Ok(())
    };
    let played = cast.play(Plan { messages, seed, ends: ENDS }, &crew, log.bus(), end).await.unwrap();
    world.wait_until_nothing_is_left_to_send(&log).await;

    let wrong = played.wrong(&crew, log.bus()).await.unwrap();
    let dead = log.all("DEAD", schemas::subject::filter::DEAD).await;
    assert!(
        wrong.is_empty() && dead.is_empty(),
        "seed {seed}, {} messages:\n{}\nparked: {dead:#?}\n{}",
        played.messages(),
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

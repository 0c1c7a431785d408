//! Wakes that come again as if for the first time: the consumer was deleted and made anew, so the server counts no
//! earlier delivery, and every `requested` of the log is on its way once more.

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use kit::{consumer, identity::Service, journal::STREAM};
use nightcrew_tests::rig::{PATIENCE, Rig};
use schemas::RunEvent;

/// Between two looks at the consumer.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The second answer waits until it is let.
const SCENARIO: &str = "
name: again
rules:
  - name: waits
    when: {agent: coder}
    gate: hold
    reply: {text: done}
  - name: answers
    when: {agent: lead}
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_wake_that_comes_again_as_the_first_neither_begins_a_run_again_nor_takes_it_from_its_holder() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let _runners = [rig.runner("one").await.expect("a runner"), rig.runner("other").await.expect("a runner")];
    let ended = rig.ask("lead", "Say hello.").await.expect("a run");
    rig.end(ended).await.expect("an end");
    let held = rig.ask("coder", "Wait.").await.expect("a run");
    rig.wait(held, |event| matches!(event, RunEvent::ModelCalled(_))).await.expect("a call");
    let before = rig.events(ended).await.expect("events");

    let owner = rig.bus.bus(Service::AgentRunner).await;
    let stream = owner.jetstream().get_stream(STREAM).await.expect("the log");
    stream.delete_consumer(consumer::RUNNER_WAKE.name).await.expect("a consumer");
    // Both wakes were delivered, and only that of the run that is held is still in hand.
    tokio::time::timeout(PATIENCE, both_came_again(&stream)).await.expect("both wakes come again");
    rig.rehearsal.open_gate("hold").expect("a gate");
    let end = rig.end(held).await.expect("an end");
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");

    let kinds = |events: &[RunEvent]| events.iter().map(|event| event.kind().to_owned()).collect::<Vec<_>>();
    let once = kinds(&rig.events(held).await.expect("events"));
    assert_eq!(once, kinds(&before), "the held run went on as if nothing had been");
    assert_eq!(rig.events(ended).await.expect("events"), before, "the ended run is as it was");
}

async fn both_came_again(stream: &Stream) {
    loop {
        let info = stream.consumer_info(consumer::RUNNER_WAKE.name).await;
        // It is not there until a runner has made it anew.
        if info
            .is_ok_and(|info| info.delivered.stream_sequence > 0 && info.num_pending == 0 && info.num_ack_pending == 1)
        {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

//! Two runners share the signals of all runs. One that is delivered to the runner that does not hold its run is taken by the
//! holder all the same, and need not come again.

use async_nats::jetstream::consumer::pull;
use kit::{bus::Bus, clock, consumer::RUNNER_SIGNAL, identity::Service, message::Outgoing};
use nightcrew_tests::rig::{PATIENCE, Rig};
use schemas::{Envelope, EventId, RunEvent, RunId, Signal, Subject, ids::Token, signal::Message};

/// Messages to the run. Each goes to either runner.
const MESSAGES: usize = 12;

const SCENARIO: &str = "
name: handed-over
rules:
  - name: is-held
    when: {step: 1}
    gate: answer
    reply: {text: I think.}
  - name: answers
    reply: {text: done}
";

/// Tells a run something, as people do in a room.
async fn say(bridge: &Bus, run: RunId, message: Message) -> anyhow::Result<u64> {
    let signal = Signal::Message(message);
    let subject = Subject::Signal(run, Token::try_new(signal.kind())?);
    let envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), signal.kind(), "test", clock::now());
    Ok(bridge.publish(&Outgoing::json(subject, envelope, &signal)?).await?)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_is_taken_with_its_first_delivery_whichever_runner_gets_it() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let runners = [rig.runner("first").await.expect("a runner"), rig.runner("second").await.expect("a runner")];
    let run = rig.ask("coder", "Do it.").await.expect("a run");
    rig.wait(run, |event| matches!(event, RunEvent::ModelCalled(_))).await.expect("it is held");
    let bridge = rig.bus.bus(Service::ChatBridge).await;
    for n in 0..MESSAGES {
        let text = format!("Message {n}.");
        let message = Message { from: "ada".to_owned(), text: text.as_str().into() };
        say(&bridge, run, message).await.expect("a signal");
        let heard = |event: &RunEvent| matches!(event, RunEvent::MessageReceived(m) if m.text.preview() == text);
        rig.wait(run, heard).await.expect("it is taken");
    }
    let bus = rig.bus.bus(Service::AgentRunner).await;
    let stream = bus.jetstream().get_stream_no_info(RUNNER_SIGNAL.stream).await.expect("the log");
    let mut signals = stream.get_consumer::<pull::Config>(RUNNER_SIGNAL.name).await.expect("a consumer");
    let all_acked = async {
        while signals.info().await.expect("its state").num_ack_pending > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, all_acked).await.expect("every signal is acknowledged");
    let delivered = signals.cached_info().delivered.consumer_sequence;
    // Half of them are delivered to the runner that does not hold the run, and would come again, some more than once. On a
    // machine that is busy the holder may be too slow for one or two.
    let most = (MESSAGES + MESSAGES / 4) as u64;
    assert!(delivered <= most, "{MESSAGES} signals took {delivered} deliveries");

    rig.rehearsal.open_gate("answer").expect("a gate");
    let end = rig.end(run).await.expect("an end");
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    for runner in runners {
        runner.stop().await;
    }
}

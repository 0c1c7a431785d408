//! A signal reaches the holder of its run through whichever process it was delivered to.

use std::time::Duration;

use agent_runner::{
    holder::{Answer, Question, answer_for_held, ask},
    holds::{Hold, Holds},
};
use kit::{bus::Bus, clock, for_test::TestBus, identity::Service, journal::Journal, message::Outgoing};
use schemas::{
    AgentName, Envelope, EventId, RunId, Signal, Subject,
    ids::Token,
    signal::{ByWhom, Message},
};
use tokio_util::sync::CancellationToken;

/// How long what is waited for may take.
const PATIENCE: Duration = Duration::from_secs(30);

async fn publish(bus: &Bus, run: RunId, signal: &Signal) -> (EventId, u64) {
    let id = EventId::new(clock::uuid7().to_string());
    let envelope = Envelope::new(id.clone(), signal.kind(), "test", clock::now());
    let subject = Subject::Signal(run, Token::try_new(signal.kind()).unwrap());
    (id, bus.publish(&Outgoing::json(subject, envelope, signal).unwrap()).await.unwrap())
}

/// Asks while the holder takes what comes.
async fn handed_over(asker: &Bus, question: Question, hold: &mut Hold) -> (Answer, Option<EventId>) {
    let mut taken = None;
    let takes = async {
        let mail = hold.next().await.unwrap();
        taken = Some(mail.id);
        mail.taken.send(()).unwrap();
        std::future::pending::<()>().await;
    };
    let answer = tokio::select! {
        answer = ask(asker, question) => answer,
        () = takes => unreachable!("it waits for ever"),
    };
    (answer, taken)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_takes_what_another_process_was_delivered() {
    let server = TestBus::with_streams().await;
    let (asker, holder) = (server.bus(Service::AgentRunner).await, server.bus(Service::AgentRunner).await);
    let [run, other] = [1, 2].map(|n| RunId::from_uuid(uuid::Uuid::from_u128(n)));
    let says = Signal::Message(Message { from: "ada".into(), text: "well?".into() });
    let (id, sequence) = publish(&asker, run, &says).await;
    let (wake, woke_at) =
        publish(&asker, run, &Signal::Cancel(ByWhom { by: "ada".into(), reason: String::new() })).await;
    let (_, of_other) = publish(&asker, other, &says).await;

    let holds = Holds::default();
    let mut hold = holds.enter(run, AgentName::try_new("coder").unwrap(), 2, Some(wake)).unwrap();
    let answers = answer_for_held(Journal::new(&holder), holds.clone(), "b".into(), CancellationToken::new());
    let asks = async {
        let question = |signal| Question { run, epoch: 2, signal };
        let hears = async { while ask(&asker, question(None)).await != Answer::Holds {} };
        tokio::time::timeout(PATIENCE, hears).await.expect("the holder answers");
        assert_eq!(handed_over(&asker, question(Some(sequence)), &mut hold).await, (Answer::HasTaken, Some(id)));
        for (what, signal) in [("woke the run", woke_at), ("is for another run", of_other), ("is not there", 1_000)] {
            let answer = handed_over(&asker, question(Some(signal)), &mut hold).await;
            assert_eq!(answer, (Answer::Holds, None), "what {what} is not taken");
        }
        let unread = ask(&asker, question(Some(sequence)));
        assert_eq!(unread.await, Answer::Holds, "a holder that is busy is a holder");
        let later = Question { epoch: 3, ..question(Some(sequence)) };
        assert_eq!(ask(&asker, later).await, Answer::Silent, "one that has lost the run takes nothing for it");
        tokio::time::timeout(PATIENCE, hold.lost()).await.expect("and is told");
    };
    tokio::select! {
        answers = answers => panic!("nobody answers any more: {answers:?}"),
        () = asks => {}
    }
}

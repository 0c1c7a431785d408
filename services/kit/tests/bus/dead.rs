//! What is parked can be seen, replayed and dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::HeaderMap;
use kit::bus::Bus;
use kit::class::Classified as _;
use kit::consume::{ErrorClass, Fate, consumer, spawn};
use kit::dead::{self, Parked, Replayed};
use kit::identity::Service;
use kit::journal::Journal;
use kit::service::Context;
use kit::streams::{StreamOptions, ensure};

use crate::consume::{Loop, OPTIONS, Wrong, run_of, wake};
use crate::fixture::{Fixture, cancel, new_run, requested, until};

async fn parked(bus: &Bus, count: usize) -> Vec<Parked> {
    until("parked messages", || async {
        let parked = dead::list(bus, 0, 100).await.unwrap();
        (parked.len() == count).then_some(parked)
    })
    .await
}

#[tokio::test]
async fn a_parked_message_is_handled_again_by_its_service() {
    let fixture = Fixture::start().await;
    let (bus, person) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    let journal = Journal::new(&bus);
    let mended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&mended);
    let run = wake(&journal).await;
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        assert_eq!(run_of(&delivery), run);
        let mended = seen.load(Ordering::SeqCst);
        async move { if mended { Ok(Fate::Ack) } else { Err(Wrong(ErrorClass::Broken)) } }
    });
    let letter = parked(&person, 1).await.remove(0);
    assert_eq!(letter.letter.consumer.as_deref(), Some("agent-runner-wakes"));
    assert_eq!(letter.letter.reason, "it went wrong");
    let error = dead::replay(&person, letter.sequence).await.unwrap_err();
    assert_eq!(error.code(), "dead_still_broken");
    parked(&person, 1).await;
    mended.store(true, Ordering::SeqCst);
    let replayed = dead::replay(&person, letter.sequence).await.unwrap();
    assert_eq!(replayed, Replayed::Handled);
    parked(&person, 0).await;
    // Nothing was added to the run.
    assert_eq!(journal.read(run, 1).await.unwrap().len(), 1);
    reading.stop().await;
}

#[tokio::test]
async fn a_replay_that_takes_long_is_under_way_and_stays_parked_until_it_is_done() {
    let fixture = Fixture::start().await;
    let (bus, person) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    let journal = Journal::new(&bus);
    let (mended, done) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Semaphore::new(0)));
    let (seen, finish) = (Arc::clone(&mended), Arc::clone(&done));
    let (long, short) = (wake(&journal).await, wake(&journal).await);
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        let (mended, finish) = (seen.load(Ordering::SeqCst), Arc::clone(&finish));
        async move {
            if mended && run_of(&delivery) == long {
                finish.acquire().await.unwrap().forget();
            }
            if mended { Ok(Fate::Ack) } else { Err(Wrong(ErrorClass::Broken)) }
        }
    });
    let letters = parked(&person, 2).await;
    let number = |run| letters.iter().find(|parked| parked.letter.subject == requested(run).subject.to_string());
    let (long, short) = (number(long).unwrap().sequence, number(short).unwrap().sequence);
    mended.store(true, Ordering::SeqCst);
    let error = dead::replay(&person, long).await.unwrap_err();
    assert_eq!(error.code(), "dead_under_way");
    assert_eq!(dead::replay(&person, short).await.unwrap(), Replayed::Handled, "others do not wait for it");
    parked(&person, 1).await;
    done.add_permits(2);
    assert_eq!(dead::replay(&person, long).await.unwrap(), Replayed::Handled);
    parked(&person, 0).await;
    reading.stop().await;
}

#[tokio::test]
async fn a_message_that_is_none_is_parked_with_its_reason() {
    let fixture = Fixture::start().await;
    let (bus, person) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    let run = new_run();
    let subject = requested(run).subject.to_string();
    bus.client().publish_with_headers(subject.clone(), HeaderMap::new(), "rubbish".into()).await.unwrap();
    let reading = Loop::start(&bus, OPTIONS, |_| async { Ok(Fate::Ack) });
    let letter = parked(&person, 1).await.remove(0).letter;
    assert_eq!(letter.code, "bad_envelope");
    assert_eq!(letter.subject, subject);
    assert!(letter.reason.contains("is missing"), "{}", letter.reason);
    let error = dead::replay(&person, 1).await.unwrap_err();
    assert_eq!(error.code(), "dead_still_broken");
    dead::drop(&person, 1).await.unwrap();
    assert_eq!(dead::drop(&person, 1).await.unwrap_err().code(), "dead_unknown");
    assert_eq!(dead::show(&person, 1).await.unwrap_err().code(), "dead_unknown");
    reading.stop().await;
}

#[tokio::test]
async fn a_trigger_that_was_never_published_starts_its_run_once() {
    let fixture = Fixture::start().await;
    let (bridge, person) = (fixture.connect(Service::ChatBridge).await, fixture.connect(Service::Nightcrew).await);
    let run = new_run();
    // Twice the same: parked once.
    for _ in 0..2 {
        dead::park_outgoing(&bridge, &requested(run), "unknown_agent", "nobody is called so").await.unwrap();
    }
    let letter = parked(&person, 1).await.remove(0);
    let replayed = dead::replay(&person, letter.sequence).await.unwrap();
    assert!(matches!(replayed, Replayed::Published(_)), "{replayed:?}");
    dead::park_outgoing(&person, &requested(run), "again", "again").await.unwrap();
    // The stream still knows the first letter's id: forget it, and park under another.
    parked(&person, 0).await;
    let mut again = requested(run);
    again.envelope.id = schemas::EventId::new("another-way-to-the-same-run");
    dead::park_outgoing(&person, &again, "again", "again").await.unwrap();
    let letter = parked(&person, 1).await.remove(0);
    let replayed = dead::replay(&person, letter.sequence).await.unwrap();
    assert_eq!(replayed, Replayed::AlreadyThere);
    assert_eq!(Journal::new(&person).read(run, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_trigger_stays_parked_while_the_log_is_too_full_for_new_runs() {
    let fixture = Fixture::with(StreamOptions { swarm_max_bytes: 1024 * 1024, ..StreamOptions::single_node() }).await;
    let (bus, person) = (fixture.runner().await, fixture.connect(Service::Nightcrew).await);
    let run = new_run();
    dead::park_outgoing(&person, &requested(run), "test", "test").await.unwrap();
    let letter = parked(&person, 1).await.remove(0);
    let mut fact = cancel(new_run(), "fact");
    fact.body = vec![b' '; 64 * 1024].into();
    for n in 0..14 {
        fact.envelope.id = schemas::EventId::new(format!("fact {n}"));
        bus.publish(&fact).await.unwrap();
    }

    let error = dead::replay(&person, letter.sequence).await.unwrap_err();
    assert_eq!(error.code(), "log_full", "{error:?}");
    parked(&person, 1).await;
    assert!(Journal::new(&person).last(run).await.unwrap().is_none(), "nothing was started");

    let setup = fixture.connect(Service::Setup).await;
    ensure(&setup, &StreamOptions::single_node()).await.unwrap();
    let replayed = dead::replay(&person, letter.sequence).await.unwrap();
    assert!(matches!(replayed, Replayed::Published(_)), "{replayed:?}");
    parked(&person, 0).await;
}

#[tokio::test]
async fn a_parked_signal_is_published_again() {
    let fixture = Fixture::start().await;
    let person = fixture.connect(Service::Nightcrew).await;
    let run = new_run();
    dead::park_outgoing(&person, &cancel(run, "c"), "test", "test").await.unwrap();
    let letter = parked(&person, 1).await.remove(0);
    let replayed = dead::replay(&person, letter.sequence).await.unwrap();
    assert!(matches!(replayed, Replayed::Published(_)));
    assert_eq!(Journal::new(&person).signals(run, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_can_not_be_parked_waits_and_health_is_red() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let setup = fixture.connect(Service::Setup).await;
    let person = fixture.connect(Service::Nightcrew).await;
    let dead = setup.jetstream().get_stream("DEAD").await.unwrap();
    let mut full = dead.cached_info().config.clone();
    full.max_bytes = 1;
    setup.jetstream().update_stream(full).await.unwrap();

    let journal = Journal::new(&bus);
    let context = Context::new("test");
    context.ready();
    spawn(&context, &bus, consumer::RUNNER_WAKE, OPTIONS, |_| async { Err::<Fate, _>(Wrong(ErrorClass::Broken)) });
    let run = wake(&journal).await;
    until("red health", || async { (!context.health.is_ready()).then_some(()) }).await;
    parked(&person, 0).await;
    // As an upgrade at the next start does it.
    let options = StreamOptions::single_node();
    let report = ensure(&setup, &options).await.unwrap();
    assert_eq!(report.updated[0].0, "DEAD");
    let letter = parked(&person, 1).await.remove(0).letter;
    assert_eq!(letter.subject, requested(run).subject.to_string());
    until("green health", || async { context.health.is_ready().then_some(()) }).await;
    context.begin_shutdown();
    assert!(context.drain(Duration::from_secs(5)).await);
}

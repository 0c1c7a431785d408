//! Every fate of a delivery, and a loop that outlives what it reads.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kit::bus::Bus;
use kit::consume::{self, Classified, Delivery, Durable, ErrorClass, Fate, Options, consumer};
use kit::dead;
use kit::identity::Service;
use kit::journal::Journal;
use kit::service::Context;
use kit::telemetry::{self, TelemetryConfig};
use schemas::RunId;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::fixture::{Fixture, new_run, requested, soon, until};

#[derive(Debug, thiserror::Error)]
#[error("it went wrong")]
pub(crate) struct Wrong(pub(crate) ErrorClass);

impl Classified for Wrong {
    fn class(&self) -> ErrorClass {
        self.0
    }

    fn code(&self) -> &'static str {
        "wrong"
    }
}

pub(crate) const OPTIONS: Options = Options { max_in_flight: 4, progress_every: None };

/// A running loop over the wakes.
pub(crate) struct Loop {
    shutdown: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), consume::ConsumeError>>,
}

impl Loop {
    pub(crate) fn start<H, F>(bus: &Bus, options: Options, handler: H) -> Self
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Fate, Wrong>> + Send + 'static,
    {
        Self::over(consumer::RUNNER_WAKE, bus, options, handler)
    }

    pub(crate) fn over<H, F>(consumer: Durable, bus: &Bus, options: Options, handler: H) -> Self
    where
        H: Fn(Delivery) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Fate, Wrong>> + Send + 'static,
    {
        let shutdown = CancellationToken::new();
        let task =
            tokio::spawn(consume::run(bus.clone(), consumer, options, handler, shutdown.clone(), TaskTracker::new()));
        Self { shutdown, task }
    }

    pub(crate) async fn stop(self) {
        self.shutdown.cancel();
        soon("the end of the loop", self.task).await.unwrap().unwrap();
    }
}

/// Puts a wake into the log.
pub(crate) async fn wake(journal: &Journal) -> RunId {
    let run = new_run();
    journal.append(run, 0, requested(run)).await.unwrap();
    run
}

pub(crate) fn run_of(delivery: &Delivery) -> RunId {
    delivery.stored.run_id().expect("a run")
}

/// Messages that are in hand or waiting.
async fn unacked(bus: &Bus) -> usize {
    let stream = bus.jetstream().get_stream("SWARM").await.unwrap();
    let info = stream.consumer_info(consumer::RUNNER_WAKE.name).await.unwrap();
    info.num_ack_pending + usize::try_from(info.num_pending).unwrap()
}

async fn nothing_left(bus: &Bus) {
    until("everything acked", || async { (unacked(bus).await == 0).then_some(()) }).await;
}

/// Waits for a run's wake; an earlier one may come again.
async fn arrives(arrivals: &mut mpsc::Receiver<RunId>, run: RunId) {
    while soon("a wake", arrivals.recv()).await.expect("a loop") != run {}
}

/// What was logged.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_a_handler_logs_is_its_services() {
    let lines = Lines::default();
    let format = telemetry::Format::Json;
    let config = TelemetryConfig { service: "process".to_owned(), format, filter: "info".to_owned(), log_dir: None };
    let (subscriber, _guard) = telemetry::subscriber(&config, telemetry::Output::json(lines.clone())).unwrap();
    // All of this test runs on this thread.
    let _default = tracing::subscriber::set_default(subscriber);
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let context = Context::new("process").child("agent-runner");
    consume::spawn(&context, &bus, consumer::RUNNER_WAKE, OPTIONS, |_| async {
        tracing::info!("in hand");
        Ok::<_, Wrong>(Fate::Ack)
    });
    wake(&Journal::new(&bus)).await;
    nothing_left(&bus).await;
    let logged = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let line = logged.lines().find(|line| line.contains("in hand")).unwrap();
    assert!(line.contains("\"service\":\"agent-runner\""), "{line}");
    context.begin_shutdown();
}

#[tokio::test]
async fn each_wake_arrives_once_and_is_acked() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let (arrived, mut arrivals) = mpsc::channel(64);
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        let arrived = arrived.clone();
        async move {
            arrived.send(run_of(&delivery)).await.unwrap();
            Ok(Fate::Ack)
        }
    });
    for _ in 0..20 {
        let run = new_run();
        journal.append(run, 0, requested(run)).await.unwrap();
        assert_eq!(soon("a wake", arrivals.recv()).await.unwrap(), run);
    }
    nothing_left(&bus).await;
    reading.stop().await;
}

#[tokio::test]
async fn later_and_transient_come_again_and_abandoned_ones_lapse() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let seen: Arc<Mutex<HashMap<RunId, Vec<u64>>>> = Arc::default();
    let runs = [wake(&journal).await, wake(&journal).await, wake(&journal).await];
    let noted = Arc::clone(&seen);
    let started = Instant::now();
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        let run = run_of(&delivery);
        noted.lock().unwrap().entry(run).or_default().push(delivery.attempt);
        async move {
            if delivery.attempt > 1 {
                return Ok(Fate::Ack);
            }
            match runs.iter().position(|own| *own == run) {
                Some(0) => Ok(Fate::Later(Duration::from_millis(100))),
                Some(1) => Err(Wrong(ErrorClass::Transient)),
                _ => Ok(Fate::Abandon),
            }
        }
    });
    nothing_left(&bus).await;
    let seen = seen.lock().unwrap().clone();
    for run in runs {
        assert_eq!(seen[&run], [1, 2]);
    }
    // Nobody but its ack wait brought the abandoned one back.
    assert!(started.elapsed() >= consumer::RUNNER_WAKE.ack_wait);
    reading.stop().await;
}

#[tokio::test]
async fn refused_ones_are_done_and_broken_ones_parked() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let refused = wake(&journal).await;
    let broken = wake(&journal).await;
    let panicking = wake(&journal).await;
    let reading = Loop::start(&bus, OPTIONS, move |delivery| async move {
        let run = run_of(&delivery);
        assert!(run != panicking, "so it is");
        Err(Wrong(if run == refused { ErrorClass::Refused } else { ErrorClass::Broken }))
    });
    nothing_left(&bus).await;
    let parked = dead::list(&fixture.connect(Service::Nightcrew).await, 0, 10).await.unwrap();
    let mut codes: Vec<_> = parked.iter().map(|parked| parked.letter.code.clone()).collect();
    codes.sort();
    assert_eq!(codes, ["panic", "wrong"]);
    let subject = requested(broken).subject.to_string();
    assert!(parked.iter().any(|parked| parked.letter.subject == subject));
    reading.stop().await;
}

#[tokio::test]
async fn a_message_in_hand_is_extended_while_its_handler_works() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let deliveries = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&deliveries);
    let options = Options { progress_every: Some(Duration::from_secs(1)), ..OPTIONS };
    wake(&journal).await;
    let work = consumer::RUNNER_WAKE.ack_wait * 2;
    let reading = Loop::start(&bus, options, move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::time::sleep(work).await;
            Ok(Fate::Ack)
        }
    });
    nothing_left(&bus).await;
    assert_eq!(deliveries.load(Ordering::SeqCst), 1);
    reading.stop().await;
}

#[tokio::test]
async fn no_more_is_in_hand_than_allowed_and_all_is_done() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    for _ in 0..100 {
        wake(&journal).await;
    }
    let in_hand = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let handled = Arc::new(AtomicUsize::new(0));
    let (now, top, all) = (in_hand, Arc::clone(&most), Arc::clone(&handled));
    let reading = Loop::start(&bus, OPTIONS, move |_| {
        let (now, top, all) = (Arc::clone(&now), Arc::clone(&top), Arc::clone(&all));
        async move {
            let in_hand = now.fetch_add(1, Ordering::SeqCst) + 1;
            top.fetch_max(in_hand, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(5)).await;
            now.fetch_sub(1, Ordering::SeqCst);
            all.fetch_add(1, Ordering::SeqCst);
            Ok(Fate::Ack)
        }
    });
    nothing_left(&bus).await;
    assert_eq!(handled.load(Ordering::SeqCst), 100);
    assert_eq!(most.load(Ordering::SeqCst), OPTIONS.max_in_flight);
    reading.stop().await;
}

#[tokio::test]
async fn shutdown_finishes_what_is_in_hand_and_takes_nothing_new() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    for _ in 0..10 {
        wake(&journal).await;
    }
    let (began, mut beginnings) = mpsc::channel(64);
    let finished = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&finished);
    let reading = Loop::start(&bus, OPTIONS, move |_| {
        let (began, count) = (began.clone(), Arc::clone(&count));
        async move {
            began.send(()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(300)).await;
            count.fetch_add(1, Ordering::SeqCst);
            Ok(Fate::Ack)
        }
    });
    for _ in 0..OPTIONS.max_in_flight {
        soon("a beginning", beginnings.recv()).await.unwrap();
    }
    reading.stop().await;
    assert_eq!(finished.load(Ordering::SeqCst), OPTIONS.max_in_flight);
    until("the acks", || async { (unacked(&bus).await == 6).then_some(()) }).await;
}

#[tokio::test]
async fn the_loop_outlives_the_server_and_the_consumer() {
    let mut fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let (arrived, mut arrivals) = mpsc::channel(64);
    let reading = Loop::start(&bus, OPTIONS, move |delivery| {
        let arrived = arrived.clone();
        async move {
            arrived.send(run_of(&delivery)).await.unwrap();
            Ok(Fate::Ack)
        }
    });
    let first = wake(&journal).await;
    assert_eq!(soon("a wake", arrivals.recv()).await, Some(first));

    fixture.server.server().kill().await.unwrap();
    fixture.server.server().restart().await.unwrap();
    let second = wake(&journal).await;
    arrives(&mut arrivals, second).await;

    let stream = bus.jetstream().get_stream("SWARM").await.unwrap();
    stream.delete_consumer(consumer::RUNNER_WAKE.name).await.unwrap();
    let third = wake(&journal).await;
    arrives(&mut arrivals, third).await;
    reading.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_was_stopped_for_too_long_leaves_the_delivery_to_its_successor() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let options = Options { progress_every: Some(Duration::from_millis(500)), ..OPTIONS };
    let ack_wait = consumer::RUNNER_WAKE.ack_wait;
    let deliveries = Arc::new(AtomicUsize::new(0));
    let (began, mut beginnings) = mpsc::channel(8);

    // A process of its own as far as it matters: when its one thread is stopped, everything of it is.
    let config = fixture.config(Service::AgentRunner);
    let count = Arc::clone(&deliveries);
    let stopped = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let bus = Bus::connect(&config).await.unwrap();
            let (done, mut ends) = mpsc::channel(8);
            let reading = Loop::start(&bus, options, move |_| {
                count.fetch_add(1, Ordering::SeqCst);
                let (began, done) = (began.clone(), done.clone());
                async move {
                    began.send(()).await.unwrap();
                    std::thread::sleep(ack_wait + Duration::from_secs(1));
                    // Long enough for a sign of life that must not be.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    done.send(()).await.unwrap();
                    Ok(Fate::Later(Duration::ZERO))
                }
            });
            soon("its end", ends.recv()).await.unwrap();
            reading.stop().await;
        });
    });
    wake(&journal).await;
    soon("a beginning", beginnings.recv()).await.unwrap();
    let count = Arc::clone(&deliveries);
    let successor = Loop::start(&bus, options, move |delivery| {
        count.fetch_add(1, Ordering::SeqCst);
        async move {
            assert_eq!(delivery.attempt, 2);
            tokio::time::sleep(2 * ack_wait).await;
            Ok(Fate::Ack)
        }
    });
    nothing_left(&bus).await;
    stopped.join().unwrap();
    assert_eq!(deliveries.load(Ordering::SeqCst), 2);
    successor.stop().await;
}

//! The life of a service: readiness, the fate of tasks, and an end in order.

use std::{
    io::{self, BufRead, BufReader},
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use kit::service::{self, Check, Context, Ended, GRACE, Health, RunError};
use rustix::process::{Pid, Signal, kill_process};

/// Set for a copy of this test binary that plays a service.
const ROLE: &str = "KIT_TEST_ROLE";

#[test]
fn ready_is_said_and_every_check_is_green() {
    let context = Context::new("issuer");
    assert!(!context.health.is_ready(), "starting");
    context.health.set("bus", Check::Starting);
    context.ready();
    assert!(!context.health.is_ready(), "the bus is not there yet");
    context.health.set("bus", Check::Green);
    assert!(context.health.is_ready());
    context.health.set("bus", Check::Red("lost".into()));
    assert_eq!(context.health.report().problems(), ["bus: lost"]);
    assert!(!Health::new("empty").is_ready(), "nothing was said");
}

#[test]
fn a_process_is_ready_when_all_of_its_services_are() {
    let process = Context::new("nightcrew");
    let (proxy, bridge) = (process.child("budget-proxy"), process.child("chat-bridge"));
    process.ready();
    proxy.ready();
    assert!(proxy.health.is_ready());
    assert!(!process.health.is_ready());
    bridge.ready();
    assert!(process.health.is_ready());
    bridge.health.set("sync", Check::Red("stalled".into()));
    assert!(proxy.health.is_ready(), "a service answers for itself");
    assert_eq!(process.health.report().problems(), ["chat-bridge/sync: stalled"]);
    assert_eq!(bridge.health.report().problems(), ["sync: stalled"]);
}

#[tokio::test]
async fn readiness_can_be_waited_for() {
    let context = Context::new("issuer");
    let health = context.health.clone();
    let waiting = async move { health.until_ready().await };
    let ((), ()) = tokio::join!(waiting, async { context.ready() });
}

#[test]
fn the_report_is_what_the_wire_says() {
    let health = Health::new("chat-bridge");
    health.set("sync", Check::Red("token revoked".into()));
    health.set("bus", Check::Green);
    assert_eq!(
        serde_json::to_value(health.report()).unwrap(),
        serde_json::json!({
            "service": "chat-bridge",
            "ready": false,
            "checks": {"bus": {"status": "green"}, "sync": {"status": "red", "reason": "token revoked"}},
        })
    );
}

/// Runs a process whose service waits for the end, with `start` to give it tasks.
async fn end_of(start: impl FnOnce(&Context)) -> Result<(), RunError<io::Error>> {
    let context = Context::new("agent-runner");
    start(&context);
    let shutdown = context.shutdown.clone();
    service::run(&context, GRACE, async move {
        shutdown.cancelled().await;
        Ok(())
    })
    .await
}

fn reason(result: Result<(), RunError<io::Error>>) -> Ended {
    match result {
        Err(RunError::Ended(ended)) => ended,
        other => panic!("it should have ended with the reason of a task, not {other:?}"),
    }
}

#[tokio::test]
async fn a_vital_task_that_fails_ends_the_process_with_its_reason() {
    #[derive(Debug, thiserror::Error)]
    #[error("can not fold the log")]
    struct Fold(#[source] io::Error);

    let result = end_of(|context| {
        context.spawn_vital("fold", async { Err(Fold(io::Error::other("stream is gone"))) });
    });
    let ended = reason(result.await);
    assert_eq!((ended.service.as_str(), ended.task.as_str()), ("agent-runner", "fold"));
    assert_eq!(ended.reason, "can not fold the log: stream is gone");
}

/// A panic of the type of a task's end.
fn fails<T>(message: &str) -> T {
    panic!("{message}")
}

#[tokio::test]
async fn a_vital_task_that_panics_or_returns_ends_the_process_too() {
    let panicked = end_of(|context| context.spawn_vital("loop", async { fails::<()>("index 4 of 3") })).await;
    assert_eq!(reason(panicked).reason, "panicked: index 4 of 3");
    let returned = end_of(|context| context.spawn_vital("loop", async {})).await;
    assert_eq!(reason(returned).reason, "it returned, which it never should");
}

#[tokio::test]
async fn a_vital_task_of_a_child_ends_the_whole_process() {
    let ended = reason(
        end_of(|context| {
            let child = context.child("chat-bridge");
            child.spawn_vital("sync", async { Err("token revoked") });
        })
        .await,
    );
    assert_eq!(ended.to_string(), "sync of chat-bridge ended: token revoked");
}

#[tokio::test]
async fn a_minor_task_concerns_nobody() {
    let context = Context::new("agent-runner");
    context.spawn_minor("notice", async { Err::<(), _>("not reached") });
    context.spawn_minor("panics", async { fails::<()>("oh") });
    assert!(context.drain(GRACE).await);
    assert_eq!(context.ended(), None);
    assert!(!context.shutdown.is_cancelled());
}

#[tokio::test]
async fn the_end_is_not_ready_first_and_waits_for_what_is_in_hand() {
    let context = Context::new("agent-runner");
    context.ready();
    let (told, mut order) = tokio::sync::mpsc::channel(8);
    let child = context.child("part");
    child.ready();
    let (health, shutdown) = (context.health.clone(), child.shutdown.clone());
    child.spawn_vital("pull", async move {
        shutdown.cancelled().await;
        told.send(health.is_ready()).await.unwrap();
        tokio::task::yield_now().await;
        told.send(health.is_ready()).await.unwrap();
    });

    let result: Result<(), RunError<io::Error>> = service::run(&context, GRACE, async { Ok(()) }).await;
    assert!(result.is_ok(), "a task that ends after shutdown ended well: {result:?}");
    assert_eq!((order.try_recv(), order.try_recv()), (Ok(false), Ok(false)));
}

#[tokio::test]
async fn what_does_not_end_within_the_grace_period_is_dropped() {
    let context = Context::new("agent-runner");
    context.spawn_minor("stuck", std::future::pending::<()>());
    let grace = Duration::from_millis(1);
    let result: Result<(), RunError<io::Error>> = service::run(&context, grace, async { Ok(()) }).await;
    assert!(matches!(result, Err(RunError::Grace { .. })));
}

#[test]
fn the_first_signal_ends_in_order() {
    let (mut child, mut said) = play("orderly");
    wait_for(&mut said, "ready");
    send(&child, Signal::TERM);
    wait_for(&mut said, "stopping");
    wait_for(&mut said, "done");
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn the_second_signal_ends_at_once() {
    let (mut child, mut said) = play("stubborn");
    wait_for(&mut said, "ready");
    send(&child, Signal::INT);
    wait_for(&mut said, "stopping");
    send(&child, Signal::TERM);
    assert_eq!(child.wait().unwrap().code(), Some(128 + 15));
}

/// Not a test by itself: what the copy of this binary runs.
#[tokio::test]
async fn play_a_service() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let context = Context::new("played");
    let shutdown = context.shutdown.clone();
    let service = async move {
        println!("\nready");
        shutdown.cancelled().await;
        println!("\nstopping");
        if role == "stubborn" {
            std::future::pending::<()>().await;
        }
        Ok::<(), io::Error>(())
    };
    let result = service::run(&context, Duration::from_mins(1), service).await;
    println!("\ndone");
    result.unwrap();
}

fn play(role: &str) -> (Child, BufReader<ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "life::play_a_service", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let said = BufReader::new(child.stdout.take().unwrap());
    (child, said)
}

/// Reads on until the child says `what`; its end is the deadline.
fn wait_for(said: &mut BufReader<ChildStdout>, what: &str) {
    let mut heard = String::new();
    while said.read_line(&mut heard).unwrap() > 0 {
        if heard.lines().last() == Some(what) {
            return;
        }
    }
    panic!("the child ended without saying {what:?}, but {heard:?}");
}

fn send(child: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

//! A proxy that is lost between what a call cost and what is known of it.

use std::sync::mpsc;

use budget_proxy::probe::{Point, Probe};
use schemas::call::CallOutcome;
use tokio::task::JoinSet;

use crate::client::{Api, BOTH, hear};
use crate::stage::{Setting, Stage, until};

const RULES: &str = "
  - name: plain
    when: {last_user: plain}
    reply: {text: 'Plain: 0123456789'}
";

/// A stage whose first proxy stops at `place` and goes on no more, and what is told when it stands there.
async fn stopping(place: Point) -> (Stage, mpsc::Receiver<()>) {
    let (stopped, stands) = mpsc::sync_channel(1);
    let probe = Probe::new(move |_, at| {
        if at == place {
            stopped.send(()).unwrap();
            // What it sent before goes out on another thread. This one goes with the process.
            tokio::task::block_in_place(|| {
                loop {
                    std::thread::park();
                }
            });
        }
    });
    let stage = Stage::with(RULES, Setting { probe, ..Setting::default() }).await;
    (stage, stands)
}

/// Asks, ends the proxy where it stands once `recorded` calls are on record, and asks another proxy the same. Gives how many
/// calls were paid and how many are on record.
async fn lost_at(place: Point, api: Api, recorded: usize) -> (usize, usize) {
    let (mut stage, stands) = stopping(place).await;
    let (run, caller) = stage.caller().await;
    let mut asking = JoinSet::new();
    asking.spawn(async move {
        let body = crate::client::question(api, "plain", false);
        caller.call(api, "k", &body).send().await
    });
    until("a proxy that stands", || async { stands.try_recv().ok() }).await;
    until("its record", || async { (stage.recorded(run.id).await == recorded).then_some(()) }).await;
    stage.kill_proxy().await;
    drop(asking);

    let again = stage.caller_of(&run).await.ask(api, "k", "plain", false).await;
    assert!(!again.headers().contains_key("idempotent-replayed"), "{api:?}: nothing was kept");
    assert!(hear(again).await.whole);
    let records = stage.records(run.id, recorded + 1).await;
    assert!(records.iter().all(|record| record.idempotency_key == "k" && !record.usage_estimated), "{records:#?}");
    assert_eq!(records.last().unwrap().outcome, CallOutcome::Completed);

    // From now on it is as if nothing had been.
    let kept = stage.caller_of(&run).await.ask(api, "k", "plain", false).await;
    assert_eq!(kept.headers()["idempotent-replayed"], "true", "{api:?}");
    (stage.asked().len(), records.len())
}

#[tokio::test]
async fn a_call_whose_proxy_is_lost_after_its_record_is_paid_twice_and_on_record_twice() {
    for api in BOTH {
        let (paid, on_record) = Box::pin(lost_at(Point::BeforeKeep, api, 1)).await;
        assert_eq!((paid, on_record), (2, 2), "{api:?}");
    }
}

#[tokio::test]
async fn a_call_whose_proxy_is_lost_before_its_record_is_paid_twice_and_on_record_once() {
    for api in BOTH {
        let (paid, on_record) = Box::pin(lost_at(Point::AfterAnswer, api, 0)).await;
        assert_eq!((paid, on_record), (2, 1), "{api:?}");
    }
}

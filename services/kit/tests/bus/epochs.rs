//! Whose epoch is live, and how soon everybody knows.

use std::time::Duration;

use kit::epochs::{EpochError, LiveEpochs, STALE_AFTER};
use kit::identity::Service;
use kit::journal::Journal;
use kit::service::Context;
use schemas::RunId;
use tokio::time::timeout;

use crate::fixture::{Fixture, killed, new_run, requested, soon, started, until};

const WAIT: Duration = Duration::from_secs(10);
const NO_WAIT: Duration = Duration::ZERO;

async fn follow(fixture: &Fixture) -> (LiveEpochs, Context) {
    let context = Context::new("test");
    let bus = fixture.connect(Service::BudgetProxy).await;
    (LiveEpochs::start(&bus, &context).await.unwrap(), context)
}

/// A run that was started, and its epoch.
async fn held(journal: &Journal) -> (RunId, u64) {
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    let id = format!("{run}/started");
    (run, journal.append(run, first, started(run, &id)).await.unwrap())
}

#[tokio::test]
async fn an_epoch_is_live_until_the_next_one_or_the_end() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let before = held(&journal).await;
    let (epochs, _context) = follow(&fixture).await;
    let after = held(&journal).await;
    for (run, epoch) in [before, after] {
        epochs.check(run, epoch, WAIT).await.unwrap();
        let next = journal.append(run, epoch, started(run, &format!("{run}/2"))).await.unwrap();
        epochs.check(run, next, WAIT).await.unwrap();
        let old = epochs.check(run, epoch, NO_WAIT).await.unwrap_err();
        assert!(matches!(old, EpochError::Old { current } if current == next));
        let over = tokio::spawn({
            let epochs = epochs.clone();
            async move { epochs.over(run, next).await }
        });
        journal.append(run, next, killed(run, &format!("{run}/3"))).await.unwrap();
        soon("the end", over).await.unwrap();
        let error = epochs.check(run, next, NO_WAIT).await.unwrap_err();
        assert!(matches!(error, EpochError::Ended), "{error:?}");
    }
}

#[tokio::test]
async fn an_epoch_that_is_not_there_yet_is_awaited_and_no_longer_than_told() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let (epochs, _context) = follow(&fixture).await;
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    let waiting = tokio::spawn({
        let epochs = epochs.clone();
        async move { epochs.check(run, first + 1, WAIT).await }
    });
    let epoch = journal.append(run, first, started(run, "s")).await.unwrap();
    assert_eq!(epoch, first + 1);
    soon("the epoch", waiting).await.unwrap().unwrap();
    let error = epochs.check(run, epoch + 1, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, EpochError::Unknown), "{error:?}");
    let error = epochs.check(new_run(), 1, NO_WAIT).await.unwrap_err();
    assert!(matches!(error, EpochError::Unknown), "{error:?}");
}

#[tokio::test]
async fn a_log_that_is_silent_is_stale_and_a_log_that_returns_is_not() {
    let mut fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let (epochs, _context) = follow(&fixture).await;
    let (run, epoch) = held(&journal).await;
    epochs.check(run, epoch, WAIT).await.unwrap();

    // Hung: nobody is told that the connection is gone.
    fixture.server.server().pause().unwrap();
    let stale = until("a stale fold", || async {
        let checked = epochs.check(run, epoch, NO_WAIT).await;
        checked.err().filter(|error| matches!(error, EpochError::Stale))
    });
    assert!(timeout(3 * STALE_AFTER, stale).await.is_ok());
    fixture.server.server().unpause().unwrap();
    epochs.check(run, epoch, WAIT).await.unwrap();

    fixture.server.server().kill().await.unwrap();
    until("a stale fold", || async {
        let checked = epochs.check(run, epoch, NO_WAIT).await;
        checked.err().filter(|error| matches!(error, EpochError::Stale))
    })
    .await;
    fixture.server.server().restart().await.unwrap();
    // Ended while nobody followed.
    journal.append(run, epoch, killed(run, "k")).await.unwrap();
    let error = until("the end", || async { epochs.check(run, epoch, WAIT).await.err() }).await;
    assert!(matches!(error, EpochError::Ended), "{error:?}");
}

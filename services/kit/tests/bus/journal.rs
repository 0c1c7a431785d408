//! Appends, their conflicts and their lost acks; batches; reads.

use std::collections::HashSet;

use futures::future::join_all;
use kit::class::Classified as _;
use kit::identity::Service;
use kit::journal::{AppendError, Entry, Journal, Misuse};
use schemas::Decision;
use tokio::task::JoinSet;

use crate::fixture::{self, Fixture, cancel, killed, new_run, requested, started};
use crate::proxy::Line;

#[tokio::test]
async fn a_run_is_appended_and_read_in_order() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    let second = journal.append(run, first, started(run, "s")).await.unwrap();
    journal.append(run, second, killed(run, "k")).await.unwrap();

    let read = journal.read(run, first).await.unwrap();
    let kinds: Vec<_> = read.iter().flat_map(|stored| stored.kinds.clone()).collect();
    assert_eq!(kinds, ["requested", "started", "killed"]);
    assert!(read[1].opens_epoch() && read[1].sequence == second);
    assert!(read[2].is_end());
    assert_eq!(read[0].decode::<Decision>().unwrap().events.len(), 1);
    assert_eq!(journal.read(run, 0).await.unwrap(), read);
    assert_eq!(journal.last(run).await.unwrap().as_ref(), read.last());
    assert_eq!(journal.first(run).await.unwrap().as_ref(), read.first());
}

#[tokio::test]
async fn an_unknown_run_is_empty() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    assert!(journal.read(new_run(), 1).await.unwrap().is_empty());
    assert!(journal.last(new_run()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_long_run_is_read_over_several_pages() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let (run, other) = (new_run(), new_run());
    let mut last = journal.append(run, 0, requested(run)).await.unwrap();
    let mut last_of_other = journal.append(other, 0, requested(other)).await.unwrap();
    for n in 0..600 {
        last = journal.append(run, last, started(run, &format!("r{n}"))).await.unwrap();
        last_of_other = journal.append(other, last_of_other, started(other, &format!("o{n}"))).await.unwrap();
    }
    let read = journal.read(run, 1).await.unwrap();
    assert_eq!(read.len(), 601);
    assert!(read.windows(2).all(|pair| pair[0].sequence < pair[1].sequence));
    assert_eq!(read.last().unwrap().sequence, last);
}

#[tokio::test]
async fn of_two_that_append_at_once_one_wins() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    for round in 0..20 {
        let run = new_run();
        let first = journal.append(run, 0, requested(run)).await.unwrap();
        let mut rivals = JoinSet::new();
        for rival in 0..8 {
            // Each on a connection of its own would be no other for the server.
            let journal = journal.clone();
            let message = started(run, &format!("{round}/{rival}"));
            rivals.spawn(async move { journal.append(run, first, message).await });
        }
        let results = rivals.join_all().await;
        let won: Vec<_> = results.iter().flatten().collect();
        assert_eq!(won.len(), 1, "{results:?}");
        for error in results.iter().filter_map(|result| result.as_ref().err()) {
            let AppendError::Conflict { last: Some(last), .. } = error else {
                panic!("{error:?}");
            };
            assert_eq!(last.sequence, *won[0]);
        }
        assert_eq!(journal.read(run, first).await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_repeated_trigger_starts_nothing_new() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    journal.append(run, first, started(run, "s")).await.unwrap();
    // The same message: found, although the run went on.
    assert_eq!(journal.append(run, 0, requested(run)).await.unwrap(), first);
    // Another one for the same run: refused.
    let mut other = requested(run);
    other.envelope.id = schemas::EventId::new("another");
    let error = journal.append(run, 0, other).await.unwrap_err();
    assert_eq!(error.code(), "append_conflict");
    assert_eq!(journal.read(run, first).await.unwrap().len(), 2);
}

#[tokio::test]
async fn an_append_whose_ack_was_lost_is_found_and_not_repeated() {
    let fixture = Fixture::start().await;
    let line = Line::to(&fixture.server.url()).await;
    let creds = fixture.server.creds(Service::AgentRunner);
    let journal = Journal::new(&fixture::connect(&line.url(), Service::AgentRunner, creds).await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    line.cut_at_next_answer();
    let second = journal.append(run, first, started(run, "s")).await.unwrap();
    assert_eq!(second, first + 1);
    line.swallow_next_answer();
    let third = journal.append(run, second, killed(run, "k")).await.unwrap();
    assert_eq!(third, second + 1);
    assert_eq!(journal.read(run, first).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_lost_ack_and_a_successor_is_still_found() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    let mine = started(run, "mine");
    let second = journal.append(run, first, mine.clone()).await.unwrap();
    journal.append(run, second, started(run, "theirs")).await.unwrap();
    // As a client asks whose ack was lost and that comes back late.
    assert_eq!(journal.append(run, first, mine).await.unwrap(), second);
    let error = journal.append(run, first, started(run, "new")).await.unwrap_err();
    assert_eq!(error.code(), "append_conflict");
}

#[tokio::test]
async fn a_batch_is_whole_or_not_there() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let (parent, child) = (new_run(), new_run());
    let first = journal.append(parent, 0, requested(parent)).await.unwrap();
    let sequences = journal
        .append_batch(vec![
            Entry::journal(parent, first, started(parent, "handed")),
            Entry::journal(child, 0, requested(child)),
            Entry::beside(cancel(parent, "c")),
        ])
        .await
        .unwrap();
    assert_eq!(sequences, [first + 1, first + 2, first + 3]);
    assert_eq!(journal.signals(parent, first).await.unwrap().len(), 1);

    let stranger = new_run();
    let error = journal
        .append_batch(vec![
            Entry::journal(stranger, 0, requested(stranger)),
            Entry::journal(parent, first, started(parent, "stale")),
        ])
        .await
        .unwrap_err();
    let AppendError::Conflict { run, last } = error else {
        panic!("{error:?}");
    };
    assert_eq!(run, parent);
    assert_eq!(last.unwrap().sequence, first + 1);
    assert!(journal.last(stranger).await.unwrap().is_none());
}

#[tokio::test]
async fn a_batch_that_comes_again_is_found_and_not_repeated() {
    let fixture = Fixture::start().await;
    let line = Line::to(&fixture.server.url()).await;
    let creds = fixture.server.creds(Service::AgentRunner);
    let journal = Journal::new(&fixture::connect(&line.url(), Service::AgentRunner, creds).await);
    let (a, b) = (new_run(), new_run());
    let batch = vec![Entry::journal(a, 0, requested(a)), Entry::journal(b, 0, requested(b))];
    line.cut_at_next_answer();
    let once = journal.append_batch(batch.clone()).await.unwrap();
    let twice = journal.append_batch(batch).await.unwrap();
    assert_eq!(once, twice);
    assert_eq!(journal.read(a, 1).await.unwrap().len(), 1);
    assert_eq!(journal.read(b, 1).await.unwrap().len(), 1);
}

#[tokio::test]
async fn more_batches_than_the_server_allows_at_once_all_get_in() {
    let fixture = Fixture::start().await;
    // Three connections with 32 places each are more than the 50 of the server.
    let mut buses = Vec::new();
    for _ in 0..3 {
        buses.push(Journal::new(&fixture.runner().await));
    }
    let batches = (0..300).map(|n| {
        let journal = buses[n % 3].clone();
        async move {
            let (a, b) = (new_run(), new_run());
            let entries = vec![Entry::journal(a, 0, requested(a)), Entry::journal(b, 0, requested(b))];
            journal.append_batch(entries).await
        }
    });
    let results = join_all(batches).await;
    let sequences: HashSet<u64> = results.into_iter().flat_map(Result::unwrap).collect();
    assert_eq!(sequences.len(), 600);
}

#[tokio::test]
async fn what_breaks_the_rules_is_refused_before_it_is_sent() {
    let fixture = Fixture::start().await;
    let bus = fixture.runner().await;
    let journal = Journal::new(&bus);
    let (run, other) = (new_run(), new_run());
    let misuse = |result: Result<Vec<u64>, AppendError>| match result {
        Err(AppendError::Misuse(misuse)) => misuse,
        other => panic!("{other:?}"),
    };
    let error = journal.append(run, 0, requested(other)).await.unwrap_err();
    assert!(matches!(error, AppendError::Misuse(Misuse::OtherRun { .. })));
    let twice = vec![Entry::journal(run, 0, requested(run)), Entry::journal(run, 0, started(run, "s"))];
    assert_eq!(misuse(journal.append_batch(twice).await), Misuse::RunTwice { run });
    let unexpected = vec![Entry::beside(started(run, "s"))];
    assert!(matches!(misuse(journal.append_batch(unexpected).await), Misuse::Expectation { .. }));
    let without = vec![Entry::beside(cancel(run, "c"))];
    assert_eq!(misuse(journal.append_batch(without).await), Misuse::NoJournal);
    assert_eq!(bus.publish(&requested(run)).await.unwrap_err().code(), "publish_journal");
    assert!(journal.last(run).await.unwrap().is_none());
}

#[tokio::test]
async fn a_message_that_is_too_large_is_told_so() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let run = new_run();
    let mut message = requested(run);
    message.body = vec![b' '; 2 * 1024 * 1024].into();
    let error = journal.append(run, 0, message).await.unwrap_err();
    assert_eq!(error.code(), "message_too_large");
}

#[tokio::test]
async fn a_service_without_the_right_is_told_so() {
    let fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.connect(Service::ChatBridge).await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    let error = journal.append(run, first, started(run, "s")).await.unwrap_err();
    assert_eq!(error.code(), "bus_forbidden");
}

#[tokio::test]
async fn appends_go_on_when_the_server_was_restarted() {
    let mut fixture = Fixture::start().await;
    let journal = Journal::new(&fixture.runner().await);
    let run = new_run();
    let first = journal.append(run, 0, requested(run)).await.unwrap();
    fixture.server.server().stop().await.unwrap();
    let waiting = tokio::spawn({
        let journal = journal.clone();
        async move { journal.append(run, first, started(run, "s")).await }
    });
    fixture.server.server().restart().await.unwrap();
    let second = fixture::soon("an append", waiting).await.unwrap().unwrap();
    assert_eq!(journal.read(run, first).await.unwrap().len(), 2);
    assert_eq!(second, journal.last(run).await.unwrap().unwrap().sequence);
}

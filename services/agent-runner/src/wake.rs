//! Wakes: what makes this process take a run.
//!
//! Consumes `requested` (first wake), `swarm.signal.>` (second wake) and due ticks. Emits the journal of the runs that
//! it takes. Idempotency: the journal decides; a wake of a run that has ended or waits is acknowledged. Ordering: none
//! is needed, a run's appends are ordered by their expected sequence. On failure: a wake is acknowledged only after its
//! run has ended or waits; until then it is kept by in-progress acks, and given up without any ack when another runner
//! holds the run.

mod look;

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kit::{
    clock,
    consume::{Classified, Delivery, ErrorClass, Fate},
    journal::ReadError,
    message::{DecodeError, Stored},
};
use schemas::{
    Decision, RunEvent, RunId, Signal,
    event::{Requested, WaitReason},
    signal::ByWhom,
};
use tokio::sync::Semaphore;
use tracing::Instrument as _;

use crate::{
    controls::Standing,
    harness::{Harness, Release},
    hold::{Held, HoldError},
    holder::{self, Answer, Question},
    holds::{Delivered, Hold, Holds, Mail},
    resume_from,
    run::{Command, Corrupt, End, Phase, RunState},
    runtime::Runtime,
};

use look::{Cause, Look, PAUSE_CHECK, SIGNAL_ELSEWHERE, Signalled, look, wakes};

/// Journals that are read at once. The server reads one after the other for a connection, each for some milliseconds, and
/// what else comes over it waits meanwhile: behind a thousand reads the signs of life of a thousand wakes are too late,
/// and all of these come again, to be read again.
const READS_AT_ONCE: usize = 16;
/// When a wake comes back after this process gave it up at its end.
const GIVEN_UP: Duration = Duration::from_millis(10);

/// Why a wake could not be handled.
#[derive(Debug, thiserror::Error)]
pub enum WakeError {
    /// The message is not what its subject says.
    #[error("the wake can not be read")]
    Decode(#[from] DecodeError),
    /// The journal can not be read now.
    #[error("the journal can not be read")]
    Read(#[from] ReadError),
    /// The journal can not be folded.
    #[error("the journal is corrupt")]
    Corrupt(#[from] Corrupt),
    /// The run can not be driven.
    #[error("the run can not go on")]
    Hold(#[source] HoldError),
    /// The subject names no run.
    #[error("the subject names no run")]
    NoRun,
    /// There is no such run in the log.
    #[error("run {0} is not in the log")]
    UnknownRun(RunId),
}

impl Classified for WakeError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Read(error) => error.class(),
            Self::Decode(_) | Self::Corrupt(_) | Self::Hold(_) | Self::NoRun | Self::UnknownRun(_) => {
                ErrorClass::Broken
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(_) => "unreadable",
            Self::Read(error) => error.code(),
            Self::Corrupt(_) => "corrupt_journal",
            Self::Hold(_) => "run_broken",
            Self::NoRun => "no_run",
            Self::UnknownRun(_) => "unknown_run",
        }
    }
}

/// Handles wakes. Cheap to clone.
#[derive(Clone)]
pub struct Waker {
    runtime: Arc<Runtime>,
    harness: Arc<dyn Harness>,
    holds: Holds,
    reads: Arc<Semaphore>,
}

/// What came of taking a run.
enum Taken {
    /// It was held, or ended at once, and this is what its wake is to get.
    Fate(Fate),
    /// Its journal goes on after what was folded: nothing was written.
    Refused,
}

impl Waker {
    /// A handler that drives with `harness`.
    pub fn new(runtime: Arc<Runtime>, harness: Arc<dyn Harness>, holds: Holds) -> Self {
        Self { runtime, harness, holds, reads: Arc::new(Semaphore::new(READS_AT_ONCE)) }
    }

    /// Handles a `requested`.
    pub async fn requested(self, delivery: Delivery) -> Result<Fate, WakeError> {
        let run = delivery.stored.subject.run_id().ok_or(WakeError::NoRun)?;
        let span = run_span(&delivery.stored, run);
        async {
            if self.is_paused(&delivery.stored)? {
                return Ok(Fate::Later(PAUSE_CHECK));
            }
            self.released(run, Some(&delivery.stored)).await?;
            if delivery.attempt == 1
                && let Some(fate) = self.begin_unread(run, &delivery.stored).await?
            {
                return Ok(fate);
            }
            let state = self.fold(&delivery.stored, run).await?;
            self.wake(Some(state), Cause::Requested).await
        }
        .instrument(span)
        .await
    }

    /// Takes a run of which nothing is known but its first message. When that is delivered for the first time it nearly
    /// always is the whole journal, and reading it would be a look at what is in hand; as with every fold, the first
    /// append says whether it is. Nothing when it is not: then nothing was written, and the journal has to be read.
    async fn begin_unread(&self, run: RunId, first: &Stored) -> Result<Option<Fate>, WakeError> {
        match self.take(fold(run, std::slice::from_ref(first))?, Cause::Requested).await? {
            Taken::Fate(fate) => Ok(Some(fate)),
            Taken::Refused => {
                tracing::info!("the run has gone on since: letting go, and reading it");
                Ok(None)
            }
        }
    }

    /// Handles a signal.
    pub async fn signal(self, delivery: Delivery) -> Result<Fate, WakeError> {
        let stored = &delivery.stored;
        let run = stored.subject.run_id().ok_or(WakeError::NoRun)?;
        let signal: Signal = stored.decode()?;
        if !wakes(&signal) {
            return Ok(Fate::Ack);
        }
        let span = run_span(stored, run);
        let (id, sequence) = (stored.envelope.id.clone(), stored.sequence);
        async {
            match self.holds.deliver(run, id.clone(), signal.clone()).await {
                Delivered::Taken => return Ok(Fate::Ack),
                Delivered::Busy => return Ok(Fate::Later(SIGNAL_ELSEWHERE)),
                Delivered::IsWake => self.released(run, None).await?,
                Delivered::NotHeld => {}
            }
            let state = self.fold_from_first(run).await?;
            self.wake(state, Cause::Signal(Box::new(Signalled { id, sequence, signal }))).await
        }
        .instrument(span)
        .await
    }

    /// Handles the tick of a run's deadline.
    pub async fn due(self, delivery: Delivery) -> Result<Fate, WakeError> {
        let run = delivery.stored.subject.run_id().ok_or(WakeError::NoRun)?;
        let state = self.fold_from_first(run).await?;
        if let Some(state) = &state
            && !matches!(state.phase(), Phase::Ended(_))
            && let Ok(early) = Duration::try_from(state.request().deadline.duration_since(clock::now()))
            && !early.is_zero()
        {
            // The server's clock is ahead of ours. There is no other tick.
            return Ok(Fate::Later(early));
        }
        self.wake(state, Cause::Due).instrument(run_span(&delivery.stored, run)).await
    }

    /// Ends a run that waits and whose agent was killed. Nobody holds it, so nobody else hears of that.
    pub fn end_if_killed(&self, run: RunId) -> BoxFuture<'_, Result<(), WakeError>> {
        Box::pin(async move {
            if !self.runtime.controls.borrow().kills() {
                return Ok(());
            }
            let last = self.runtime.journal.last(run).await?;
            if last.is_none_or(|last| last.is_end() || !last.has("waiting")) {
                return Ok(());
            }
            let Some(state) = self.fold_from_first(run).await? else {
                return Ok(());
            };
            let killed = matches!(self.runtime.controls.borrow().of(&state.request().agent), Standing::Killed(_));
            if killed && matches!(state.phase(), Phase::Waiting(WaitReason::Child | WaitReason::Approval)) {
                self.take(state, Cause::Due).await?;
            }
            Ok(())
        })
    }

    /// Waits until the run is not held here. A holder that has lost it meanwhile may not know, and is told: the log then has
    /// a later message than its own, and only then is the journal read.
    async fn released(&self, run: RunId, first: Option<&Stored>) -> Result<(), WakeError> {
        let Some(position) = self.holds.position(run) else {
            return Ok(());
        };
        if self.runtime.journal.last(run).await?.is_some_and(|last| last.sequence > position) {
            let state = match first {
                Some(first) => self.fold(first, run).await?,
                None => self.fold(&self.first(run).await?, run).await?,
            };
            self.holds.answers(run, state.epoch());
        }
        self.holds.released(run).await;
        Ok(())
    }

    /// The run as its journal has it; nothing of one that is archived, which has ended long ago.
    async fn fold_from_first(&self, run: RunId) -> Result<Option<RunState>, WakeError> {
        let first = self.first(run).await?;
        if first.has("archived") {
            return Ok(None);
        }
        self.fold(&first, run).await.map(Some)
    }

    async fn first(&self, run: RunId) -> Result<Stored, WakeError> {
        self.runtime.journal.first(run).await?.ok_or(WakeError::UnknownRun(run))
    }

    /// A replica that lags may not have all of it, or nothing: what is decided upon that can not be appended, and the wake
    /// comes again.
    async fn fold(&self, first: &Stored, run: RunId) -> Result<RunState, WakeError> {
        // It is never closed.
        let place = self.reads.acquire().await;
        let mut messages = self.runtime.journal.read(run, first.sequence).await?;
        drop(place);
        if messages.is_empty() {
            messages.push(first.clone());
        }
        fold(run, &messages)
    }

    async fn wake(&self, state: Option<RunState>, cause: Cause) -> Result<Fate, WakeError> {
        let Some(state) = state else {
            return Ok(Fate::Ack);
        };
        match look(&state, &cause, self.pauses(state.request())) {
            Look::Done => Ok(Fate::Ack),
            Look::Later(pause) => Ok(Fate::Later(pause)),
            Look::Ask(pause) => match self.ask_holder(&state, &cause).await {
                Answer::Holds => Ok(Fate::Later(pause)),
                Answer::HasTaken => Ok(Fate::Ack),
                Answer::Silent => self.take_or_let_go(state, cause).await,
            },
            Look::Take => self.take_or_let_go(state, cause).await,
        }
    }

    /// Asks who holds the run to say so, and to take the signal that woke it.
    async fn ask_holder(&self, state: &RunState, cause: &Cause) -> Answer {
        let (run, epoch) = (state.run_id(), state.epoch());
        if self.holds.answers(run, epoch) {
            return Answer::Holds;
        }
        let signal = match cause {
            Cause::Signal(signal) => Some(signal.sequence),
            Cause::Requested | Cause::Due => None,
        };
        holder::ask(&self.runtime.bus, Question { run, epoch, signal }).await
    }

    async fn take_or_let_go(&self, state: RunState, cause: Cause) -> Result<Fate, WakeError> {
        match self.take(state, cause).await? {
            Taken::Fate(fate) => Ok(fate),
            Taken::Refused => {
                tracing::info!("another runner was faster: letting go");
                Ok(Fate::Abandon)
            }
        }
    }

    async fn take(&self, state: RunState, cause: Cause) -> Result<Taken, WakeError> {
        let run = state.run_id();
        let wake = match &cause {
            Cause::Signal(signalled) => Some(signalled.id.clone()),
            Cause::Requested | Cause::Due => None,
        };
        let Some(mut hold) = self.holds.enter(run, state.request().agent.clone(), state.epoch() + 1, wake) else {
            return Ok(Taken::Fate(Fate::Later(SIGNAL_ELSEWHERE)));
        };
        let (appender, probe) = (self.runtime.appender.clone(), self.runtime.probe.clone());
        let mut held = Held::new(state, appender, probe, self.runtime.shutdown.clone());
        let released = self.drive(&mut held, &mut hold, cause).await;
        drop(hold);
        let fate = match released {
            Ok(Release::Ended) => Fate::Ack,
            Ok(Release::Waiting) => {
                // A kill that came while it was released: whoever looks after those who wait may have looked before.
                self.end_if_killed(run).await?;
                Fate::Ack
            }
            Ok(Release::Paused) => Fate::Later(PAUSE_CHECK),
            Err(HoldError::Lost) if held.epoch() == 0 => return Ok(Taken::Refused),
            Err(HoldError::Lost) => {
                tracing::info!("another runner holds the run: letting go");
                Fate::Abandon
            }
            Err(HoldError::ShuttingDown) => Fate::Later(GIVEN_UP),
            Err(error) => return Err(WakeError::Hold(error)),
        };
        Ok(Taken::Fate(fate))
    }

    async fn drive(&self, held: &mut Held, hold: &mut Hold, cause: Cause) -> Result<Release, HoldError> {
        hold.preload(self.begin(held, cause)?);
        resume_from::saved_state(&self.runtime, held).await?;
        self.harness.drive(held, hold).await
    }

    /// Decides the take, or the end of a run that may not begin. It is in the log with the first flush.
    fn begin(&self, held: &mut Held, cause: Cause) -> Result<Option<Mail>, HoldError> {
        let standing = self.runtime.controls.borrow().of(held.agent()).clone();
        if let (Phase::Requested, Standing::Stopped(by) | Standing::Killed(by)) = (held.state().phase(), standing) {
            let by = ByWhom { reason: format!("The crew was stopped. {}", by.reason), ..by };
            held.decide(Command::End(End::Kill(by), clock::now()))?;
            return Ok(None);
        }
        if let (Phase::Requested, Cause::Signal(signalled)) = (held.state().phase(), &cause)
            && let Signal::Cancel(by) = &signalled.signal
        {
            held.decide(Command::End(End::Cancel(by.clone()), clock::now()))?;
            return Ok(None);
        }
        held.decide(Command::Take { runner: self.runtime.runner.clone(), harness: self.harness.name().to_owned() })?;
        Ok(match cause {
            Cause::Signal(signalled) => {
                let Signalled { id, signal, .. } = *signalled;
                Some(Mail { id, signal, taken: tokio::sync::oneshot::channel().0 })
            }
            Cause::Requested | Cause::Due => None,
        })
    }

    /// Whether the run is paused, by its first message alone. A thousand paused runs are looked at every two seconds,
    /// which must not cost as many reads of the log. A wake of one that was cancelled meanwhile is kept for longer than it
    /// needs to be, which harms nobody.
    fn is_paused(&self, first: &Stored) -> Result<bool, WakeError> {
        let decision: Decision = first.decode()?;
        let request = decision.events.iter().find_map(|event| match event {
            RunEvent::Requested(request) => Some(request),
            _ => None,
        });
        Ok(request.is_some_and(|request| self.pauses(request)))
    }

    /// Whether the agent is paused, and the run's time is not up.
    fn pauses(&self, request: &Requested) -> bool {
        matches!(self.runtime.controls.borrow().of(&request.agent), Standing::Paused(_))
            && clock::now() < request.deadline
    }
}

fn run_span(stored: &Stored, run: RunId) -> tracing::Span {
    let Some(agent) = &stored.envelope.agent else {
        return tracing::error_span!("run", run = %run);
    };
    kit::telemetry::run_span(run, agent)
}

/// Folds a run's journal, which begins with its first message.
pub fn fold(run: RunId, messages: &[Stored]) -> Result<RunState, WakeError> {
    let (first, rest) = messages.split_first().ok_or(WakeError::UnknownRun(run))?;
    let mut state = RunState::begin(run, first.sequence, first.time, &first.decode::<Decision>()?)?;
    for message in rest {
        state.apply_message(message.sequence, message.body.len() as u64, &message.decode::<Decision>()?)?;
    }
    Ok(state)
}

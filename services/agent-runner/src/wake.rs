//! Wakes: what makes this process take a run.
//!
//! Consumes `requested` (first wake), `swarm.signal.>` (second wake) and due ticks. Emits the journal of the runs that
//! it takes. Idempotency: the journal decides; a wake of a run that has ended or waits is acknowledged. Ordering: none
//! is needed, a run's appends are ordered by their expected sequence. On failure: a wake is acknowledged only after its
//! run has ended or waits; until then it is kept by in-progress acks, and given up without any ack when another runner
//! holds the run.

use std::{sync::Arc, time::Duration};

use kit::{
    bus::Bus,
    clock,
    consume::{Classified, Delivery, ErrorClass, Fate},
    journal::ReadError,
    message::{DecodeError, Stored},
};
use schemas::{Decision, EventId, RunId, Signal, Subject, event::WaitReason, signal::ByWhom};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    controls::Standing,
    harness::{Harness, Release},
    hold::{Held, HoldError},
    holds::{Delivered, Holds, Mail},
    run::{Command, Corrupt, End, Phase, RunState},
    runtime::Runtime,
};

/// How long the holder of a run may stay silent before it is taken for lost.
const HOLDER_SILENCE: Duration = Duration::from_secs(1);
/// When a wake of a run that somebody else holds is looked at again.
const HELD_ELSEWHERE: Duration = Duration::from_secs(2);
/// When a signal for a run that somebody else holds is looked at again: soon, its holder takes it in milliseconds.
const SIGNAL_ELSEWHERE: Duration = Duration::from_millis(250);
/// When a paused run is looked at again.
const PAUSE_CHECK: Duration = Duration::from_secs(2);
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
            Self::Read(_) => ErrorClass::Transient,
            Self::Decode(_) | Self::Corrupt(_) | Self::Hold(_) | Self::NoRun | Self::UnknownRun(_) => {
                ErrorClass::Broken
            }
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(_) => "unreadable",
            Self::Read(_) => "log_unavailable",
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
}

/// What woke the run.
#[expect(clippy::large_enum_variant, reason = "one a wake, handed on and taken apart at once")]
enum Cause {
    Requested,
    Signal(EventId, Signal),
    Due,
}

impl Waker {
    /// A handler that drives with `harness`.
    pub fn new(runtime: Arc<Runtime>, harness: Arc<dyn Harness>, holds: Holds) -> Self {
        Self { runtime, harness, holds }
    }

    /// Handles a `requested`.
    pub async fn requested(self, delivery: Delivery) -> Result<Fate, WakeError> {
        let run = delivery.stored.subject.run_id().ok_or(WakeError::NoRun)?;
        let span = run_span(&delivery.stored, run);
        async {
            self.holds.released(run).await;
            let state = self.fold(run, delivery.stored.sequence).await?;
            self.wake(state, Cause::Requested).await
        }
        .instrument(span)
        .await
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
        let id = stored.envelope.id.clone();
        async {
            match self.holds.deliver(run, id.clone(), signal.clone()).await {
                Delivered::Taken => return Ok(Fate::Ack),
                Delivered::Busy => return Ok(Fate::Later(SIGNAL_ELSEWHERE)),
                Delivered::IsWake => self.holds.released(run).await,
                Delivered::NotHeld => {}
            }
            let state = self.fold_from_first(run).await?;
            self.wake(state, Cause::Signal(id, signal)).await
        }
        .instrument(span)
        .await
    }

    /// Handles the tick of a run's deadline.
    pub async fn due(self, delivery: Delivery) -> Result<Fate, WakeError> {
        let run = delivery.stored.subject.run_id().ok_or(WakeError::NoRun)?;
        let state = self.fold_from_first(run).await?;
        if clock::now() < state.request().deadline {
            return Ok(Fate::Ack);
        }
        self.wake(state, Cause::Due).instrument(run_span(&delivery.stored, run)).await
    }

    async fn fold_from_first(&self, run: RunId) -> Result<RunState, WakeError> {
        let first = self.runtime.journal.first(run).await?.ok_or(WakeError::UnknownRun(run))?;
        self.fold(run, first.sequence).await
    }

    async fn fold(&self, run: RunId, first: u64) -> Result<RunState, WakeError> {
        let messages = self.runtime.journal.read(run, first).await?;
        fold(run, &messages)
    }

    async fn wake(&self, state: RunState, cause: Cause) -> Result<Fate, WakeError> {
        match (state.phase(), &cause) {
            // A run that is held keeps every signal that may be its wake; one that waits has another wake to come.
            (Phase::Waiting(_), Cause::Signal(id, _)) if state.has_taken(id) => return Ok(Fate::Ack),
            (Phase::Waiting(WaitReason::Pause), _) | (Phase::Requested, Cause::Requested) if self.is_paused(&state) => {
                return Ok(Fate::Later(PAUSE_CHECK));
            }
            (Phase::Waiting(WaitReason::Pause) | Phase::Requested, Cause::Requested)
            | (Phase::Waiting(_), Cause::Signal(..) | Cause::Due) => {}
            (Phase::Ended(_), _)
            | (Phase::Waiting(_), Cause::Requested)
            | (Phase::Held | Phase::Requested, Cause::Due) => {
                return Ok(Fate::Ack);
            }
            (Phase::Requested, Cause::Signal(..)) => return Ok(Fate::Later(SIGNAL_ELSEWHERE)),
            (Phase::Held, _) => {
                if self.holder_answers(state.run_id()).await {
                    let pause = if matches!(cause, Cause::Requested) { HELD_ELSEWHERE } else { SIGNAL_ELSEWHERE };
                    return Ok(Fate::Later(pause));
                }
            }
        }
        self.take(state, cause).await
    }

    async fn take(&self, state: RunState, cause: Cause) -> Result<Fate, WakeError> {
        let run = state.run_id();
        let wake = match &cause {
            Cause::Signal(id, _) => Some(id.clone()),
            Cause::Requested | Cause::Due => None,
        };
        let Some(mut hold) = self.holds.enter(run, wake) else {
            return Ok(Fate::Later(SIGNAL_ELSEWHERE));
        };
        let mut held = Held::new(state, self.runtime.journal.clone(), self.runtime.shutdown.clone());
        let released = match self.begin(&mut held, cause) {
            Ok(mail) => {
                hold.preload(mail);
                self.harness.drive(&mut held, &mut hold).await
            }
            Err(error) => Err(error),
        };
        drop(hold);
        match released {
            Ok(Release::Ended | Release::Waiting) => Ok(Fate::Ack),
            Ok(Release::Paused) => Ok(Fate::Later(PAUSE_CHECK)),
            Err(HoldError::Lost) => {
                tracing::info!("another runner holds the run: letting go");
                Ok(Fate::Abandon)
            }
            Err(HoldError::ShuttingDown) => Ok(Fate::Later(GIVEN_UP)),
            Err(error) => Err(WakeError::Hold(error)),
        }
    }

    /// Decides the take, or the end of a run that may not begin. It is in the log with the first flush.
    fn begin(&self, held: &mut Held, cause: Cause) -> Result<Option<Mail>, HoldError> {
        let standing = self.runtime.controls.borrow().of(held.agent()).clone();
        if let (Phase::Requested, Standing::Stopped(by) | Standing::Killed(by)) = (held.state().phase(), standing) {
            let by = ByWhom { reason: format!("The crew was stopped. {}", by.reason), ..by };
            held.decide(Command::End(End::Kill(by), clock::now()))?;
            return Ok(None);
        }
        held.decide(Command::Take { runner: self.runtime.runner.clone(), harness: self.harness.name().to_owned() })?;
        Ok(match cause {
            Cause::Signal(id, signal) => Some(Mail { id, signal, taken: tokio::sync::oneshot::channel().0 }),
            Cause::Requested | Cause::Due => None,
        })
    }

    fn is_paused(&self, state: &RunState) -> bool {
        matches!(self.runtime.controls.borrow().of(&state.request().agent), Standing::Paused(_))
    }

    /// Asks whoever holds the run to say so. Silence counts only on a connected bus.
    async fn holder_answers(&self, run: RunId) -> bool {
        if self.holds.contains(run) {
            return true;
        }
        let question = self.runtime.bus.client().request(Subject::Hold(run).to_string(), "".into());
        match tokio::time::timeout(HOLDER_SILENCE, question).await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) | Err(_) => !self.runtime.bus.is_connected(),
        }
    }
}

fn run_span(stored: &Stored, run: RunId) -> tracing::Span {
    let nobody = || tracing::error_span!("run", run = %run);
    stored.envelope.agent.as_ref().map_or_else(nobody, |agent| kit::telemetry::run_span(run, agent))
}

/// Whether a signal can lead to a step of the run. The others are facts for readers of the log.
const fn wakes(signal: &Signal) -> bool {
    matches!(
        signal,
        Signal::ChildEnded(_)
            | Signal::Message(_)
            | Signal::Cancel(_)
            | Signal::ApprovalDecided(_)
            | Signal::Unpaused(_)
            | Signal::Deadline(_)
    )
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

/// Answers for the runs that this process holds, until the end.
///
/// Consumes `swarm.hold.*`. Emits a reply, or nothing for a run that is not held here. On failure: a lost question is
/// asked again with the next delivery of the wake.
pub async fn answer_for_held(
    bus: Bus,
    holds: Holds,
    runner: String,
    shutdown: CancellationToken,
) -> Result<(), async_nats::SubscribeError> {
    use futures::StreamExt as _;
    let mut questions = bus.client().subscribe(schemas::subject::filter::HOLDS).await?;
    loop {
        let question = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(question) = questions.next() => question,
        };
        let held = question
            .subject
            .parse::<Subject>()
            .ok()
            .and_then(|subject| subject.run_id())
            .is_some_and(|run| holds.contains(run));
        if let (true, Some(reply)) = (held, question.reply) {
            let _ = bus.client().publish(reply, runner.clone().into()).await;
        }
    }
}

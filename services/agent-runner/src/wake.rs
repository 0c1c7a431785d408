//! Wakes: what makes this process take a run.
//!
//! Consumes `requested` (first wake), `swarm.signal.>` (second wake) and due ticks. Emits the journal of the runs that
//! it takes. Idempotency: the journal decides; a wake of a run that has ended or waits is acknowledged. Ordering: none
//! is needed, a run's appends are ordered by their expected sequence. On failure: a wake is acknowledged only after its
//! run has ended or waits; until then it is kept by in-progress acks, and given up without any ack when another runner
//! holds the run.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use kit::{
    bus::Bus,
    clock,
    consume::{Classified, Delivery, ErrorClass, Fate},
    journal::ReadError,
    message::{DecodeError, Stored},
};
use schemas::{
    Decision, EventId, RunEvent, RunId, Signal, Subject,
    event::{Requested, WaitReason},
    signal::ByWhom,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::{
    controls::Standing,
    harness::{Harness, Release},
    hold::{Held, HoldError},
    holds::{Delivered, Hold, Holds, Mail},
    resume_from,
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

/// What woke the run.
enum Cause {
    Requested,
    Signal(EventId, Box<Signal>),
    Due,
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
            self.released(&delivery.stored, run).await?;
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
        let id = stored.envelope.id.clone();
        async {
            match self.holds.deliver(run, id.clone(), signal.clone()).await {
                Delivered::Taken => return Ok(Fate::Ack),
                Delivered::Busy => return Ok(Fate::Later(SIGNAL_ELSEWHERE)),
                Delivered::IsWake => self.released(&self.first(run).await?, run).await?,
                Delivered::NotHeld => {}
            }
            let state = self.fold_from_first(run).await?;
            self.wake(state, Cause::Signal(id, Box::new(signal))).await
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

    /// Waits until the run is not held here. A holder that has lost it meanwhile may not know, and is told.
    async fn released(&self, first: &Stored, run: RunId) -> Result<(), WakeError> {
        if self.holds.contains(run) {
            let state = self.fold(first, run).await?;
            self.holds.answers(run, state.epoch());
            self.holds.released(run).await;
        }
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
            Look::Ask(pause) if self.holder_answers(&state).await => Ok(Fate::Later(pause)),
            Look::Ask(_) | Look::Take => match self.take(state, cause).await? {
                Taken::Fate(fate) => Ok(fate),
                Taken::Refused => {
                    tracing::info!("another runner was faster: letting go");
                    Ok(Fate::Abandon)
                }
            },
        }
    }

    async fn take(&self, state: RunState, cause: Cause) -> Result<Taken, WakeError> {
        let run = state.run_id();
        let wake = match &cause {
            Cause::Signal(id, _) => Some(id.clone()),
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
        if let (Phase::Requested, Cause::Signal(_, signal)) = (held.state().phase(), &cause)
            && let Signal::Cancel(by) = &**signal
        {
            held.decide(Command::End(End::Cancel(by.clone()), clock::now()))?;
            return Ok(None);
        }
        held.decide(Command::Take { runner: self.runtime.runner.clone(), harness: self.harness.name().to_owned() })?;
        Ok(match cause {
            Cause::Signal(id, signal) => Some(Mail { id, signal: *signal, taken: tokio::sync::oneshot::channel().0 }),
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

    /// Asks whoever holds the run to say so. Silence counts only on a connected bus.
    async fn holder_answers(&self, state: &RunState) -> bool {
        let (run, epoch) = (state.run_id(), state.epoch());
        if self.holds.answers(run, epoch) {
            return true;
        }
        let question = self.runtime.bus.client().request(Subject::Hold(run).to_string(), epoch.to_string().into());
        match tokio::time::timeout(HOLDER_SILENCE, question).await {
            Ok(Ok(_)) => true,
            Ok(Err(_)) | Err(_) => !self.runtime.bus.is_connected(),
        }
    }
}

fn run_span(stored: &Stored, run: RunId) -> tracing::Span {
    let Some(agent) = &stored.envelope.agent else {
        return tracing::error_span!("run", run = %run);
    };
    kit::telemetry::run_span(run, agent)
}

/// What a wake is to do about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    /// Nothing: the run has ended, or has another wake.
    Done,
    /// Look again.
    Later(Duration),
    /// Take it unless its holder answers; look again when it does.
    Ask(Duration),
    /// Take it.
    Take,
}

/// What a wake is to do about a run that stands so. A run that is held, or paused, has at least one wake that is not
/// acknowledged: when in doubt a wake is kept.
fn look(state: &RunState, cause: &Cause, paused: bool) -> Look {
    let taken = matches!(cause, Cause::Signal(id, _) if state.has_taken(id));
    let cancels = !taken && matches!(cause, Cause::Signal(_, signal) if matches!(**signal, Signal::Cancel(_)));
    match (state.phase(), cause) {
        (Phase::Ended(_), _) | (Phase::Waiting(WaitReason::Child | WaitReason::Approval), Cause::Requested) => {
            Look::Done
        }
        (Phase::Waiting(WaitReason::Child | WaitReason::Approval), _) if taken => Look::Done,
        // What is in the journal is here again because it woke the run: it can wait for the run's end.
        (Phase::Held, Cause::Signal(..)) if !taken => Look::Ask(SIGNAL_ELSEWHERE),
        (Phase::Held, _) => Look::Ask(HELD_ELSEWHERE),
        (Phase::Requested | Phase::Waiting(WaitReason::Pause), _) if cancels => Look::Take,
        (Phase::Requested | Phase::Waiting(WaitReason::Pause), _) if paused => Look::Later(PAUSE_CHECK),
        // A tick is asked for by a holder: the log has more than was read, or its first wake is on its way.
        (Phase::Requested, Cause::Signal(..) | Cause::Due) => Look::Later(SIGNAL_ELSEWHERE),
        (Phase::Requested | Phase::Waiting(_), _) => Look::Take,
    }
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

/// Nobody can be answered any more. Who does not answer loses its runs.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The questions can not be heard.
    #[error("questions for holders can not be heard")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// No more questions will come.
    #[error("questions for holders come no more")]
    Ended,
}

/// Answers for the runs that this process holds, until the end.
///
/// Consumes `swarm.hold.*`: the question for the holder of an epoch or a later one, which is also how one who has taken a
/// run over tells who held it before. Emits a reply, or nothing for a run that is not held here any more. On failure: a
/// lost question is asked again with the next delivery of the wake.
pub async fn answer_for_held(
    bus: Bus,
    holds: Holds,
    runner: String,
    shutdown: CancellationToken,
) -> Result<(), AnswerError> {
    use futures::StreamExt as _;
    let mut questions = bus.client().subscribe(schemas::subject::filter::HOLDS).await?;
    loop {
        let question = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            question = questions.next() => question.ok_or(AnswerError::Ended)?,
        };
        let held = question
            .subject
            .parse::<Subject>()
            .ok()
            .and_then(|subject| subject.run_id())
            .is_some_and(|run| holds.answers(run, epoch_in(&question.payload)));
        if let (true, Some(reply)) = (held, question.reply) {
            let _ = bus.client().publish(reply, runner.clone().into()).await;
        }
    }
}

/// The epoch that a question names; any, when it names none.
fn epoch_in(question: &[u8]) -> u32 {
    std::str::from_utf8(question).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use schemas::{
        AgentName, Class, ProjectId, RunEvent, Trigger,
        event::{ContextLoaded, Requested},
        signal::Message,
    };

    use super::*;
    use crate::run::decide;

    fn requested() -> RunState {
        let run = RunId::from_uuid(uuid::Uuid::from_u128(1));
        let request = Requested {
            project: ProjectId::try_new("test").unwrap(),
            agent: AgentName::try_new("lead").unwrap(),
            class: Class::Resident,
            trigger: Trigger::Command { by: "ada".into(), key: "1".into() },
            rule: "say".into(),
            prompt: "do it".into(),
            context: None,
            reply_to: None,
            parent_run_id: None,
            root_run_id: run,
            depth: 0,
            deadline: Timestamp::MAX,
            work: None,
            state: None,
        };
        let first = Decision { events: vec![RunEvent::Requested(Box::new(request))] };
        RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &first).unwrap()
    }

    fn after(state: &RunState, command: Command) -> RunState {
        decide(state, command).unwrap().0
    }

    fn held() -> RunState {
        let held = after(&requested(), Command::Take { runner: "r".into(), harness: "native".into() });
        let context = ContextLoaded { model: "m".into(), context_window: 9, system: "s".into(), tools: vec![] };
        after(&held, Command::LoadContext(context))
    }

    fn waiting(reason: WaitReason) -> RunState {
        // It has taken a signal before.
        let noted = after(&held(), Command::Note(EventId::new("taken"), "message".into()));
        after(&noted, Command::Wait(reason, None))
    }

    fn ended() -> RunState {
        after(&held(), Command::End(End::Cancel(by()), Timestamp::UNIX_EPOCH))
    }

    fn by() -> ByWhom {
        ByWhom { by: "ada".into(), reason: String::new() }
    }

    fn says(id: &str) -> Cause {
        Cause::Signal(EventId::new(id), Box::new(Signal::Message(Message { from: "ada".into(), text: "well?".into() })))
    }

    fn cancels() -> Cause {
        Cause::Signal(EventId::new("c"), Box::new(Signal::Cancel(by())))
    }

    #[test]
    fn an_ended_run_is_never_taken_again() {
        for cause in [Cause::Requested, Cause::Due, says("new"), cancels()] {
            assert_eq!(look(&ended(), &cause, false), Look::Done);
        }
    }

    #[test]
    fn a_run_that_waits_has_signals_and_its_deadline_for_wakes() {
        for reason in [WaitReason::Child, WaitReason::Approval] {
            let state = waiting(reason);
            assert_eq!(look(&state, &Cause::Requested, false), Look::Done, "its first wake is acknowledged");
            assert_eq!(look(&state, &says("new"), false), Look::Take);
            assert_eq!(look(&state, &Cause::Due, false), Look::Take);
            assert_eq!(look(&state, &says("taken"), false), Look::Done, "what is in the journal wakes nobody");
            assert_eq!(look(&state, &says("new"), true), Look::Take, "what a child found is journaled, paused or not");
        }
    }

    #[test]
    fn a_held_run_is_taken_only_when_its_holder_is_silent() {
        assert_eq!(look(&held(), &Cause::Requested, false), Look::Ask(HELD_ELSEWHERE));
        assert_eq!(look(&held(), &says("new"), false), Look::Ask(SIGNAL_ELSEWHERE));
        let noted = after(&held(), Command::Note(EventId::new("taken"), "message".into()));
        assert_eq!(look(&noted, &says("taken"), false), Look::Ask(HELD_ELSEWHERE));
    }

    #[test]
    fn a_pause_keeps_the_wake_and_lets_only_a_cancel_through() {
        for state in [requested(), waiting(WaitReason::Pause)] {
            assert_eq!(look(&state, &Cause::Requested, true), Look::Later(PAUSE_CHECK));
            assert_eq!(look(&state, &cancels(), true), Look::Take);
            assert_eq!(look(&state, &Cause::Requested, false), Look::Take);
        }
        assert_eq!(look(&requested(), &says("new"), false), Look::Later(SIGNAL_ELSEWHERE), "its own wake takes it");
    }

    #[test]
    fn only_what_can_lead_to_a_step_wakes() {
        let delivered = schemas::signal::Delivered {
            decision_id: EventId::new("d"),
            channel: "terminal".into(),
            room: "r".into(),
            external_id: "1".into(),
        };
        assert!(wakes(&Signal::Cancel(by())) && wakes(&Signal::Unpaused(by())));
        assert!(!wakes(&Signal::Delivered(delivered)));
    }
}

//! What a wake is to do about a run that stands so. Pure.

use std::time::Duration;

use schemas::{EventId, Signal, event::WaitReason};

use crate::run::{Phase, RunState};

/// When a wake of a run that somebody else holds is looked at again.
const HELD_ELSEWHERE: Duration = Duration::from_secs(2);
/// When a signal for a run that somebody else holds is looked at again: soon, its holder takes it in milliseconds.
pub(super) const SIGNAL_ELSEWHERE: Duration = Duration::from_millis(250);
/// When a paused run is looked at again.
pub(super) const PAUSE_CHECK: Duration = Duration::from_secs(2);

/// What woke the run.
pub(super) enum Cause {
    Requested,
    Signal(Box<Signalled>),
    Due,
}

/// A signal and its place in the log.
pub(super) struct Signalled {
    pub(super) id: EventId,
    pub(super) sequence: u64,
    pub(super) signal: Signal,
}

/// What a wake is to do about a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
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
pub(super) fn look(state: &RunState, cause: &Cause, paused: bool) -> Look {
    let taken = matches!(cause, Cause::Signal(signalled) if state.has_taken(&signalled.id));
    let cancels = !taken && matches!(cause, Cause::Signal(signalled) if matches!(signalled.signal, Signal::Cancel(_)));
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
pub(super) const fn wakes(signal: &Signal) -> bool {
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

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kit::for_test;
    use schemas::{
        event::ContextLoaded,
        signal::{ByWhom, Message},
    };

    use super::*;
    use crate::run::{Command, End, decide};

    fn requested() -> RunState {
        let (run, request) = for_test::request("lead");
        let first = for_test::first(request);
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

    fn signalled(id: &str, signal: Signal) -> Cause {
        Cause::Signal(Box::new(Signalled { id: EventId::new(id), sequence: 9, signal }))
    }

    fn says(id: &str) -> Cause {
        signalled(id, Signal::Message(Message { from: "ada".into(), text: "well?".into() }))
    }

    fn cancels() -> Cause {
        signalled("c", Signal::Cancel(by()))
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

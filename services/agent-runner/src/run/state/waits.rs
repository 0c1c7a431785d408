//! When a run may wait: nobody holds it then, so nothing may be under way that only a holder could hear the end of.

use schemas::event::WaitReason;

use super::RunState;

impl RunState {
    /// Why the run may not wait for this; none when it may.
    ///
    /// A pause leaves a model call open that is to be made again under its key, children that run on, and calls that an
    /// earlier holder lost. What is waited for otherwise leaves no model call open, and children leave nothing else.
    pub(super) fn may_not_wait(&self, reason: WaitReason) -> Option<&'static str> {
        if reason != WaitReason::Pause && self.model_call.is_some() {
            return Some("a model call is open");
        }
        let mut own = self.open.values().filter(|open| open.child.is_none());
        match reason {
            WaitReason::Pause if own.any(|open| !self.was_in_flight(open)) => Some("a tool call is running"),
            WaitReason::Child if own.next().is_some() => Some("a tool call is open that is no child's"),
            WaitReason::Child if self.unstarted().next().is_some() => {
                Some("a call that the model asked for was not made")
            }
            WaitReason::Pause | WaitReason::Child | WaitReason::Approval => None,
        }
    }
}

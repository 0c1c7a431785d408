//! What holds of every journal, whatever led to it: a second reading of it, which knows nothing of the run's own fold.

use std::collections::{BTreeMap, BTreeSet};

use schemas::{
    Block, Decision, RunEvent, RunId,
    event::{ChildEnded, HandedOff, ModelCalled, ModelReplied, ToolCalled, ToolReturned, WaitReason},
};

/// The kinds that end a run.
pub(crate) const ENDS: [&str; 4] = schemas::event::END_KINDS;

/// A tool call that has not returned.
struct Open {
    idempotent: bool,
    epoch: u32,
    child: Option<Child>,
}

struct Child {
    run: RunId,
    ended: bool,
}

/// A journal as far as it was read.
#[derive(Default)]
pub(crate) struct Rules {
    /// Kinds of events, and what else is worth being reached.
    pub(crate) seen: BTreeSet<&'static str>,
    ended: bool,
    epoch: u32,
    model: Option<u32>,
    asked: BTreeSet<String>,
    open: BTreeMap<String, Open>,
}

impl Rules {
    /// Reads the journal of a run. Panics where it breaks a rule.
    pub(crate) fn of(journal: &[Decision]) -> Self {
        let mut rules = Self::default();
        for event in journal.iter().flat_map(|decision| &decision.events) {
            rules.read(event);
        }
        rules
    }

    fn read(&mut self, event: &RunEvent) {
        assert!(!self.ended, "the end is the last event, and not followed by {event:?}");
        match event {
            RunEvent::Started(_) | RunEvent::Resumed(_) => self.epoch += 1,
            RunEvent::ModelCalled(call) => self.model_called(call),
            RunEvent::ModelReplied(reply) => self.model_replied(reply),
            RunEvent::ToolCalled(call) => self.tool_called(call),
            RunEvent::ToolReturned(returned) => self.tool_returned(returned),
            RunEvent::HandedOff(handed) => self.handed_off(handed),
            RunEvent::ChildEnded(ended) => self.child_ended(ended),
            RunEvent::Waiting(waiting) => self.waits(waiting.reason),
            RunEvent::Finished(_) => {
                assert!(self.model.is_none() && self.open.is_empty(), "finished with an open call");
                assert!(self.asked.is_empty(), "finished with a call that was asked for and not made");
                self.ends("finished");
            }
            RunEvent::Failed(_) => self.ends("failed"),
            RunEvent::Killed(_) => self.ends("killed"),
            RunEvent::Cancelled(_) => self.ends("cancelled"),
            _ => {}
        }
    }

    fn ends(&mut self, kind: &'static str) {
        self.seen.insert(kind);
        self.ended = true;
    }

    fn model_called(&mut self, call: &ModelCalled) {
        assert!(self.open.is_empty() && self.asked.is_empty(), "the model is called while tools are open: {call:?}");
        assert!(self.model.is_none_or(|step| step == call.step), "two model calls are open: {call:?}");
        self.model = Some(call.step);
    }

    fn model_replied(&mut self, reply: &ModelReplied) {
        assert_eq!(self.model.take(), Some(reply.step), "every reply answers a call, and once");
        for block in &reply.content {
            if let Block::ToolUse { id, .. } = block {
                assert!(self.asked.insert(id.clone()), "two calls have the id {id}");
            }
        }
    }

    fn tool_called(&mut self, call: &ToolCalled) {
        if !self.asked.remove(&call.call_id) {
            let open = self.open.get(&call.call_id).unwrap_or_else(|| panic!("nobody asked for {call:?}"));
            assert!(open.idempotent, "what is not idempotent is begun once: {call:?}");
            assert!(open.epoch < self.epoch, "what runs is begun once: {call:?}");
            assert!(open.child.is_none(), "what was handed off is begun once: {call:?}");
            self.seen.insert("begun again");
        }
        let open = Open { idempotent: call.idempotent, epoch: self.epoch, child: None };
        self.open.insert(call.call_id.clone(), open);
    }

    fn tool_returned(&mut self, returned: &ToolReturned) {
        self.seen.insert("tool_returned");
        let open = self.open.remove(&returned.call_id);
        let open = open.unwrap_or_else(|| panic!("every return answers an open call, and once: {returned:?}"));
        assert!(open.child.is_none_or(|child| child.ended), "a handoff returns when its child ends: {returned:?}");
    }

    fn handed_off(&mut self, handed: &HandedOff) {
        let open = self.open.get_mut(&handed.call_id).unwrap_or_else(|| panic!("no call hands off: {handed:?}"));
        let before = open.child.replace(Child { run: handed.child_run_id, ended: false });
        assert!(before.is_none(), "a call hands off once: {handed:?}");
    }

    fn child_ended(&mut self, ended: &ChildEnded) {
        self.seen.insert("child_ended");
        let child = self.open.get_mut(&ended.call_id).and_then(|open| open.child.as_mut());
        let child = child.unwrap_or_else(|| panic!("every end of a child answers an open call: {ended:?}"));
        assert_eq!(child.run, ended.child_run_id, "and that of its handoff");
        assert!(!std::mem::replace(&mut child.ended, true), "and once: {ended:?}");
    }

    fn waits(&mut self, reason: WaitReason) {
        match reason {
            WaitReason::Child => {
                assert!(self.model.is_none() && self.asked.is_empty(), "waits for children only");
                assert!(self.open.values().all(|open| open.child.is_some()), "waits for children only");
                self.seen.insert("waiting for child");
            }
            // A model call is made again under its key, children run on, and what an earlier holder lost runs no more.
            WaitReason::Pause => {
                let running = |open: &Open| open.child.is_none() && open.epoch == self.epoch;
                assert!(!self.open.values().any(running), "nobody would hear the end of a running tool");
                self.seen.insert("waiting for pause");
            }
            WaitReason::Approval => {}
        }
    }
}

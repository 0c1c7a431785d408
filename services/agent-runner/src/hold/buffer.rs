//! What was decided and is not in the log yet, and how it is told apart when it is too much for one message.

use schemas::{
    Decision, RunEvent, RunId,
    event::{Billed, ModelErrorClass, ModelFailed, Requested},
};

use crate::run::RunState;

/// Decisions on their way into the log.
#[derive(Debug, Default)]
pub(super) struct Buffer {
    /// The run before the first of them; none when there are none.
    pub(super) before: Option<RunState>,
    /// Their events.
    pub(super) events: Vec<RunEvent>,
    /// How many events each of them has.
    pub(super) lengths: Vec<usize>,
    /// The children that they request.
    pub(super) children: Vec<(RunId, Requested)>,
}

impl Buffer {
    /// Takes in what was decided when the run was as `before`.
    pub(super) fn push(&mut self, before: RunState, events: Vec<RunEvent>) {
        self.before.get_or_insert(before);
        self.lengths.push(events.len());
        self.events.extend(events);
    }
}

/// The decisions one by one.
pub(super) fn apart(events: Vec<RunEvent>, lengths: &[usize]) -> Vec<Decision> {
    let mut events = events.into_iter();
    lengths.iter().map(|length| Decision { events: events.by_ref().take(*length).collect() }).collect()
}

/// Those of `children` that this decision requests.
pub(super) fn of(children: &[(RunId, Requested)], decision: &Decision) -> Vec<(RunId, Requested)> {
    let requests = |child: RunId| {
        let mut events = decision.events.iter();
        events.any(|event| matches!(event, RunEvent::HandedOff(handed) if handed.child_run_id == child))
    };
    children.iter().filter(|(child, _)| requests(*child)).cloned().collect()
}

/// For answers of a model that can not be kept, what is kept instead: that they were paid for.
pub(super) fn unkept_answers(dropped: &[Decision], state: &RunState) -> Vec<ModelFailed> {
    let Some(open) = state.model_call() else { return Vec::new() };
    let events = dropped.iter().flat_map(|decision| &decision.events);
    let answers = events.filter_map(|event| match event {
        RunEvent::ModelReplied(reply) if reply.step == open.call.step => Some(reply),
        _ => None,
    });
    let failed = answers.map(|reply| ModelFailed {
        step: reply.step,
        attempt: open.call.attempt,
        class: ModelErrorClass::Malformed,
        status: None,
        message: "the answer does not fit into the run's journal".to_owned(),
        retry_after_ms: None,
        retry_at: None,
        billed: Some(Billed { usage: reply.usage, cost: reply.cost, estimated: reply.estimated, through: open.since }),
    });
    failed.collect()
}

/// The end that was decided, when it is possible without what was decided before it, and may fit where that does not.
pub(super) fn other_end(dropped: &[Decision]) -> Option<&Decision> {
    let end = dropped.last().filter(|_| dropped.len() > 1)?;
    let event = end.events.iter().find(|event| event.is_end())?;
    (!matches!(event, RunEvent::Finished(_))).then_some(end)
}

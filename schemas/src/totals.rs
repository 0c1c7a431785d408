//! How what a run used adds up, for everyone who folds its journal.

use crate::{
    event::{ModelFailed, ModelReplied, Totals},
    money::{MicroUsd, Usage},
};

impl Totals {
    /// Adds an answered model call.
    pub fn add_reply(&mut self, reply: &ModelReplied) {
        self.model_calls += 1;
        self.add_billed(reply.usage, reply.cost, reply.estimated);
    }

    /// Adds what a model call without an answer was billed.
    pub fn add_failure(&mut self, failed: &ModelFailed) {
        if let Some(billed) = failed.billed {
            self.add_billed(billed.usage, billed.cost, billed.estimated);
        }
    }

    /// Adds what a child used, its own children included.
    pub fn add_child(&mut self, child: &Self) {
        self.usage += child.usage;
        self.cost += child.cost;
        self.unpriced_calls += child.unpriced_calls;
        self.estimated_calls += child.estimated_calls;
        self.model_calls += child.model_calls;
        self.tool_calls += child.tool_calls;
    }

    fn add_billed(&mut self, usage: Usage, cost: Option<MicroUsd>, estimated: bool) {
        self.usage += usage;
        match cost {
            Some(cost) => self.cost += cost,
            None => self.unpriced_calls += 1,
        }
        self.estimated_calls += u32::from(estimated);
    }
}

//! What a model call was billed, where its answer does not tell: looked up in budget-proxy's records.
//!
//! The proxy counts on the wire, and has a call on record before it tells the end of it. An answer at the first try that
//! brought its usage needs no look. Of everything else the records of the step are read, each into one event: one that
//! comes too late for an event is in the next event of its step.

use std::time::Duration;

use kit::{
    class::{Classified as _, ErrorClass, chain},
    journal::Journal,
};
use schemas::{
    MicroUsd, RunId, Usage,
    call::{CallOutcome, ModelCall},
    event::Billed,
};
use tokio::time::Instant;

use crate::{
    hold::APPEND_RETRY,
    model::{ModelAnswer, ModelError},
};

/// How long a record is waited for on a bus that is there. The proxy tells an end before it only when the bus was silent
/// for it, and then publishes five times a second; whoever hangs up within an answer is milliseconds ahead of it.
const RECORD_WAIT: Duration = Duration::from_secs(5);

/// Between two looks for a record that is missing: it is on its way.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Looks up what a step was billed.
#[derive(Debug)]
pub(super) struct Bills {
    pub(super) journal: Journal,
    pub(super) run: RunId,
    /// The idempotency key of the step's calls.
    pub(super) key: String,
    /// Stream sequence after which those records stand that no event tells of.
    pub(super) since: u64,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OnRecord {
    pub(super) billed: Billed,
    /// Whether an answer is among it.
    pub(super) answered: bool,
}

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// Nothing: the provider may never have been asked.
    Nothing,
    /// The record of any call.
    Call,
    /// The record of an answer.
    Answer,
}

impl Bills {
    /// What is on record of the step and was not told of, when `answer` alone does not tell what it cost.
    pub(super) async fn settle(&self, answer: &Result<ModelAnswer, ModelError>, attempt: u32) -> Option<OnRecord> {
        match answer {
            Ok(answer) if answer.usage.is_some() && attempt == 1 => None,
            Ok(_) => self.look(Wanted::Answer).await,
            Err(error) if error.begun => self.look(Wanted::Call).await,
            Err(_) => self.look(Wanted::Nothing).await,
        }
    }

    async fn look(&self, wanted: Wanted) -> Option<OnRecord> {
        let mut until = Instant::now() + RECORD_WAIT;
        loop {
            let pause = match self.journal.calls(self.run, self.since + 1).await {
                Ok(messages) => {
                    let records = messages.iter().filter_map(|message| match message.decode::<ModelCall>() {
                        Ok(call) => Some((message.sequence, call)),
                        Err(error) => {
                            tracing::error!(error = %chain(&error), "a call record can not be read");
                            None
                        }
                    });
                    let found = of_step(records, &self.key);
                    if wanted.is_met(found) || Instant::now() >= until {
                        return found;
                    }
                    LOOK_AGAIN
                }
                Err(error) if error.class() == ErrorClass::Transient => {
                    tracing::warn!(error = %chain(&error), "what a model call was billed can not be read now");
                    until = Instant::now() + RECORD_WAIT;
                    APPEND_RETRY
                }
                Err(error) => {
                    tracing::error!(error = %chain(&error), "what a model call was billed can not be read");
                    return None;
                }
            };
            tokio::time::sleep(pause).await;
        }
    }
}

impl Wanted {
    fn is_met(self, found: Option<OnRecord>) -> bool {
        match self {
            Self::Nothing => true,
            Self::Call => found.is_some(),
            Self::Answer => found.is_some_and(|found| found.answered),
        }
    }
}

/// The sum of the records, each with its sequence, of the calls under `key`.
fn of_step(records: impl Iterator<Item = (u64, ModelCall)>, key: &str) -> Option<OnRecord> {
    records.filter(|(_, call)| call.idempotency_key == key).fold(None, |sum: Option<OnRecord>, (sequence, call)| {
        // What the provider refused is free, also when it has no price.
        let free = (call.usage.total() == 0).then_some(MicroUsd(0));
        let billed =
            Billed { usage: call.usage, cost: call.cost.or(free), estimated: call.usage_estimated, through: sequence };
        let answered = matches!(call.outcome, CallOutcome::Completed | CallOutcome::CallerGone);
        Some(match sum {
            Some(sum) => OnRecord { billed: plus(sum.billed, billed), answered: sum.answered || answered },
            None => OnRecord { billed, answered },
        })
    })
}

/// What an answer was billed: what is on record, or else what it said itself, `reported`, or else `worst`.
pub(super) fn of_answer(
    found: Option<OnRecord>,
    reported: Option<Usage>,
    worst: Usage,
    price: impl Fn(&Usage) -> Option<MicroUsd>,
) -> Billed {
    if let Some(OnRecord { billed, answered: true }) = found {
        return billed;
    }
    let usage = reported.unwrap_or(worst);
    let own = Billed { usage, cost: price(&usage), estimated: reported.is_none(), through: 0 };
    found.map_or(own, |failed| plus(failed.billed, own))
}

fn plus(a: Billed, b: Billed) -> Billed {
    Billed {
        usage: a.usage + b.usage,
        cost: a.cost.zip(b.cost).map(|(a, b)| a + b),
        estimated: a.estimated || b.estimated,
        through: a.through.max(b.through),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn call(key: &str, outcome: CallOutcome, tokens: u64, cost: Option<u64>) -> ModelCall {
        ModelCall {
            run_id: RunId::from_uuid(uuid::Uuid::from_u128(1)),
            agent: "coder".parse().unwrap(),
            epoch: 1,
            idempotency_key: key.to_owned(),
            api: "anthropic".to_owned(),
            route: "strong".to_owned(),
            model: "m".to_owned(),
            request_digest: String::new(),
            outcome,
            status: Some(200),
            usage: used(tokens),
            usage_estimated: outcome == CallOutcome::UpstreamCut,
            cost: cost.map(MicroUsd),
            price_date: None,
            started_at: Timestamp::UNIX_EPOCH,
            first_byte_ms: None,
            total_ms: 1,
            rehearsal: false,
        }
    }

    fn used(tokens: u64) -> Usage {
        Usage { output_tokens: tokens, ..Usage::default() }
    }

    fn billed(tokens: u64, cost: Option<u64>, estimated: bool, through: u64) -> Billed {
        Billed { usage: used(tokens), cost: cost.map(MicroUsd), estimated, through }
    }

    #[test]
    fn the_records_of_a_step_are_added_and_no_others() {
        let records = [
            (3, call("r/1", CallOutcome::Completed, 7, Some(7))),
            (5, call("r/2", CallOutcome::UpstreamCut, 10, Some(100))),
            (6, call("r/2", CallOutcome::UpstreamError, 0, None)),
        ];
        let of = |key| of_step(records.iter().cloned(), key);
        assert_eq!(of("r/2"), Some(OnRecord { billed: billed(10, Some(100), true, 6), answered: false }));
        assert_eq!(of("r/1").map(|found| found.answered), Some(true));
        assert_eq!(of("r/3"), None);
        let unpriced = (7, call("r/2", CallOutcome::CallerGone, 1, None));
        let all = of_step(records.into_iter().chain([unpriced]), "r/2");
        assert_eq!(all, Some(OnRecord { billed: billed(11, None, true, 7), answered: true }));
    }

    #[test]
    fn what_is_on_record_goes_before_what_was_reported_and_that_before_the_worst_case() {
        let price = |usage: &Usage| Some(MicroUsd(usage.total() * 2));
        let of = |found, reported| of_answer(found, reported, used(1_000), price);
        let answered = OnRecord { billed: billed(10, Some(100), true, 6), answered: true };
        let failed = OnRecord { answered: false, ..answered };
        assert_eq!(of(Some(answered), Some(used(3))), answered.billed);
        assert_eq!(of(None, Some(used(3))), billed(3, Some(6), false, 0));
        assert_eq!(of(None, None), billed(1_000, Some(2_000), true, 0), "never free");
        assert_eq!(of(Some(failed), Some(used(3))), billed(13, Some(106), true, 6));
    }
}

//! From what was seen of a call to its record. Pure.
//!
//! What the upstream did not report counts as the worst case and is marked as an estimate: never free. The worst case of
//! the input is a token a byte, which no tokenizer goes beyond on UTF-8, and what providers add unseen, all at the
//! dearest rate of the input. That of the output is what the request allows; a stream of which all output is sent can
//! not have had more tokens than it had bytes.

use jiff::{Timestamp, civil::Date};
use kit::crew::{Crew, Price};
use schemas::{
    AgentName, RunId, Usage,
    call::{CallOutcome, ModelCall},
};

use crate::{
    failure::Failure,
    meter::{Metered, Verdict},
    upstream::Api,
};

/// Tokens that providers add to a request by themselves: the prompts that explain tools have up to 700.
const UNSEEN_INPUT_TOKENS: u64 = 1024;

/// A call as it was asked for.
#[derive(Debug, Clone)]
pub struct Ask {
    /// The run that is billed.
    pub run_id: RunId,
    /// The root of its tree.
    pub root_run_id: RunId,
    /// The agent.
    pub agent: AgentName,
    /// The epoch of the bearer.
    pub epoch: u64,
    /// The caller's name for the call.
    pub idempotency_key: String,
    /// The API.
    pub api: Api,
    /// The route asked for.
    pub route: String,
    /// The model as the provider names it.
    pub model: String,
    /// Whether the answer is to be streamed.
    pub streamed: bool,
    /// SHA-256 of the body, lower-case hex.
    pub digest: String,
    /// Size of the body in bytes.
    pub input_bytes: u64,
    /// Tokens that the answer may have.
    pub max_output: u64,
    /// Whether all that is billed as output is also sent.
    pub sends_all: bool,
    /// Whether the rehearsal model answers.
    pub rehearsal: bool,
}

/// What was seen of a call that reached its upstream.
#[derive(Debug, Clone)]
pub struct Seen {
    /// When it was forwarded.
    pub started_at: Timestamp,
    /// The upstream's status, when it answered.
    pub status: Option<u16>,
    /// How it ended.
    pub end: Result<(), Failure>,
    /// What the answer said about itself.
    pub metered: Metered,
    /// Bytes of the answer, when it was passed on as it was written.
    pub streamed_bytes: Option<u64>,
    /// From the start to the first byte, in milliseconds.
    pub first_byte_ms: Option<u64>,
    /// From the start to the end, in milliseconds.
    pub total_ms: u64,
    /// Whether somebody listened at its end.
    pub heard: bool,
}

/// The record of a call.
pub fn record(ask: &Ask, seen: &Seen, crew: &Crew) -> ModelCall {
    let day = seen.started_at.to_zoned(crew.time_zone.clone()).date();
    let price = price(ask, crew, day);
    let (usage, usage_estimated) = usage(ask, seen, price);
    ModelCall {
        run_id: ask.run_id,
        agent: ask.agent.clone(),
        epoch: ask.epoch,
        idempotency_key: ask.idempotency_key.clone(),
        api: ask.api.as_str().to_owned(),
        route: ask.route.clone(),
        model: seen.metered.model.clone().unwrap_or_else(|| ask.model.clone()),
        request_digest: ask.digest.clone(),
        outcome: outcome(seen),
        status: seen.status,
        usage,
        usage_estimated,
        cost: price.map(|price| price.cost(&usage)),
        price_date: price.map(|price| price.from.to_string()),
        started_at: seen.started_at,
        first_byte_ms: seen.first_byte_ms,
        total_ms: seen.total_ms,
        rehearsal: ask.rehearsal,
    }
}

fn price<'a>(ask: &Ask, crew: &'a Crew, day: Date) -> Option<&'a Price> {
    crew.models.price_of(&ask.model, day)
}

/// Whether the upstream said that it does not answer, which no provider bills.
fn refused(seen: &Seen) -> bool {
    seen.status.is_some_and(|status| !(200..300).contains(&status))
}

/// Whether the caller was told the beginning of an answer, and not an error in its place.
fn begun(seen: &Seen) -> bool {
    seen.streamed_bytes.is_some_and(|bytes| bytes > 0)
}

/// What gave nothing to be passed on has failed, whatever of it came before its connection was gone: in what order bytes,
/// their end and a reset are seen is chance. What breaks off later was cut.
fn outcome(seen: &Seen) -> CallOutcome {
    match seen.end {
        Err(Failure::RunEnded | Failure::Ending) => CallOutcome::ProxyCut,
        _ if refused(seen) => CallOutcome::UpstreamError,
        Err(_) if !begun(seen) => CallOutcome::UpstreamError,
        Err(_) => CallOutcome::UpstreamCut,
        Ok(()) if seen.metered.verdict != Verdict::Complete => CallOutcome::UpstreamCut,
        Ok(()) if seen.heard => CallOutcome::Completed,
        Ok(()) => CallOutcome::CallerGone,
    }
}

/// The usage, and whether it is an estimate.
fn usage(ask: &Ask, seen: &Seen, price: Option<&Price>) -> (Usage, bool) {
    if refused(seen) {
        return (Usage::default(), false);
    }
    let mut usage = seen.metered.usage;
    if !seen.metered.input {
        let worst = ask.input_bytes.saturating_add(UNSEEN_INPUT_TOKENS);
        let dearest_is_cache = price.is_some_and(|price| price.cache_write > price.input);
        (usage.input_tokens, usage.cache_write_tokens, usage.cache_read_tokens) =
            if dearest_is_cache { (0, worst, 0) } else { (worst, 0, 0) };
    }
    if !seen.metered.output {
        let told = usage.output_tokens;
        let sent = seen.streamed_bytes.filter(|_| ask.sends_all);
        let bound = sent.map_or(ask.max_output, |bytes| bytes.min(ask.max_output));
        usage.output_tokens = bound.max(told);
    }
    (usage, !(seen.metered.input && seen.metered.output))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask() -> Ask {
        let run = RunId::from_uuid(uuid::Uuid::from_u128(7));
        Ask {
            run_id: run,
            root_run_id: run,
            agent: "coder".parse().unwrap(),
            epoch: 3,
            idempotency_key: "k".to_owned(),
            api: Api::Anthropic,
            route: "strong".to_owned(),
            model: "m".to_owned(),
            streamed: true,
            digest: String::new(),
            input_bytes: 100,
            max_output: 1000,
            sends_all: true,
            rehearsal: false,
        }
    }

    fn seen() -> Seen {
        Seen {
            started_at: Timestamp::UNIX_EPOCH,
            status: Some(200),
            end: Ok(()),
            metered: Metered {
                verdict: Verdict::Complete,
                usage: Usage { input_tokens: 5, output_tokens: 6, ..Usage::default() },
                input: true,
                output: true,
                model: None,
            },
            streamed_bytes: Some(40),
            first_byte_ms: None,
            total_ms: 1,
            heard: true,
        }
    }

    #[test]
    fn each_end_has_its_outcome() {
        let outcome = |change: fn(&mut Seen)| {
            let mut seen = seen();
            change(&mut seen);
            super::outcome(&seen)
        };
        assert_eq!(outcome(|_| ()), CallOutcome::Completed);
        assert_eq!(outcome(|seen| seen.heard = false), CallOutcome::CallerGone);
        assert_eq!(outcome(|seen| seen.status = Some(529)), CallOutcome::UpstreamError);
        assert_eq!(outcome(|seen| seen.end = Err(Failure::RunEnded)), CallOutcome::ProxyCut);
        assert_eq!(outcome(|seen| seen.metered.verdict = Verdict::Error), CallOutcome::UpstreamCut);
    }

    #[test]
    fn what_gave_no_answer_has_one_outcome_however_it_failed() {
        for failure in [Failure::Cut, Failure::Garbage, Failure::Stalled, Failure::TooLarge] {
            for status in [None, Some(200), Some(500)] {
                for streamed_bytes in [None, Some(0)] {
                    let seen = Seen { status, streamed_bytes, end: Err(failure), ..seen() };
                    assert_eq!(super::outcome(&seen), CallOutcome::UpstreamError, "{seen:?}");
                }
            }
            let begun = Seen { end: Err(failure), ..seen() };
            assert_eq!(super::outcome(&begun), CallOutcome::UpstreamCut, "{begun:?}");
        }
    }

    #[test]
    fn what_was_reported_is_taken_and_a_refusal_is_free() {
        assert_eq!(usage(&ask(), &seen(), None), (seen().metered.usage, false));
        let refused = Seen { status: Some(500), metered: Metered::default(), ..seen() };
        assert_eq!(usage(&ask(), &refused, None), (Usage::default(), false));
    }

    #[test]
    fn what_was_not_reported_is_the_worst_case() {
        let mut seen = seen();
        seen.metered.output = false;
        let output = |ask: &Ask, seen: &Seen| usage(ask, seen, None).0.output_tokens;
        assert_eq!(output(&ask(), &seen), 40, "no more tokens than bytes");
        assert_eq!(output(&Ask { max_output: 9, ..ask() }, &seen), 9, "no more than was allowed");
        assert_eq!(output(&Ask { sends_all: false, ..ask() }, &seen), 1000, "it may have thought unseen");
        assert_eq!(
            output(&ask(), &Seen { streamed_bytes: None, ..seen.clone() }),
            1000,
            "it was written before it was sent"
        );
        seen.metered.input = false;
        let (worst, estimated) = usage(&ask(), &seen, None);
        assert_eq!((worst.input_tokens, estimated), (100 + UNSEEN_INPUT_TOKENS, true));
    }

    #[test]
    fn input_that_was_not_reported_is_priced_at_the_dearest_rate() {
        let rate = |text: &str| kit::crew::Rate::try_new(text).unwrap();
        let price = Price {
            from: jiff::civil::date(2026, 1, 1),
            model: "m".to_owned(),
            input: rate("3"),
            output: rate("15"),
            cache_write: rate("3.75"),
            cache_read: rate("0.30"),
        };
        let mut seen = seen();
        seen.metered.input = false;
        let (worst, _) = usage(&ask(), &seen, Some(&price));
        assert_eq!((worst.input_tokens, worst.cache_write_tokens), (0, 100 + UNSEEN_INPUT_TOKENS));
    }
}

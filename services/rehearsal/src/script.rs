//! From a reply to what happens on the wire: the frames, and between them the pauses, gates and faults.
//!
//! Pure: a script is a list of acts that somebody else plays, so every fault can be looked at without a socket or a
//! clock.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Failure, FailureKind, Frame};
use crate::conversation::Request;
use crate::reply::{Reply, Usage};
use crate::scenario::template::Vars;
use crate::scenario::{Fault, Latency, Selected};

/// One thing that happens while an answer is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Act {
    /// Bytes go out.
    Send(Frame),
    /// Nothing happens for that long.
    Pause(Duration),
    /// Nothing happens until the gate is open.
    Gate(Arc<str>),
    /// Nothing happens any more.
    Hold,
    /// The connection ends.
    Cut,
    /// The body ends as if all were well, though the answer is not whole.
    End,
}

/// An answer, ready to be played.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Script {
    /// What happens before the response's head.
    pub(crate) head: Vec<Act>,
    /// Status, body and all that follows the head.
    pub(crate) answer: Answer,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// An error.
    Failure(Failure),
    /// A web page where JSON was expected.
    Garbage,
    /// One JSON body, announced with this length.
    Whole {
        /// The length in the response's head.
        length: usize,
        /// How the body goes out.
        body: Vec<Act>,
    },
    /// A stream of server-sent events.
    Stream(Vec<Act>),
}

/// The web page that a broken gateway answers with.
pub(crate) const GARBAGE: &str = "<html><head><title>Welcome</title></head><body><h1>It works!</h1></body></html>\n";

/// Writes the script of the selected rule's answer.
pub(crate) fn write(selected: &Selected, request: &Request, request_id: &str) -> Script {
    let rule = &selected.rule;
    let mut head = Vec::new();
    let gate = rule.gate.as_ref();
    head.extend(gate.filter(|gate| gate.after_tokens.is_none()).map(|gate| Act::Gate(gate.name.clone())));
    let fault = selected.fault.as_ref();
    if let Some(answer) = fault.and_then(replacement) {
        return Script { head, answer };
    }
    let Some(plan) = &rule.reply else {
        return Script { head, answer: Answer::Garbage };
    };
    let agent = request.agent().unwrap_or_default();
    let vars = Vars { captures: &selected.captures, agent, model: &request.model, step: request.step() };
    let mut reply = Reply::compose(plan, request, &vars);
    tell_usage(&mut reply, fault);
    let inserts = inserts(selected, request, request_id);
    if request.stream {
        head.extend(inserts.iter().filter(|insert| insert.after.is_none()).flat_map(|insert| insert.acts.clone()));
        let frames = request.api.frames(&reply, request.include_usage);
        Script { head, answer: Answer::Stream(interleave(frames, &inserts, rule.latency)) }
    } else {
        head.push(Act::Pause(whole_latency(&reply, rule.latency)));
        let waits = inserts.iter().flat_map(|insert| &insert.acts);
        head.extend(waits.filter(|act| !matches!(act, Act::Send(_) | Act::Cut | Act::End)).cloned());
        Script { head, answer: whole(&reply, request, fault) }
    }
}

/// What is answered in place of the reply.
fn replacement(fault: &Fault) -> Option<Answer> {
    let (kind, message, retry_after) = match fault {
        Fault::RateLimited { retry_after } => (FailureKind::RateLimited, "rate limit reached", *retry_after),
        Fault::Overloaded { retry_after } => (FailureKind::Overloaded, "overloaded", *retry_after),
        Fault::ServerError { status, retry_after } => (FailureKind::Server(*status), "internal error", *retry_after),
        Fault::Garbage => return Some(Answer::Garbage),
        _ => return None,
    };
    Some(Answer::Failure(Failure { kind, message: format!("rehearsal: {message}"), retry_after }))
}

fn tell_usage(reply: &mut Reply, fault: Option<&Fault>) {
    match fault {
        Some(Fault::MissingUsage) => reply.usage = None,
        Some(Fault::WrongUsage { input_tokens, output_tokens }) => {
            reply.usage = Some(Usage { input: *input_tokens, output: *output_tokens, cache_read: 0, cache_write: 0 });
        }
        _ => {}
    }
}

/// Acts that come into a stream after so many tokens; without a number, before the response's head.
struct Insert {
    after: Option<u32>,
    acts: Vec<Act>,
    ends: bool,
}

fn inserts(selected: &Selected, request: &Request, request_id: &str) -> Vec<Insert> {
    let mut inserts = Vec::new();
    if let Some(gate) = &selected.rule.gate
        && let Some(after) = gate.after_tokens
    {
        inserts.push(Insert { after: Some(after), acts: vec![Act::Gate(gate.name.clone())], ends: false });
    }
    let Some(fault) = &selected.fault else {
        return inserts;
    };
    let insert = match fault {
        Fault::CutStream { after_tokens } => Insert { after: Some(*after_tokens), acts: vec![Act::Cut], ends: true },
        Fault::MalformedFrame { after_tokens } => {
            Insert { after: Some(*after_tokens), acts: vec![Act::Send(request.api.malformed_frame())], ends: false }
        }
        Fault::ErrorFrame { after_tokens } => {
            let frame = request.api.error_frame(&overloaded(), request_id);
            Insert { after: Some(*after_tokens), acts: vec![Act::Send(frame), Act::End], ends: true }
        }
        Fault::Stall { after_tokens, duration } => {
            Insert { after: *after_tokens, acts: vec![Act::Pause(*duration)], ends: false }
        }
        Fault::Hold { after_tokens } => Insert { after: *after_tokens, acts: vec![Act::Hold], ends: true },
        _ => return inserts,
    };
    inserts.push(insert);
    inserts
}

fn overloaded() -> Failure {
    Failure::new(FailureKind::Overloaded, "rehearsal: overloaded")
}

/// Puts pauses and inserts between the frames. "After n tokens" is right before the frame that would bring more, and at
/// the latest before the frames that end the answer.
fn interleave(frames: Vec<Frame>, inserts: &[Insert], latency: Latency) -> Vec<Act> {
    let total: u32 = frames.iter().map(|frame| frame.tokens).sum();
    let mut waiting: Vec<(u32, &Insert)> =
        inserts.iter().filter_map(|insert| insert.after.map(|after| (after.min(total), insert))).collect();
    let mut acts = Vec::with_capacity(frames.len() + inserts.len());
    let mut sent = 0;
    for frame in frames {
        if frame.tokens > 0 || sent == total {
            while let Some(index) = waiting.iter().position(|(after, _)| *after <= sent) {
                let (_, insert) = waiting.remove(index);
                acts.extend(insert.acts.iter().cloned());
                if insert.ends {
                    return acts;
                }
            }
        }
        if frame.tokens > 0 {
            let pause = if sent == 0 { latency.first_token } else { latency.per_token * frame.tokens };
            acts.extend((!pause.is_zero()).then_some(Act::Pause(pause)));
        }
        sent += frame.tokens;
        acts.push(Act::Send(frame));
    }
    acts
}

fn output_tokens(reply: &Reply) -> u32 {
    reply.blocks.iter().map(crate::reply::Block::tokens).sum()
}

fn whole_latency(reply: &Reply, latency: Latency) -> Duration {
    latency.first_token + latency.per_token * output_tokens(reply).saturating_sub(1)
}

fn whole(reply: &Reply, request: &Request, fault: Option<&Fault>) -> Answer {
    if matches!(fault, Some(Fault::ErrorFrame { .. })) {
        return Answer::Failure(overloaded());
    }
    let bytes = Bytes::from(request.api.body(reply).to_string());
    let tokens = output_tokens(reply);
    let half = bytes.slice(..bytes.len() / 2);
    let send = |bytes: Bytes, tokens| Act::Send(Frame { bytes, tokens });
    match fault {
        Some(Fault::CutStream { .. }) => {
            Answer::Whole { length: bytes.len(), body: vec![send(half, tokens / 2), Act::Cut] }
        }
        Some(Fault::MalformedFrame { .. }) => Answer::Whole { length: half.len(), body: vec![send(half, tokens)] },
        _ => Answer::Whole { length: bytes.len(), body: vec![send(bytes, tokens)] },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(tokens: u32) -> Frame {
        Frame { bytes: Bytes::new(), tokens }
    }

    /// A stream of a start, three tokens and an end.
    fn frames() -> Vec<Frame> {
        [0, 1, 1, 1, 0].map(frame).to_vec()
    }

    fn insert(after: u32, act: Act, ends: bool) -> Insert {
        Insert { after: Some(after), acts: vec![act], ends }
    }

    fn sends_before(acts: &[Act], wanted: &Act) -> usize {
        acts.iter().take_while(|act| *act != wanted).filter(|act| matches!(act, Act::Send(_))).count()
    }

    #[test]
    fn an_insert_comes_right_before_the_token_after_it() {
        for (after, sends) in [(0, 1), (1, 2), (3, 4), (99, 4)] {
            let acts = interleave(frames(), &[insert(after, Act::Hold, false)], Latency::default());
            assert_eq!(sends_before(&acts, &Act::Hold), sends, "after {after}");
            assert_eq!(acts.len(), 6);
        }
    }

    #[test]
    fn nothing_follows_an_insert_that_ends_the_answer() {
        let acts = interleave(frames(), &[insert(1, Act::Cut, true)], Latency::default());

        assert_eq!(acts.last(), Some(&Act::Cut));
        assert_eq!(acts.len(), 3);
    }

    #[test]
    fn tokens_are_paced_and_frames_without_tokens_are_not() {
        let latency = Latency { first_token: Duration::from_millis(9), per_token: Duration::from_millis(2) };
        let acts = interleave(frames(), &[], latency);
        let pauses: Vec<u128> = acts
            .iter()
            .filter_map(|act| match act {
                Act::Pause(pause) => Some(pause.as_millis()),
                _ => None,
            })
            .collect();

        assert_eq!(pauses, [9, 2, 2]);
        assert_eq!(acts[0], Act::Send(frame(0)));
    }
}

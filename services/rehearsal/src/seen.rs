//! The requests that were seen: what tests count, and what a bill is compared with.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::conversation::{Api, Request};

/// How many requests are remembered: those of a bench of a thousand runs of ten calls each, in about 5 MB.
const REQUESTS_KEPT: usize = 10_000;

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The answer is not out yet.
    InProgress,
    /// The whole answer went out. A provider would bill it.
    Completed,
    /// The client went away before its end. A provider would bill what went out.
    CutByClient,
    /// A fault of the scenario, or the server's own end, ended the answer before its time.
    CutByServer,
    /// An error was answered. A provider would not bill it.
    Failed,
}

/// One request as `GET /rehearsal/requests` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts the requests of this server, from 1.
    pub id: u64,
    /// When its head was read.
    pub received_at: Timestamp,
    /// `anthropic` or `openai`.
    pub api: String,
    /// The agent that asked, when its system prompt says.
    pub agent: Option<String>,
    /// The step of the conversation, 0 when the request could not be read.
    pub step: u32,
    /// The model that was asked for.
    pub model: String,
    /// Whether the answer was to be streamed.
    pub stream: bool,
    /// Digest of the request's bytes: the same request has the same.
    pub digest: String,
    /// Digest of the system prompt and first message: all steps of a conversation have the same.
    pub conversation: String,
    /// The rule that answered.
    pub rule: Option<String>,
    /// The fault that it showed.
    pub fault: Option<String>,
    /// The status that was answered, 0 until then.
    pub status: u16,
    /// How it ended.
    pub outcome: Outcome,
    /// Input tokens, counted by the documented rule.
    pub input_tokens: u32,
    /// Output tokens that went out so far.
    pub output_tokens: u32,
}

/// What `GET /rehearsal/requests` answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// How many were seen in all.
    pub seen: u64,
    /// Those still remembered, oldest first.
    pub requests: Vec<Record>,
}

#[derive(Debug, Default)]
struct Log {
    seen: u64,
    entries: VecDeque<Entry>,
}

#[derive(Debug)]
struct Entry {
    record: Record,
    sent: Arc<AtomicU32>,
}

/// The bounded list of what was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    log: Mutex<Log>,
}

impl Seen {
    /// Notes a request. The ticket tells how it ends, and when dropped before, that the client cut it.
    pub(crate) fn begin(self: &Arc<Self>, api: Api, received_at: Timestamp) -> Ticket {
        let sent = Arc::new(AtomicU32::new(0));
        let mut log = self.lock();
        log.seen += 1;
        let id = log.seen;
        if log.entries.len() == REQUESTS_KEPT {
            log.entries.pop_front();
        }
        log.entries.push_back(Entry { record: Record::new(id, api, received_at), sent: sent.clone() });
        drop(log);
        Ticket { seen: self.clone(), id, sent, ended: false }
    }

    /// The requests with ids above `after`.
    pub(crate) fn since(&self, after: u64) -> Requests {
        let log = self.lock();
        let told = log.entries.iter().filter(|entry| entry.record.id > after);
        let requests = told
            .map(|entry| Record { output_tokens: entry.sent.load(Ordering::Relaxed), ..entry.record.clone() })
            .collect();
        Requests { seen: log.seen, requests }
    }

    /// Forgets all requests. Ids go on.
    pub(crate) fn clear(&self) {
        self.lock().entries.clear();
    }

    fn update(&self, id: u64, change: impl FnOnce(&mut Record)) {
        let mut log = self.lock();
        let first = log.entries.front().map_or(id, |entry| entry.record.id);
        let index = id.checked_sub(first).and_then(|index| usize::try_from(index).ok());
        if let Some(entry) = index.and_then(|index| log.entries.get_mut(index)) {
            change(&mut entry.record);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Record {
    fn new(id: u64, api: Api, received_at: Timestamp) -> Self {
        let api = match api {
            Api::Anthropic => "anthropic",
            Api::Openai => "openai",
        };
        Self {
            id,
            received_at,
            api: api.to_owned(),
            agent: None,
            step: 0,
            model: String::new(),
            stream: false,
            digest: String::new(),
            conversation: String::new(),
            rule: None,
            fault: None,
            status: 0,
            outcome: Outcome::InProgress,
            input_tokens: 0,
            output_tokens: 0,
        }
    }
}

/// Stands for one request until it ends.
#[derive(Debug)]
pub(crate) struct Ticket {
    seen: Arc<Seen>,
    id: u64,
    sent: Arc<AtomicU32>,
    ended: bool,
}

impl Ticket {
    /// The request's id.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Notes what was asked.
    pub(crate) fn asked(&self, request: &Request) {
        let digest = request.digest.hex(64);
        let conversation = request.conversation().hex(64);
        let input_tokens = request.input_tokens();
        self.seen.update(self.id, |record| {
            record.agent = request.agent().map(str::to_owned);
            record.step = request.step();
            record.model.clone_from(&request.model);
            record.stream = request.stream;
            record.digest = digest;
            record.conversation = conversation;
            record.input_tokens = input_tokens;
        });
    }

    /// Notes who answers.
    pub(crate) fn matched(&self, rule: &str, fault: Option<&str>) {
        self.seen.update(self.id, |record| {
            record.rule = Some(rule.to_owned());
            record.fault = fault.map(str::to_owned);
        });
    }

    /// Notes the status that goes out.
    pub(crate) fn answered(&self, status: u16) {
        self.seen.update(self.id, |record| record.status = status);
    }

    /// Counts output tokens that went out.
    pub(crate) fn sent(&self, tokens: u32) {
        self.sent.fetch_add(tokens, Ordering::Relaxed);
    }

    /// Notes the end. Only the first counts.
    pub(crate) fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.ended, true) {
            self.seen.update(self.id, |record| record.outcome = outcome);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.end(Outcome::CutByClient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin(seen: &Arc<Seen>) -> Ticket {
        seen.begin(Api::Openai, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_ticket_dropped_was_cut_by_the_client() {
        let seen = Arc::new(Seen::default());
        let mut first = begin(&seen);
        first.end(Outcome::Completed);
        drop(first);
        drop(begin(&seen));

        let outcomes: Vec<Outcome> = seen.since(0).requests.iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes, [Outcome::Completed, Outcome::CutByClient]);
    }

    #[test]
    fn only_so_many_are_remembered_and_all_are_counted() {
        let seen = Arc::new(Seen::default());
        let mut oldest = begin(&seen);
        for _ in 0..REQUESTS_KEPT {
            begin(&seen).end(Outcome::Completed);
        }
        oldest.end(Outcome::Completed);

        let told = seen.since(0);
        assert_eq!(told.seen, REQUESTS_KEPT as u64 + 1);
        assert_eq!(told.requests.len(), REQUESTS_KEPT);
        assert_eq!(told.requests[0].id, 2);
        assert_eq!(seen.since(REQUESTS_KEPT as u64).requests.len(), 1);
    }
}

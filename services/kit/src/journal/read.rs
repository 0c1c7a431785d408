//! Reading journals: batched direct gets for a run, single gets from the stream's leader for its tail.

use std::time::Duration;

use async_nats::header::HeaderMap;
use async_nats::{Message, StatusCode, Subscriber};
use futures::StreamExt as _;
use schemas::{RunId, subject::filter};
use serde::Deserialize;
use serde_json::json;

use super::{Journal, ReadError, STREAM, prefix};
use crate::bus::{Fault, REQUEST_WITHIN, code};
use crate::message::{self, DecodeError, RawMessage, Stored};

/// Messages asked for at once: a run of ordinary length comes in one answer.
const PAGE_MESSAGES: usize = 512;

/// Bytes asked for at once, so that one answer stays well below what a connection may have pending.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How often a page is asked for again that did not come whole.
const ATTEMPTS: u32 = 3;

/// The longest silence within an answer under way.
const NEXT_WITHIN: Duration = REQUEST_WITHIN;

/// A message as the stream's leader has it, as far as it could be read.
pub(super) struct Tail {
    pub(super) sequence: u64,
    pub(super) id: Option<String>,
    pub(super) stored: Option<Box<Stored>>,
}

struct Page {
    messages: Vec<Result<Stored, DecodeError>>,
    last_sequence: u64,
    more: bool,
}

impl Journal {
    /// The messages of a run from a sequence on, in order. `from_sequence` should be the run's first sequence, which
    /// whoever got its `requested` knows, and its summary too: a search from 1 walks the whole log.
    pub async fn read(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        self.read_filtered(run, &prefix(run), from_sequence).await
    }

    /// The signals for a run from a sequence on, in order.
    pub async fn signals(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        self.read_filtered(run, &filter::signals_of(run), from_sequence)
            .await
    }

    /// The model calls of a run from a sequence on, in order.
    pub async fn calls(&self, run: RunId, from_sequence: u64) -> Result<Vec<Stored>, ReadError> {
        let subject = schemas::Subject::Call(run).to_string();
        self.read_filtered(run, &subject, from_sequence).await
    }

    /// The last message of a run, from the stream's leader.
    pub async fn last(&self, run: RunId) -> Result<Option<Stored>, ReadError> {
        let found = self.get(&json!({ "last_by_subj": prefix(run) })).await;
        let Some(found) = found.map_err(|fault| unavailable(run, fault))? else {
            return Ok(None);
        };
        let stored = message::raw(&found).map_err(|source| undecodable(run, source))?;
        Ok(Some(stored))
    }

    /// The first message of a run, which is its `requested`. Walks the log when the run is old.
    pub async fn first(&self, run: RunId) -> Result<Option<Stored>, ReadError> {
        let request = json!({ "seq": 1, "next_by_subj": prefix(run) });
        let found = self.get(&request).await;
        let Some(found) = found.map_err(|fault| unavailable(run, fault))? else {
            return Ok(None);
        };
        let stored = message::raw(&found).map_err(|source| undecodable(run, source))?;
        Ok(Some(stored))
    }

    async fn read_filtered(
        &self,
        run: RunId,
        filter: &str,
        from_sequence: u64,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut all = Vec::new();
        let mut from = from_sequence.max(1);
        loop {
            let page = self
                .whole_page(filter, from)
                .await
                .map_err(|fault| unavailable(run, fault))?;
            for message in page.messages {
                all.push(message.map_err(|source| undecodable(run, source))?);
            }
            if !page.more {
                return Ok(all);
            }
            from = page.last_sequence + 1;
        }
    }

    /// A page without a hole: one whose messages do not follow each other is asked for again.
    async fn whole_page(&self, filter: &str, from: u64) -> Result<Page, Fault> {
        let mut attempt = 1;
        loop {
            match self.page(filter, from).await {
                Err(Fault::Silent | Fault::Garbled(_) | Fault::NoStream { .. })
                    if attempt < ATTEMPTS =>
                {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn page(&self, filter: &str, from: u64) -> Result<Page, Fault> {
        self.bus.wait_connected().await?;
        let client = self.bus.client();
        let inbox = client.new_inbox();
        let lost = |_| Fault::Disconnected;
        let mut answers = client.subscribe(inbox.clone()).await.map_err(lost)?;
        let request = json!({
            "seq": from,
            "next_by_subj": filter,
            "batch": PAGE_MESSAGES,
            "max_bytes": PAGE_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{STREAM}");
        client
            .publish_with_reply(subject, inbox, request.to_string().into())
            .await
            .map_err(|_| Fault::Disconnected)?;
        collect(&mut answers).await
    }

    /// The last message under `filter`, from the stream's leader.
    pub(super) async fn tail(&self, filter: &str) -> Result<Option<Tail>, Fault> {
        self.position(&json!({ "last_by_subj": filter })).await
    }

    /// The first message under `filter` at or after a sequence, from the stream's leader.
    pub(super) async fn next(&self, filter: &str, from: u64) -> Result<Option<Tail>, Fault> {
        self.position(&json!({ "seq": from, "next_by_subj": filter }))
            .await
    }

    async fn position(&self, request: &serde_json::Value) -> Result<Option<Tail>, Fault> {
        let found = self.get(request).await?;
        Ok(found.map(|found| {
            let stored = message::raw(&found).ok();
            Tail {
                sequence: found.seq,
                id: stored.as_ref().map(|stored| stored.envelope.id.to_string()),
                stored: stored.map(Box::new),
            }
        }))
    }

    async fn get(&self, request: &serde_json::Value) -> Result<Option<RawMessage>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<RawMessage>,
            error: Option<Problem>,
        }
        #[derive(Deserialize)]
        struct Problem {
            #[serde(default)]
            err_code: u64,
            #[serde(default)]
            description: String,
        }
        let subject = format!("$JS.API.STREAM.MSG.GET.{STREAM}");
        let answer = self
            .bus
            .ask(&subject, None, request.to_string().into())
            .await?;
        let answer: Answer =
            serde_json::from_slice(&answer).map_err(|error| Fault::Garbled(error.to_string()))?;
        match answer.error {
            None => Ok(answer.message),
            Some(problem) if problem.err_code == code::MESSAGE_NOT_FOUND => Ok(None),
            Some(problem) => Err(Fault::Api {
                code: problem.err_code,
                description: problem.description,
            }),
        }
    }
}

async fn collect(answers: &mut Subscriber) -> Result<Page, Fault> {
    let mut page = Page {
        messages: Vec::new(),
        last_sequence: 0,
        more: false,
    };
    loop {
        let answer = tokio::time::timeout(NEXT_WITHIN, answers.next()).await;
        let Ok(Some(answer)) = answer else {
            return Err(Fault::Silent);
        };
        match answer.status {
            None => take(&mut page, &answer)?,
            Some(StatusCode::NOT_FOUND) => return Ok(page),
            // End of the batch: it repeats where the batch ended and says how much is left.
            Some(status) if status.as_u16() == 204 => {
                if number(&answer, "Nats-Last-Sequence") != Some(page.last_sequence) {
                    return Err(Fault::Garbled("an answer with a hole".to_owned()));
                }
                page.more = number(&answer, "Nats-Num-Pending").is_some_and(|left| left > 0);
                return Ok(page);
            }
            Some(StatusCode::NO_RESPONDERS) => {
                return Err(Fault::NoStream {
                    subject: format!("a read of {STREAM}"),
                });
            }
            Some(status) => {
                let description = answer.description.unwrap_or_default();
                return Err(Fault::Garbled(format!("{status} {description}")));
            }
        }
    }
}

/// Each message says which one it follows in the answer.
fn take(page: &mut Page, answer: &Message) -> Result<(), Fault> {
    let follows = number(answer, "Nats-Last-Sequence");
    let sequence = number(answer, "Nats-Sequence");
    let (Some(follows), Some(sequence)) = (follows, sequence) else {
        return Err(Fault::Garbled("a message without its place".to_owned()));
    };
    if follows != page.last_sequence {
        return Err(Fault::Garbled("an answer with a hole".to_owned()));
    }
    page.last_sequence = sequence;
    page.messages.push(message::direct(answer));
    Ok(())
}

fn number(answer: &Message, header: &'static str) -> Option<u64> {
    let headers: &HeaderMap = answer.headers.as_ref()?;
    headers.get_last(header)?.as_str().parse().ok()
}

fn unavailable(run: RunId, fault: Fault) -> ReadError {
    ReadError::Unavailable {
        run,
        source: Box::new(fault),
    }
}

fn undecodable(run: RunId, source: DecodeError) -> ReadError {
    ReadError::Decode {
        run,
        source: Box::new(source),
    }
}

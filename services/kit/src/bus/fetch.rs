//! Reading stored messages: pages of a stream by batched direct gets, single messages from the stream's leader.

use async_nats::header::HeaderMap;
use async_nats::{Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures::StreamExt as _;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Bus, Fault, REQUEST_WITHIN, code};
use crate::message::RawMessage;

/// Messages asked for at once: a run of ordinary length comes in one answer.
const PAGE_MESSAGES: usize = 512;

/// Bytes asked for at once, so that one answer stays well below what a connection may have pending.
const PAGE_BYTES: usize = 4 * 1024 * 1024;

/// How often a page is asked for again that did not come whole.
const ATTEMPTS: u32 = 3;

/// Some consecutive messages of a stream under a filter.
pub(crate) struct Page {
    /// As the direct get answered, to be read by [`crate::message::direct`].
    pub(crate) messages: Vec<Message>,
    /// Sequence of the last of them.
    pub(crate) last_sequence: u64,
    /// Whether there are more behind it.
    pub(crate) more: bool,
}

/// The last message on a subject.
pub(crate) struct Last {
    /// Its sequence.
    pub(crate) sequence: u64,
    /// When the stream stored it.
    pub(crate) time: Timestamp,
    /// Its body.
    pub(crate) body: Bytes,
}

impl Bus {
    /// The next messages under `filter` from a sequence on, without a hole: a page whose messages do not follow each
    /// other is asked for again. In a cluster any replica answers, and may lag.
    pub(crate) async fn page(&self, stream: &str, filter: &str, from: u64) -> Result<Page, Fault> {
        let mut attempt = 1;
        loop {
            match self.try_page(stream, filter, from).await {
                Err(Fault::Silent | Fault::Garbled(_) | Fault::NoStream { .. }) if attempt < ATTEMPTS => {
                    attempt += 1;
                }
                result => return result,
            }
        }
    }

    async fn try_page(&self, stream: &str, filter: &str, from: u64) -> Result<Page, Fault> {
        self.wait_connected().await?;
        let inbox = self.client().new_inbox();
        let subscribed = self.client().subscribe(inbox.clone()).await;
        let mut answers = subscribed.map_err(|_| Fault::Disconnected)?;
        let request = json!({
            "seq": from.max(1),
            "next_by_subj": filter,
            "batch": PAGE_MESSAGES,
            "max_bytes": PAGE_BYTES,
        });
        let subject = format!("$JS.API.DIRECT.GET.{stream}");
        let sent = self.client().publish_with_reply(subject.clone(), inbox, request.to_string().into());
        sent.await.map_err(|_| Fault::Disconnected)?;
        let mut page = Page { messages: Vec::new(), last_sequence: 0, more: false };
        while self.take(&subject, &mut answers, &mut page).await? {}
        Ok(page)
    }

    /// Takes one more answer into the page; false when it was the last.
    async fn take(&self, subject: &str, answers: &mut Subscriber, page: &mut Page) -> Result<bool, Fault> {
        let Ok(Some(answer)) = tokio::time::timeout(REQUEST_WITHIN, answers.next()).await else {
            return Err(self.silence(subject).await);
        };
        match answer.status.map(|status| status.as_u16()) {
            None => {
                // Each message says which one it follows in the answer.
                let sequence = number(&answer, "Nats-Sequence");
                if number(&answer, "Nats-Last-Sequence") != Some(page.last_sequence) {
                    return Err(Fault::Garbled("an answer with a hole".to_owned()));
                }
                page.last_sequence =
                    sequence.ok_or_else(|| Fault::Garbled("a message without a sequence".to_owned()))?;
                page.messages.push(answer);
                Ok(true)
            }
            // The end: it repeats where the answer ended and says how much is left.
            Some(204) => {
                if number(&answer, "Nats-Last-Sequence") != Some(page.last_sequence) {
                    return Err(Fault::Garbled("an answer with a hole".to_owned()));
                }
                page.more = number(&answer, "Nats-Num-Pending").is_some_and(|left| left > 0);
                Ok(false)
            }
            Some(404) => Ok(false),
            Some(status) if status == StatusCode::NO_RESPONDERS.as_u16() => {
                Err(Fault::NoStream { subject: subject.to_owned() })
            }
            Some(status) => {
                let description = answer.description.unwrap_or_default();
                Err(Fault::Garbled(format!("{status} {description}")))
            }
        }
    }

    /// The last message on a subject. In a cluster any replica answers, and may lag.
    pub(crate) async fn last_on(&self, stream: &str, subject: &str) -> Result<Option<Last>, Fault> {
        let api = format!("$JS.API.DIRECT.GET.{stream}");
        let request = json!({ "last_by_subj": subject }).to_string();
        let answer = self.ask_message(&api, None, request.into()).await?;
        match answer.status.map(|status| status.as_u16()) {
            None => {
                let own = |name| Some(answer.headers.as_ref()?.get_last(name)?.as_str());
                let time = own("Nats-Time-Stamp").and_then(|time| time.parse().ok());
                let lacks = |what| Fault::Garbled(format!("a message without a {what}"));
                let sequence = number(&answer, "Nats-Sequence").ok_or_else(|| lacks("sequence"))?;
                Ok(Some(Last { sequence, time: time.ok_or_else(|| lacks("time"))?, body: answer.payload }))
            }
            Some(404) => Ok(None),
            Some(status) => Err(Fault::Garbled(format!("status {status}"))),
        }
    }

    /// One message, as the stream's leader has it.
    pub(crate) async fn leader_get(&self, stream: &str, request: &Value) -> Result<Option<RawMessage>, Fault> {
        #[derive(Deserialize)]
        struct Answer {
            message: Option<RawMessage>,
            error: Option<super::fault::ApiError>,
        }
        let subject = format!("$JS.API.STREAM.MSG.GET.{stream}");
        let answer = self.ask(&subject, None, request.to_string().into()).await?;
        let answer: Answer = serde_json::from_slice(&answer).map_err(|error| Fault::Garbled(error.to_string()))?;
        match answer.error.map(Fault::from) {
            None => Ok(answer.message),
            Some(fault) if fault.code() == Some(code::MESSAGE_NOT_FOUND) => Ok(None),
            Some(fault) => Err(fault),
        }
    }
}

fn number(answer: &Message, header: &'static str) -> Option<u64> {
    let headers: &HeaderMap = answer.headers.as_ref()?;
    headers.get_last(header)?.as_str().parse().ok()
}

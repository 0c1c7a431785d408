//! Reading a stream or bucket from one end to the other, message by message as they are stored.
//!
//! For readers of history: timelines, projections made anew, archives. It is a snapshot that may lag in a cluster, and it
//! makes no consumer. A message that is not readable is handed out like any other, so that one bad message does not hide
//! all others: see [`Verbatim::stored`].

use crate::bus::{Bus, Fault};
use crate::class::{Classified, ErrorClass};
use crate::message::{self, Verbatim};

/// Some consecutive messages under a filter.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The messages, in order.
    pub messages: Vec<Verbatim>,
    /// Where the next page begins; none when this is the last.
    pub next: Option<u64>,
}

/// A stream can not be read now.
#[derive(Debug, thiserror::Error)]
#[error("the stream {stream} can not be read now")]
pub struct ScanError {
    /// Which.
    pub stream: String,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl Classified for ScanError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Transient
    }

    fn code(&self) -> &'static str {
        "bus_unavailable"
    }
}

impl Bus {
    /// The messages of `stream` under the subject `filter` from a sequence on: as many as come in one answer.
    pub async fn scan(&self, stream: &str, filter: &str, from: u64) -> Result<Page, ScanError> {
        let failed = |source| ScanError { stream: stream.to_owned(), source };
        let page = self.page(stream, filter, from).await;
        let page = page.map_err(|fault: Fault| failed(Box::new(fault)))?;
        let messages = page.messages.iter().map(message::verbatim);
        let messages: Result<Vec<_>, message::NotInStream> = messages.collect();
        Ok(Page {
            messages: messages.map_err(|error| failed(Box::new(error)))?,
            next: page.more.then_some(page.last_sequence + 1),
        })
    }

    /// As [`Bus::scan`], all pages together: for what is bounded by itself, such as a run.
    pub async fn scan_all(&self, stream: &str, filter: &str, from: u64) -> Result<Vec<Verbatim>, ScanError> {
        let mut page = self.scan(stream, filter, from).await?;
        let mut all = page.messages;
        while let Some(next) = page.next {
            page = self.scan(stream, filter, next).await?;
            all.append(&mut page.messages);
        }
        Ok(all)
    }
}

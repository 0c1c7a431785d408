//! Reads an upstream's answer onto a tape.
//!
//! A stream is passed on as it comes, from its first byte on: before that a failure can still be told as an error of the
//! API. Its last event is held back, for whoever has the whole answer must be able to rely on its being kept. An answer
//! that is sent whole is held back until all of it is there and is one, because nobody can use half of it.

use std::{future::Future, pin::Pin, time::Duration};

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use bytes::Bytes;
use kit::class::chain;
use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::{
    config::Patience,
    failure::Failure,
    meter::{self, Metered, StreamMeter, Verdict},
    redact::Redactor,
    tape::{Head, Writer},
    upstream::{Api, Ready},
};

/// An answer above this is cut: no model's answer comes near, and a tape keeps all of it for those who join.
pub const MAX_ANSWER_BYTES: usize = 16 * 1024 * 1024;

/// How long an upstream may take to close after the last event of a stream. Nothing that counts follows.
const CLOSING: Duration = Duration::from_millis(250);

/// What is passed on of an answer's headers: what clients act on, and by what a provider finds a request again.
const PASSED_ON: [HeaderName; 7] = [
    header::CONTENT_TYPE,
    header::CACHE_CONTROL,
    header::RETRY_AFTER,
    HeaderName::from_static("retry-after-ms"),
    HeaderName::from_static("x-should-retry"),
    HeaderName::from_static("request-id"),
    HeaderName::from_static("x-request-id"),
];

/// A call to its upstream and what came of it.
#[derive(Debug)]
pub struct Fetched {
    /// Whether the request may have reached the upstream.
    pub reached: bool,
    /// The upstream's status.
    pub status: Option<StatusCode>,
    /// The answer's content type.
    pub content_type: String,
    /// How it ended.
    pub end: Result<(), Failure>,
    /// What the answer said about itself.
    pub metered: Metered,
    /// Bytes of the answer, when it was passed on as it was written.
    pub streamed_bytes: Option<u64>,
    /// From the start to the first byte.
    pub first_byte: Option<Duration>,
    /// From the start to the end.
    pub total: Duration,
}

/// Something that ends the call before its time.
pub type Cut<'a> = Pin<&'a mut (dyn Future<Output = Failure> + Send)>;

/// Sends the request and reads its answer onto `tape`, but for its end, until `cut` says why it must not go on.
pub async fn fetch(
    api: Api,
    streamed: bool,
    ready: Ready,
    patience: &Patience,
    tape: &Writer,
    cut: Cut<'_>,
) -> Fetched {
    let mut fetch = Fetch {
        api,
        streamed,
        tape,
        cut,
        patience,
        began: Instant::now(),
        reached: false,
        status: None,
        content_type: String::new(),
        metered: Metered::default(),
        streamed_bytes: None,
        first_byte: None,
    };
    let end = fetch.run(ready).await;
    Fetched {
        reached: fetch.reached,
        status: fetch.status,
        content_type: fetch.content_type,
        end,
        metered: fetch.metered,
        streamed_bytes: fetch.streamed_bytes,
        first_byte: fetch.first_byte,
        total: fetch.began.elapsed(),
    }
}

struct Fetch<'a> {
    api: Api,
    streamed: bool,
    tape: &'a Writer,
    cut: Cut<'a>,
    patience: &'a Patience,
    began: Instant,
    reached: bool,
    status: Option<StatusCode>,
    content_type: String,
    metered: Metered,
    streamed_bytes: Option<u64>,
    first_byte: Option<Duration>,
}

impl Fetch<'_> {
    async fn run(&mut self, ready: Ready) -> Result<(), Failure> {
        let first_byte = if self.streamed { self.patience.first_byte } else { self.patience.whole_answer };
        let deadline = self.began + first_byte;
        // Whatever happens from here on, the upstream may have begun to work.
        self.reached = true;
        let response = match self.within(deadline, ready.request.send()).await? {
            Ok(response) => response,
            Err(error) => {
                self.reached = !(error.is_connect() || error.is_builder());
                let failure = if self.reached { Failure::Cut } else { Failure::Unreachable };
                tracing::warn!(error = %chain(&error.without_url()), "{failure}");
                return Err(failure);
            }
        };
        let status = response.status();
        self.status = Some(status);
        if status.is_redirection() {
            return Err(Failure::Redirect);
        }
        text(response.headers(), header::CONTENT_TYPE).clone_into(&mut self.content_type);
        let head = Head { status, headers: passed_on(response.headers()), replayed: false };
        if is_encoded(response.headers()) {
            return Err(Failure::Garbage);
        }
        let redactor = Redactor::new(ready.key.as_ref().map(ExposeSecret::expose_secret));
        if self.streamed && status.is_success() && is_event_stream(response.headers()) {
            self.stream(response, head, deadline, redactor).await
        } else {
            self.whole(response, head, deadline, redactor).await
        }
    }

    /// Passes a stream on, all but its last event.
    async fn stream(
        &mut self,
        mut response: reqwest::Response,
        head: Head,
        first_byte: Instant,
        mut redactor: Redactor,
    ) -> Result<(), Failure> {
        let mut meter = StreamMeter::new(self.api);
        let mut head = Some(head);
        let mut deadline = first_byte;
        let mut came = 0;
        let end = loop {
            let complete = meter.verdict() == Verdict::Complete;
            match self.chunk(&mut response, came, deadline).await {
                Ok(Some(bytes)) => {
                    came += bytes.len();
                    meter.feed(&bytes);
                    let told = redactor.pass(&bytes);
                    if let Some(head) = head.take() {
                        self.tape.head(head);
                    }
                    if meter.verdict() == Verdict::Complete {
                        self.tape.hold(&told);
                        deadline = if complete { deadline } else { Instant::now() + CLOSING };
                    } else {
                        self.tape.push(&told);
                        deadline = Instant::now() + self.patience.next_byte;
                    }
                }
                // What breaks off after its last event is whole.
                Err(Failure::Stalled | Failure::Cut) if complete => break Ok(()),
                Ok(None) => break Ok(()),
                Err(failure) => break Err(failure),
            }
        };
        self.metered = meter.finish();
        self.streamed_bytes = Some(came as u64);
        if end.is_ok() {
            self.tape.hold(&redactor.finish());
        }
        match self.metered.verdict {
            // An error that was told can not be taken for an answer, so it ends as the upstream ended it.
            Verdict::Complete | Verdict::Error => end,
            Verdict::Incomplete => end.and(Err(Failure::Cut)),
            Verdict::Malformed => end.and(Err(Failure::Garbage)),
        }
    }

    /// Takes an answer that is sent whole, or an error of the provider's.
    async fn whole(
        &mut self,
        mut response: reqwest::Response,
        head: Head,
        first_byte: Instant,
        mut redactor: Redactor,
    ) -> Result<(), Failure> {
        let mut deadline = first_byte;
        let mut body = Vec::new();
        while let Some(bytes) = self.chunk(&mut response, body.len(), deadline).await? {
            body.extend_from_slice(&bytes);
            deadline = Instant::now() + self.patience.next_byte;
        }
        if head.status.is_success() {
            self.metered = meter::whole(self.api, &body);
            if self.metered.verdict != Verdict::Complete {
                return Err(Failure::Garbage);
            }
        }
        self.tape.hold(&redactor.pass(&body));
        self.tape.hold(&redactor.finish());
        self.tape.head(head);
        Ok(())
    }

    async fn chunk(
        &mut self,
        response: &mut reqwest::Response,
        before: usize,
        deadline: Instant,
    ) -> Result<Option<Bytes>, Failure> {
        let chunk = self.within(deadline, response.chunk()).await?;
        let chunk = chunk.map_err(|error| {
            tracing::warn!(error = %chain(&error.without_url()), "the model's provider broke off");
            Failure::Cut
        })?;
        if let Some(bytes) = &chunk {
            self.first_byte.get_or_insert_with(|| self.began.elapsed());
            if before + bytes.len() > MAX_ANSWER_BYTES {
                return Err(Failure::TooLarge);
            }
        }
        Ok(chunk)
    }

    async fn within<T>(&mut self, deadline: Instant, step: impl Future<Output = T>) -> Result<T, Failure> {
        tokio::select! {
            biased;
            failure = &mut self.cut => Err(failure),
            done = tokio::time::timeout_at(deadline, step) => done.map_err(|_| Failure::Stalled),
        }
    }
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let values = PASSED_ON.into_iter().filter_map(|name| {
        let value = headers.get(&name)?.clone();
        Some((name, value))
    });
    values.collect()
}

fn text(headers: &HeaderMap, name: HeaderName) -> &str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let media_type = text(headers, header::CONTENT_TYPE).split(';').next();
    media_type.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
}

fn is_encoded(headers: &HeaderMap) -> bool {
    let encoding = text(headers, header::CONTENT_ENCODING);
    !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_known_by_their_media_type() {
        let is = |kind: &'static str| {
            let value = axum::http::HeaderValue::from_static(kind);
            is_event_stream(&HeaderMap::from_iter([(header::CONTENT_TYPE, value)]))
        };
        assert!(is("text/event-stream") && is("Text/Event-Stream; charset=utf-8"));
        assert!(!is("application/json") && !is_event_stream(&HeaderMap::new()));
    }
}

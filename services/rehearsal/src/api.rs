//! The two wire APIs: request bodies in, answers and errors out, each in its own shape.
//!
//! Adapters only. What to answer is decided elsewhere, and nothing here waits or fails on purpose.

pub(crate) mod anthropic;
pub(crate) mod openai;

use bytes::Bytes;
use serde_json::Value;

use crate::conversation::{Api, InvalidRequest, Request};
use crate::reply::Reply;

/// Why a request gets an error for an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// What kind of error, in the words both APIs share.
    pub(crate) kind: FailureKind,
    /// What a person reads.
    pub(crate) message: String,
    /// Seconds to wait before another try.
    pub(crate) retry_after: Option<u32>,
}

/// The kinds of errors that providers show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// 400.
    InvalidRequest,
    /// 401.
    Authentication,
    /// 404.
    NotFound,
    /// 413.
    TooLarge,
    /// 429.
    RateLimited,
    /// 529 with Anthropic, 503 with OpenAI.
    Overloaded,
    /// Any other 5xx.
    Server(u16),
}

impl Failure {
    /// A failure without advice on when to try again.
    pub(crate) fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), retry_after: None }
    }
}

impl From<InvalidRequest> for Failure {
    fn from(invalid: InvalidRequest) -> Self {
        Self::new(FailureKind::InvalidRequest, invalid.to_string())
    }
}

/// A piece of a streamed answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// One server-sent event, its end included.
    pub(crate) bytes: Bytes,
    /// Output tokens that it carries.
    pub(crate) tokens: u32,
}

impl Api {
    /// Parses a request's body.
    ///
    /// # Errors
    /// The first thing in it that the provider would refuse.
    pub(crate) fn parse(self, body: &[u8]) -> Result<Request, InvalidRequest> {
        let request = match self {
            Self::Anthropic => anthropic::parse(body),
            Self::Openai => openai::parse(body),
        }?;
        request.check().map(|()| request)
    }

    /// The whole answer as one JSON body.
    pub(crate) fn body(self, reply: &Reply) -> Value {
        match self {
            Self::Anthropic => anthropic::body(reply),
            Self::Openai => openai::body(reply),
        }
    }

    /// The answer as the events of its stream.
    pub(crate) fn frames(self, reply: &Reply, include_usage: bool) -> Vec<Frame> {
        match self {
            Self::Anthropic => anthropic::frames(reply),
            Self::Openai => openai::frames(reply, include_usage),
        }
    }

    /// The status and body of an error.
    pub(crate) fn error(self, failure: &Failure, request_id: &str) -> (u16, Value) {
        match self {
            Self::Anthropic => (anthropic::status(failure.kind), anthropic::error(failure, request_id)),
            Self::Openai => (openai::status(failure.kind), openai::error(failure)),
        }
    }

    /// An error in the middle of a stream.
    pub(crate) fn error_frame(self, failure: &Failure, request_id: &str) -> Frame {
        match self {
            Self::Anthropic => anthropic::frame("error", 0, &anthropic::error(failure, request_id)),
            Self::Openai => openai::frame(0, &openai::error(failure)),
        }
    }

    /// A frame as a broken proxy would leave it: well delimited, its JSON cut off.
    pub(crate) fn malformed_frame(self) -> Frame {
        let text: &'static str = match self {
            Self::Anthropic => "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":\n\n",
            Self::Openai => "data: {\"id\":\"chatcmpl-\",\"choices\":[{\"index\":\n\n",
        };
        Frame { bytes: Bytes::from_static(text.as_bytes()), tokens: 0 }
    }

    /// The header that carries the request's id in this API's answers.
    pub(crate) fn request_id_header(self) -> &'static str {
        match self {
            Self::Anthropic => "request-id",
            Self::Openai => "x-request-id",
        }
    }
}

/// Bytes of `value` as compact JSON.
fn json_bytes(value: &impl serde::Serialize) -> usize {
    struct Count(usize);
    impl std::io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // Counting can not fail, and JSON values always serialise.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

//! The faults that providers show, as rules give them.

use std::time::Duration;

/// What providers do wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// 429.
    RateLimited {
        /// Seconds told to wait.
        retry_after: Option<u32>,
    },
    /// 529, or 503 with OpenAI.
    Overloaded {
        /// Seconds told to wait.
        retry_after: Option<u32>,
    },
    /// A 5xx.
    ServerError {
        /// The HTTP status.
        status: u16,
        /// Seconds told to wait.
        retry_after: Option<u32>,
    },
    /// 200 with a body that is a web page.
    Garbage,
    /// The connection ends in the middle of the answer.
    CutStream {
        /// Tokens that go out before.
        after_tokens: u32,
    },
    /// A frame whose JSON is broken, and then the rest of the answer.
    MalformedFrame {
        /// Tokens that go out before.
        after_tokens: u32,
    },
    /// An error in the middle of the stream, and then its end.
    ErrorFrame {
        /// Tokens that go out before.
        after_tokens: u32,
    },
    /// The answer tells no usage.
    MissingUsage,
    /// The answer tells a wrong usage.
    WrongUsage {
        /// Input tokens told.
        input_tokens: u32,
        /// Output tokens told.
        output_tokens: u32,
    },
    /// Nothing comes for a while, then the rest.
    Stall {
        /// Tokens that go out before; none: not even the response's head.
        after_tokens: Option<u32>,
        /// How long.
        duration: Duration,
    },
    /// Nothing comes any more until the client gives up.
    Hold {
        /// Tokens that go out before; none: not even the response's head.
        after_tokens: Option<u32>,
    },
}

impl Fault {
    /// Its name in scenario files.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::RateLimited { .. } => "rate_limited",
            Self::Overloaded { .. } => "overloaded",
            Self::ServerError { .. } => "server_error",
            Self::Garbage => "garbage",
            Self::CutStream { .. } => "cut_stream",
            Self::MalformedFrame { .. } => "malformed_frame",
            Self::ErrorFrame { .. } => "error_frame",
            Self::MissingUsage => "missing_usage",
            Self::WrongUsage { .. } => "wrong_usage",
            Self::Stall { .. } => "stall",
            Self::Hold { .. } => "hold",
        }
    }

    /// Whether the fault takes the place of the answer, so that a rule with it needs none.
    pub(crate) fn replaces_the_answer(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Overloaded { .. } | Self::ServerError { .. } | Self::Garbage)
    }
}

/// A fault, and to how many requests of one conversation it happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FaultRule {
    /// What goes wrong.
    pub(crate) fault: Fault,
    /// How often. No number: always.
    pub(crate) times: Option<u32>,
}

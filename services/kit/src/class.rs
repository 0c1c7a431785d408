//! What kind of failure an error is: the one question a consumer, a handler and an HTTP route ask of it.

pub use crate::telemetry::chain;

/// What has to happen with the message that led to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// It was understood and declined. Whoever refused has published so; the message is done.
    Refused,
    /// It can not be handled now; the same message may well be handled later.
    Transient,
    /// It can not be handled, however often it comes: it is parked and somebody is told.
    Broken,
}

/// An error that knows its class and has a stable name for programs.
pub trait Classified: std::error::Error {
    /// What has to happen with the message.
    fn class(&self) -> ErrorClass;

    /// A stable snake_case name, for dead letters, metrics and `--json`.
    fn code(&self) -> &'static str;
}

//! What the proxy is told by its surroundings, and how long it waits for them.

use std::time::Duration;

/// The proxy's configuration. Routes, keys and prices are the crew's, in `models.yaml`.
#[derive(Debug, Clone)]
pub struct Config {
    /// Root of the rehearsal model, for routes without a key; without it such routes are refused.
    pub rehearsal_url: Option<String>,
}

/// How long the proxy waits for whom. Tests have less of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For the next bytes of a request: what is not there yet takes room from others.
    pub request_next: Duration,
    /// For all of a request.
    pub request_all: Duration,
    /// For the first byte of an answer that is streamed.
    pub first_byte: Duration,
    /// For the first byte of an answer that is sent whole, which is written before anything of it is sent.
    pub whole_answer: Duration,
    /// For the next byte of an answer that has begun.
    pub next_byte: Duration,
    /// For the bus: whether an epoch is live, whether a reply is kept, that a landed call is on record.
    pub bus: Duration,
    /// For an epoch that is not in the log yet, as it is seen here. A follower of the log is milliseconds behind.
    pub epoch: Duration,
    /// For calls under way, once the end was asked for; then they are cut and booked.
    pub landing: Duration,
    /// For the records of those, within what a process has for its end.
    pub records: Duration,
}

impl Patience {
    /// What is shipped.
    pub const SHIPPED: Self = Self {
        // Callers have their requests ready, and the largest takes seconds on a slow network.
        request_next: Duration::from_secs(10),
        request_all: Duration::from_mins(1),
        // Providers send pings every few seconds; a model that thinks before it begins takes a minute or two.
        first_byte: Duration::from_mins(3),
        // What the providers' own SDKs wait.
        whole_answer: Duration::from_mins(10),
        next_byte: Duration::from_mins(3),
        bus: Duration::from_secs(2),
        epoch: Duration::from_secs(2),
        // Both together stay below `kit::service::GRACE`.
        landing: Duration::from_secs(6),
        records: Duration::from_secs(3),
    };
}

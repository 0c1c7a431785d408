//! What the service is told.

use std::time::Duration;

use jiff::SignedDuration;

/// How the log is kept from filling up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchivePolicy {
    /// Percent of the log's room from which on ended runs are archived.
    pub from_percent: u64,
    /// Percent at which archiving stops. Some below the beginning, so that it is not done one run at a time.
    pub to_percent: u64,
    /// How long a run must have ended: the audit room has its line by then, and late records of calls have come.
    pub settled: SignedDuration,
    /// How often the room is looked at.
    pub every: Duration,
}

impl ArchivePolicy {
    /// What Nightcrew ships with. New runs are refused from 80 % on, so there is room for those that go on meanwhile.
    pub const SHIPPED: Self =
        Self { from_percent: 60, to_percent: 50, settled: SignedDuration::from_mins(1), every: Duration::from_secs(5) };
}

/// The service's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// When ended runs leave the log.
    pub archive: ArchivePolicy,
}

impl Config {
    /// What Nightcrew ships with.
    pub const SHIPPED: Self = Self { archive: ArchivePolicy::SHIPPED };
}

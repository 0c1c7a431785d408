//! Durations as people write them.

use std::{fmt, str::FromStr, time::Duration};

/// A duration such as `30s`, `5m`, `250ms` or `1h 30m`; a bare number is seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(pub Duration);

/// A text that is not a duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a duration such as 30s or 5m")]
pub struct InvalidDuration;

impl FromStr for Seconds {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(seconds) = text.parse() {
            return Ok(Self(Duration::from_secs(seconds)));
        }
        let signed: jiff::SignedDuration = text.parse().map_err(|_| InvalidDuration)?;
        Duration::try_from(signed).map(Self).map_err(|_| InvalidDuration)
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

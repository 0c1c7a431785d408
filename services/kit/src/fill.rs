//! How full the log is: looked up each second, so that new runs are refused before runs in hand lack room to end.
//!
//! Who asks for a run asks here first: [`crate::requester`] for triggers, the runner for children and retries,
//! [`crate::dead`] for requests that were parked.

use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};
use crate::journal::STREAM;
use crate::service::{Check, Context};

/// From here on new runs are refused: a fifth of the log is kept for runs in hand, each of which has a byte limit.
pub const REFUSE_AT_PERCENT: u64 = 80;

/// From here on runs in hand end at their next step: their ends, and the marks of archives that make room, need some.
pub const END_AT_PERCENT: u64 = 95;

/// How often it is looked up.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long a look counts. A burst that fills a tenth of the log in that time is beyond what a disk writes.
const COUNTS_FOR: Duration = Duration::from_secs(10);

/// How long whoever asks before the first look waits for it.
const FIRST_LOOK_WITHIN: Duration = Duration::from_secs(5);

/// Name of the health check.
const CHECK: &str = "log";

/// No run can be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoRoom {
    /// The log is too full.
    #[error("the log is {percent} % full; new runs are refused from {REFUSE_AT_PERCENT} % on")]
    Full {
        /// How full it is.
        percent: u64,
    },
    /// It is not known how full the log is.
    #[error("it can not be looked up how full the log is")]
    Unknown,
}

impl Classified for NoRoom {
    fn class(&self) -> ErrorClass {
        match self {
            // Whoever asked is told; the same request may be made again.
            Self::Full { .. } => ErrorClass::Refused,
            Self::Unknown => ErrorClass::Transient,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Full { .. } => "log_full",
            Self::Unknown => "bus_unavailable",
        }
    }
}

/// How full the log is. Clones share the look.
#[derive(Clone, Debug)]
pub struct Fill {
    seen: watch::Receiver<Option<Seen>>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    percent: u64,
    at: tokio::time::Instant,
}

impl Fill {
    /// Looks it up from now on, as a vital task of `context`, whose health is red while runs are refused.
    pub fn start(bus: &Bus, context: &Context) -> Self {
        let (seen, watched) = watch::channel(None);
        let looking = look(bus.clone(), context.clone(), seen);
        context.spawn_vital("fill", looking);
        Self { seen: watched }
    }

    /// Whether a run may be started.
    pub async fn check(&self) -> Result<(), NoRoom> {
        let mut seen = self.seen.clone();
        let first = seen.wait_for(Option::is_some);
        let known = match tokio::time::timeout(FIRST_LOOK_WITHIN, first).await {
            Ok(Ok(known)) => *known,
            _ => None,
        };
        let known = known.filter(|seen| seen.at.elapsed() < COUNTS_FOR);
        judge(known.map(|seen| seen.percent))
    }

    /// Whether what is left is for ends alone.
    pub fn is_spent(&self) -> bool {
        self.percent().is_some_and(|percent| percent >= END_AT_PERCENT)
    }

    /// How full the log is, in percent, as last seen.
    pub fn percent(&self) -> Option<u64> {
        self.seen.borrow().map(|seen| seen.percent)
    }
}

/// Whether a run may be started, for who asks once, such as a command: it is looked up now.
pub async fn check_now(bus: &Bus) -> Result<(), NoRoom> {
    let percent = tokio::time::timeout(FIRST_LOOK_WITHIN, percent(bus)).await;
    judge(percent.ok().and_then(Result::ok))
}

fn judge(percent: Option<u64>) -> Result<(), NoRoom> {
    match percent {
        None => Err(NoRoom::Unknown),
        Some(percent) if percent >= REFUSE_AT_PERCENT => Err(NoRoom::Full { percent }),
        Some(_) => Ok(()),
    }
}

async fn look(bus: Bus, context: Context, seen: watch::Sender<Option<Seen>>) {
    let shutdown: CancellationToken = context.shutdown.clone();
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match percent(&bus).await {
            Ok(percent) => {
                context.health.set(CHECK, health(percent));
                let at = tokio::time::Instant::now();
                seen.send_replace(Some(Seen { percent, at }));
            }
            Err(error) => tracing::warn!(error, "how full the log is can not be looked up now"),
        }
    }
}

fn health(percent: u64) -> Check {
    match judge(Some(percent)) {
        Ok(()) => Check::Green,
        Err(refusal) => Check::Red(refusal.to_string()),
    }
}

async fn percent(bus: &Bus) -> Result<u64, async_nats::Error> {
    let stream = bus.jetstream().get_stream_no_info(STREAM).await?;
    let info = stream.get_info().await?;
    let most = u64::try_from(info.config.max_bytes).unwrap_or(0);
    // A log without a limit is never full; the disk is another's concern.
    Ok((info.state.bytes.saturating_mul(100)).checked_div(most).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_refused_from_eighty_percent_on_and_when_nobody_knows() {
        assert_eq!(judge(Some(79)), Ok(()));
        assert_eq!(judge(Some(80)), Err(NoRoom::Full { percent: 80 }));
        assert_eq!(judge(None), Err(NoRoom::Unknown));
    }
}

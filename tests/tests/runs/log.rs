//! All runs of a crew at once, as the log has them: read on from where it was read to.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use anyhow::bail;
use kit::{bus::Bus, journal::STREAM, message::Stored};
use schemas::{RunId, subject::filter};

/// How long a thousand runs may take, which is half a minute when nothing else is done.
const PATIENCE: Duration = Duration::from_mins(4);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What every run came to so far.
pub(crate) struct Log {
    bus: Bus,
    next: u64,
    kinds: HashMap<RunId, Vec<String>>,
}

impl Log {
    /// From the first message on.
    pub(crate) fn of(bus: &Bus) -> Self {
        Self { bus: bus.clone(), next: 1, kinds: HashMap::new() }
    }

    /// Waits until as many runs as `wanted` have an event of this kind.
    pub(crate) async fn wait(&mut self, kind: &str, wanted: usize) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.read().await?;
            if self.with(kind).count() >= wanted {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("{} of {wanted} runs came to `{kind}` in time: {:?}", self.with(kind).count(), self.counts());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The runs that have an event of this kind.
    pub(crate) fn with(&self, kind: &str) -> impl Iterator<Item = RunId> {
        self.kinds.iter().filter(move |(_, kinds)| kinds.iter().any(|seen| seen == kind)).map(|(run, _)| *run)
    }

    /// The kinds of each run's events, in order.
    pub(crate) const fn kinds(&self) -> &HashMap<RunId, Vec<String>> {
        &self.kinds
    }

    /// How often each kind of event is in the log.
    fn counts(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for kind in self.kinds.values().flatten() {
            *counts.entry(kind.as_str()).or_default() += 1;
        }
        counts
    }

    async fn read(&mut self) -> anyhow::Result<()> {
        loop {
            let page = self.bus.scan(STREAM, filter::RUNS, self.next).await?;
            for message in &page.messages {
                let stored: Stored = message.stored()?;
                self.next = stored.sequence + 1;
                if let Some(run) = stored.run_id() {
                    self.kinds.entry(run).or_default().extend(stored.kinds);
                }
            }
            if page.next.is_none() {
                return Ok(());
            }
        }
    }
}

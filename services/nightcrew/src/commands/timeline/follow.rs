//! A timeline that goes on while its run does.
//!
//! The bus only nudges: what is printed is always what the log says, read anew, less what was printed before. So nothing is
//! lost when the connection is, and what is printed last is the same as without `--follow`. Gaps are told at the end,
//! because what is still under way is no gap.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use async_nats::Subscriber;
use futures::StreamExt as _;
use kit::logs::LogStore;
use schemas::{
    AgentName, EventId, RunId,
    cli::FollowedEntry,
    subject::filter,
    summary::RunState,
    timeline::{Entry, Gap, Source, Timeline},
};

use super::{pretty, read};
use crate::{
    cli::TimelineOptions,
    connected::Connected,
    output::{Output, PrintError},
};

/// Between two readings at least: a person sees no difference, and a busy run is not read for each of its messages.
const AT_LEAST: Duration = Duration::from_millis(200);

/// Between two readings at most: log lines come without a nudge.
const AT_MOST: Duration = Duration::from_secs(1);

/// After a run's end, how long is waited for what belongs to it, such as that its answer was delivered.
const SETTLES_WITHIN: Duration = Duration::from_secs(5);

/// Prints a timeline until its run has ended.
pub(super) async fn follow(
    crew: &Connected,
    logs: &LogStore,
    run: RunId,
    options: &TimelineOptions,
    out: &Output,
) -> anyhow::Result<()> {
    let subject = if options.tree { filter::RUNS.to_owned() } else { filter::run(run) };
    let mut nudges = crew.bus.client().subscribe(subject).await?;
    let mut printed = Printed::default();
    let mut ended = None;
    loop {
        let timeline = read(crew, logs, run, options.tree).await?;
        let over = over(&timeline);
        let patience_is_over = over && *ended.get_or_insert_with(Instant::now) + SETTLES_WITHIN < Instant::now();
        let settled = over && (has_everything(&timeline) || patience_is_over);
        for followed in printed.new_in(&timeline, settled) {
            print(&followed, crew, options, out)?;
        }
        if settled {
            return Ok(end(&timeline, options, out)?);
        }
        wait(&mut nudges).await;
    }
}

fn print(
    followed: &FollowedEntry,
    crew: &Connected,
    options: &TimelineOptions,
    out: &Output,
) -> Result<(), PrintError> {
    if options.json {
        return out.json_line(followed);
    }
    let agent = options.tree.then(|| followed.agent.as_str());
    out.line(&pretty::entry(&followed.entry, agent, &crew.project.crew.time_zone, out))
}

fn end(timeline: &Timeline, options: &TimelineOptions, out: &Output) -> Result<(), PrintError> {
    if options.json {
        return Ok(());
    }
    for line in pretty::head(&timeline.summary, out) {
        out.line(&line)?;
    }
    out.line(&pretty::verdict(timeline, out))
}

/// Waits for the next nudge, not too short and not too long.
async fn wait(nudges: &mut Subscriber) {
    tokio::time::sleep(AT_LEAST).await;
    let _ = tokio::time::timeout(AT_MOST, nudges.next()).await;
    // What came meanwhile is read with it.
    while let Some(Some(_)) = futures::FutureExt::now_or_never(nudges.next()) {}
}

/// Whether the run and all that is shown below it have ended.
fn over(timeline: &Timeline) -> bool {
    timeline.summary.state == RunState::Ended && timeline.children.iter().all(over)
}

/// Whether nothing is missing that may still come, as log lines never do.
fn has_everything(timeline: &Timeline) -> bool {
    timeline.gaps.iter().all(Gap::is_of_logs) && timeline.children.iter().all(has_everything)
}

/// What makes an entry the same: that of a message is told apart by its event, another by all that it is.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Identity {
    Event(RunId, Source, EventId),
    Other(RunId, Source, jiff::Timestamp, String),
}

impl Identity {
    fn of(run: RunId, entry: &Entry) -> Self {
        match &entry.id {
            Some(id) => Self::Event(run, entry.source, id.clone()),
            None => Self::Other(run, entry.source, entry.at, entry.line.clone()),
        }
    }
}

/// What was printed, and how often: a tool may print the same line twice in a millisecond.
#[derive(Debug, Default)]
struct Printed(HashMap<Identity, usize>);

impl Printed {
    /// What of a timeline was not printed yet, in order of time. It is held to be printed from now on.
    fn new_in(&mut self, timeline: &Timeline, with_gaps: bool) -> Vec<FollowedEntry> {
        let mut all = Vec::new();
        collect(timeline, &mut all);
        let mut seen: HashMap<Identity, usize> = HashMap::new();
        let mut new = Vec::new();
        for (run_id, agent, entry) in all {
            if entry.source == Source::Gap && !with_gaps {
                continue;
            }
            let count = seen.entry(Identity::of(run_id, entry)).or_default();
            *count += 1;
            let printed = self.0.entry(Identity::of(run_id, entry)).or_default();
            if count > printed {
                *printed += 1;
                new.push(FollowedEntry { run_id, agent: agent.clone(), entry: entry.clone() });
            }
        }
        // Stable: what a run's own timeline puts first stays first.
        new.sort_by_key(|followed| followed.entry.at);
        new
    }
}

fn collect<'a>(timeline: &'a Timeline, all: &mut Vec<(RunId, &'a AgentName, &'a Entry)>) {
    let summary = &timeline.summary;
    all.extend(timeline.entries.iter().map(|entry| (summary.run_id, &summary.agent, entry)));
    for child in &timeline.children {
        collect(child, all);
    }
}

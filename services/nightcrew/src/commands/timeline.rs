//! `nightcrew timeline`: everything that is known of a run, read from the log; no service need be up for it.

mod follow;
mod pretty;

use kit::logs::{Limits, LogStore};
use schemas::{RunId, timeline::Timeline};

use super::run_of;
use crate::{cli::TimelineOptions, connected::Connected, output::Output};

/// Shows a run.
pub(crate) async fn timeline(crew: &Connected, options: &TimelineOptions, out: &Output) -> anyhow::Result<()> {
    let run = run_of(&crew.bus, &options.run).await?;
    let logs = LogStore::at(crew.project.state("logs"), Limits::SHIPPED);
    if options.follow {
        return follow::follow(crew, &logs, run, options, out).await;
    }
    let timeline = read(crew, &logs, run, options.tree).await?;
    if options.json {
        return Ok(out.json(&timeline)?);
    }
    Ok(pretty::print(&timeline, &crew.project.crew.time_zone, out)?)
}

async fn read(crew: &Connected, logs: &LogStore, run: RunId, tree: bool) -> anyhow::Result<Timeline> {
    Ok(run_correlator::timeline(&crew.bus, logs, run, tree).await?)
}

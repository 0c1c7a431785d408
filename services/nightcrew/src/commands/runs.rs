//! `nightcrew runs`: the latest runs.

use kit::clock;
use run_correlator::Filter;
use schemas::{
    cli::RunList,
    summary::{RunState, RunSummary},
};

use super::show;
use crate::{
    cli::{RunsOptions, StateFilter},
    connected::Connected,
    output::{Output, Tone},
};

/// Runs that are looked at when only some states are wanted: what a crew does in about a year, about 100 MB.
const MOST_LOOKED_AT: usize = 100_000;

/// Characters of a task in the list; the whole of it is in the timeline.
const TASK_CHARS: usize = 80;

/// Lists runs.
pub(crate) async fn runs(crew: &Connected, options: &RunsOptions, out: &Output) -> anyhow::Result<()> {
    if let Some(agent) = &options.agent {
        crew.known(agent)?;
    }
    let list = list(crew, options).await?;
    if options.json {
        return Ok(out.json(&list)?);
    }
    if list.runs.is_empty() {
        return Ok(out.line("no runs")?);
    }
    out.table(&["RUN", "AGENT", "STATE", "REQUESTED", "TOOK", "TOKENS", "COST", "TASK"], rows(crew, &list.runs))?;
    if list.more {
        out.line(&out.tone(Tone::Quiet, "there are more: --limit"))?;
    }
    Ok(())
}

async fn list(crew: &Connected, options: &RunsOptions) -> anyhow::Result<RunList> {
    let limit = usize::try_from(options.limit)?;
    let filter = Filter {
        agent: options.agent.clone(),
        ended: options.state.map(|state| {
            !matches!(state, StateFilter::Open | StateFilter::Requested | StateFilter::Running | StateFilter::Waiting)
        }),
        // One more than is shown tells whether there are more.
        ..Filter::newest(if options.state.is_some() { MOST_LOOKED_AT } else { limit + 1 })
    };
    let mut runs = run_correlator::list(&crew.bus, &filter).await?;
    runs.retain(|summary| options.state.is_none_or(|state| fits(state, summary)));
    let more = runs.len() > limit;
    runs.truncate(limit);
    Ok(RunList { runs, more })
}

fn fits(state: StateFilter, summary: &RunSummary) -> bool {
    match state {
        StateFilter::Open => summary.state != RunState::Ended,
        StateFilter::Requested => summary.state == RunState::Requested,
        StateFilter::Running => summary.state == RunState::Running,
        StateFilter::Waiting => matches!(summary.state, RunState::Waiting(_)),
        StateFilter::Ended => summary.state == RunState::Ended,
        ended => summary.outcome.is_some() && summary.outcome == ended.outcome(),
    }
}

fn rows(crew: &Connected, runs: &[RunSummary]) -> Vec<Vec<(Tone, String)>> {
    let zone = &crew.project.crew.time_zone;
    let row = |summary: &RunSummary| {
        let (tone, state) = show::state(summary);
        vec![
            (Tone::Plain, summary.run_id.to_string()),
            (Tone::Plain, summary.agent.to_string()),
            (tone, state.to_owned()),
            (Tone::Quiet, show::moment(summary.requested_at, zone)),
            (Tone::Plain, show::length(took(summary))),
            (Tone::Plain, show::count(summary.totals.usage.total())),
            (Tone::Plain, show::money(&summary.totals)),
            (Tone::Plain, show::excerpt(&summary.prompt, TASK_CHARS)),
        ]
    };
    runs.iter().map(row).collect()
}

/// How long a run took, or has taken until now.
fn took(summary: &RunSummary) -> u64 {
    if summary.state == RunState::Ended {
        return summary.totals.millis;
    }
    u64::try_from(clock::now().duration_since(summary.requested_at).as_millis()).unwrap_or(0)
}

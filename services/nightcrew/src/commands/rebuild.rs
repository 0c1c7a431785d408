//! `nightcrew rebuild`: everything that is derived from the log, made anew from it.

use std::time::Instant;

use schemas::cli::Rebuilt;

use super::show;
use crate::{cli::JsonOptions, connected::Connected, output::Output};

/// Makes the projections anew.
pub(crate) async fn rebuild(crew: &Connected, options: &JsonOptions, out: &Output) -> anyhow::Result<()> {
    let began = Instant::now();
    let rebuilt = run_correlator::rebuild(&crew.bus).await?;
    let millis = u64::try_from(began.elapsed().as_millis())?;
    if options.json {
        return Ok(out.json(&Rebuilt { runs: rebuilt.runs, millis })?);
    }
    Ok(out.line(&format!(
        "{} told anew from the log in {}",
        show::counted(rebuilt.runs, "run"),
        show::length(millis)
    ))?)
}

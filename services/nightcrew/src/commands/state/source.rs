//! Where a state comes from: a run's journal, folded, or a file.

use std::{io::Read as _, path::Path};

use agent_runner::run::RunState;
use anyhow::Context as _;
use kit::blobs::Blobs;
use schemas::{
    RunId, SavedState,
    state::{InvalidState, MAX_STATE_BYTES},
};

use crate::{
    commands::run_of,
    connected::{Connected, Usage},
};

/// The state that a person names: by a file, or by a run.
pub(crate) async fn of(crew: &Connected, text: &str) -> anyhow::Result<SavedState> {
    match of_file(text)? {
        Some(state) => Ok(state),
        None => of_run(crew, text).await,
    }
}

/// The state in a file; none when `text` names no file. What is a run's id never does.
pub(crate) fn of_file(text: &str) -> anyhow::Result<Option<SavedState>> {
    let path = Path::new(text);
    if text.parse::<RunId>().is_ok() || !path.is_file() {
        return Ok(None);
    }
    let file = std::fs::File::open(path).with_context(|| format!("{text} can not be read"))?;
    let mut content = Vec::new();
    // One byte more than is allowed tells that there is too much.
    file.take(MAX_STATE_BYTES + 1).read_to_end(&mut content).with_context(|| format!("{text} can not be read"))?;
    let state = SavedState::parse(&content).with_context(|| format!("nobody can go on from {text}"))?;
    Ok(Some(state))
}

/// The state of an agent after a run, as far as that came, from the log or the run's archive.
pub(crate) async fn of_run(crew: &Connected, text: &str) -> anyhow::Result<SavedState> {
    let run = run_of(&crew.bus, text).await.map_err(|error| match error.downcast::<Usage>() {
        Ok(Usage(why)) => Usage(format!("there is no file {text}, and {why}")).into(),
        Err(error) => error,
    })?;
    let journal = run_correlator::journal(&crew.bus, run).await?;
    let [first, rest @ ..] = journal.as_slice() else { anyhow::bail!("run {run} has lost its beginning") };
    let mut state = RunState::begin(run, first.sequence, first.time, &first.decision)?;
    for message in rest {
        state.apply_message(message.sequence, 0, &message.decision)?;
    }
    if let Some(blob) = state.request().state.clone() {
        let failed = || format!("run {run} went on from a saved state that can not be loaded");
        let content = Blobs::new(&crew.bus).get(&blob).await.with_context(failed)?;
        state.go_on_from(&SavedState::parse(&content).with_context(failed)?);
    }
    Ok(state.save()?)
}

/// A state as it is kept, in a file or a blob. What could not be read again is refused here.
pub(crate) fn encode(state: &SavedState) -> anyhow::Result<Vec<u8>> {
    let content = serde_json::to_vec_pretty(state)?;
    SavedState::parse(&content).map_err(|error: InvalidState| {
        anyhow::Error::new(error).context(format!("nobody could go on from run {}", state.run_id))
    })?;
    Ok(content)
}

//! Loading the saved state that a run goes on from.
//!
//! It is done each time a runner takes the run, before anything else: the conversation and the worktree begin with it. What
//! `requested` names is named by its content, so every runner loads the same. Nothing of it is journaled.

use std::time::Duration;

use kit::{
    blobs::BlobError,
    class::{Classified as _, ErrorClass, chain},
    clock,
};
use schemas::{
    BlobRef, SavedState,
    event::{FailReason, Requested},
    state::{InvalidState, MAX_STATE_BYTES},
};

use crate::{
    hold::{Held, HoldError},
    run::{Command, End},
    runtime::Runtime,
};

/// Pause between tries while the blobs are away: the run has nothing to go on from until then.
const RETRY: Duration = Duration::from_millis(200);

/// A state is not loaded.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    /// Its blob can not be had.
    #[error("its blob can not be had")]
    Blob(#[from] BlobError),
    /// It is none that the run can go on from.
    #[error("it can not be used")]
    Invalid(#[from] InvalidState),
}

/// Loads the state that the run's request names, if it names one. Waits for the blobs for as long as the run has time. A
/// state that is lost or damaged ends the run, with that as its reason.
pub(crate) async fn saved_state(runtime: &Runtime, held: &mut Held) -> Result<(), HoldError> {
    let request = held.state().request().clone();
    let Some(blob) = &request.state else { return Ok(()) };
    // When its time is up meanwhile, that is why it ends.
    while !held.has_ended() && clock::now() < request.deadline {
        match load(runtime, &request, blob).await {
            Ok(saved) => {
                held.go_on_from(&saved);
                return Ok(());
            }
            Err(LoadError::Blob(error)) if error.class() == ErrorClass::Transient => {
                tracing::warn!(error = %chain(&error), "the saved state can not be loaded now");
            }
            Err(error) => {
                let message =
                    format!("the saved state that this run goes on from can not be loaded: {}", chain(&error));
                tracing::error!(error = %chain(&error), blob = blob.blob, "a saved state can not be loaded");
                return held.decide(Command::End(End::Fail(FailReason::State, message), clock::now()));
            }
        }
        tokio::select! {
            () = runtime.shutdown.cancelled() => return Err(HoldError::ShuttingDown),
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    Ok(())
}

async fn load(runtime: &Runtime, request: &Requested, blob: &BlobRef) -> Result<SavedState, LoadError> {
    if blob.bytes > MAX_STATE_BYTES {
        return Err(InvalidState::TooLarge { bytes: blob.bytes }.into());
    }
    let content = runtime.blobs.get(blob).await?;
    let saved = SavedState::parse(&content)?;
    saved.check_for(&request.project, &request.agent)?;
    Ok(saved)
}

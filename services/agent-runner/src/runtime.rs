//! What every drive of every run shares.

use std::sync::Arc;

use jiff::{Timestamp, civil::Date};
use kit::{
    blobs::Blobs,
    bus::Bus,
    crew::Crew,
    due,
    fill::Fill,
    journal::{Appender, Journal},
};
use schemas::{AgentName, Block, Class, MicroUsd, RunId, Text, Usage};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    controls::Controls,
    hold::HoldError,
    model::ModelClient,
    probe::Probe,
    run::{Limits, Turn},
    toolbox::Toolbox,
};

/// What every drive shares.
#[derive(Debug)]
pub struct Runtime {
    /// The bus.
    pub bus: Bus,
    /// The log of runs.
    pub journal: Journal,
    /// Writes to it.
    pub appender: Appender,
    /// Where long texts and bundles are.
    pub blobs: Blobs,
    /// The crew's files.
    pub crew: Arc<Crew>,
    /// The way to models.
    pub model: ModelClient,
    /// Tools, worktrees and the sandbox.
    pub toolbox: Toolbox,
    /// What people told the crew.
    pub controls: watch::Receiver<Controls>,
    /// Whether the log has room for children.
    pub fill: Fill,
    /// Loop breakers.
    pub limits: Limits,
    /// This process, for `started` and `resumed`.
    pub runner: String,
    /// What a test wants to be told.
    pub probe: Probe,
    /// The end of this process.
    pub shutdown: CancellationToken,
}

impl Runtime {
    /// Keeps a text inline when it is short, else in a blob. A text that can not be stored is cut and says so: the run
    /// goes on, and the model sees what is missing.
    pub(crate) async fn text(&self, text: String) -> Text {
        keep(&self.blobs, text).await
    }

    /// The text itself.
    pub(crate) async fn load(&self, text: &Text) -> String {
        match self.blobs.load(text).await {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(error = %kit::class::chain(&error), "a text of the run could not be loaded");
                format!("{}\n[the rest of this text could not be loaded: {error}]", text.preview())
            }
        }
    }

    /// The conversation with every text inline.
    pub(crate) async fn load_turns(&self, turns: Vec<Turn>) -> Vec<Turn> {
        let mut loaded = Vec::with_capacity(turns.len());
        for turn in turns {
            loaded.push(match turn {
                Turn::User(texts) => {
                    let mut inline = Vec::with_capacity(texts.len());
                    for text in texts {
                        inline.push(Text::Inline(self.load(&text).await));
                    }
                    Turn::User(inline)
                }
                Turn::Tools(mut results) => {
                    for result in &mut results {
                        result.output = Text::Inline(self.load(&result.output).await);
                    }
                    Turn::Tools(results)
                }
                Turn::Assistant(blocks) => Turn::Assistant(without_empty(blocks)),
            });
        }
        loaded
    }

    /// Asks for a tick at `at`, which wakes a run that still waits then.
    pub(crate) async fn wake_at(&self, run: RunId, at: Timestamp) -> Result<(), HoldError> {
        loop {
            match due::schedule(&self.bus, run, at).await {
                Ok(()) => return Ok(()),
                Err(error) => {
                    tracing::warn!(error = %kit::class::chain(&error), "the deadline's tick can not be scheduled now");
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return Err(HoldError::ShuttingDown),
                () = tokio::time::sleep(crate::hold::APPEND_RETRY) => {}
            }
        }
    }

    /// What a call of a route cost by the prices of `day`.
    pub(crate) fn price(&self, route: &str, usage: &Usage, day: Date) -> Option<MicroUsd> {
        let route = self.crew.models.routes.get(route)?;
        self.crew.models.price(&route.model, day, usage)
    }

    /// The colleague that `agent` names, or why it may not hand work to it.
    pub(crate) fn colleague(&self, agent: &AgentName, named: &str) -> Result<AgentName, String> {
        let allowed = self.crew.agent(agent).map(|agent| agent.capabilities.handoff_to.as_slice()).unwrap_or_default();
        let found =
            allowed.iter().find(|colleague| colleague.as_str() == named && self.crew.agent(colleague).is_some());
        found.cloned().ok_or_else(|| {
            let names = allowed.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", ");
            format!("You may not hand work to {named:?}. You may hand work to: {names}.")
        })
    }

    /// Which kind of process serves an agent.
    pub(crate) fn class_of(&self, agent: &AgentName) -> Class {
        self.crew.agent(agent).map_or(Class::Resident, |agent| agent.capabilities.lifecycle)
    }
}

/// Providers refuse empty text blocks.
fn without_empty(blocks: Vec<Block>) -> Vec<Block> {
    blocks.into_iter().filter(|block| !matches!(block, Block::Text { text } if text.is_empty())).collect()
}

/// Keeps a text inline when it is short, else in a blob.
pub(crate) async fn keep(blobs: &Blobs, text: String) -> Text {
    match blobs.text(text.clone()).await {
        Ok(text) => text,
        Err(error) => {
            tracing::error!(error = %kit::class::chain(&error), "a long text could not be stored");
            let end = text.floor_char_boundary(schemas::content::MAX_INLINE_BYTES / 2);
            Text::Inline(format!("{}\n[{} more bytes could not be stored: {error}]", &text[..end], text.len() - end))
        }
    }
}

//! The saved state of an agent: how far it came in a run, so that a new run can go on from there.
//!
//! It is a blob, named by its content, and a run that goes on from it names it in `requested`: whoever folds that run
//! again reads the same state. It is also a file, which people keep and give back.
//!
//! It is made from a run's journal and belongs to its project: long texts and bundles of the worktree are references to
//! blobs, which the journal of the run names too, and so keeps. A state is input from outside: [`SavedState::parse`] is
//! the one way to read it, and takes nothing that a run could not go on from.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    content::{Block, Text},
    event::{Outcome, ToolOutcome, Work, WorktreeSaved},
    ids::{AgentName, ProjectId, RunId},
};

/// The version of [`SavedState`] that this build writes and the newest that it reads.
pub const STATE_VERSION: u32 = 1;

/// Largest state as JSON. A conversation is cut to twice the largest window of a model, some 4 MB of text; escaped and with
/// what else belongs to it, no state comes near this.
pub const MAX_STATE_BYTES: u64 = 32 * 1024 * 1024;

/// How far an agent came in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SavedState {
    /// [`STATE_VERSION`] of the writer.
    pub version: u32,
    /// The project whose log has the run.
    pub project: ProjectId,
    /// The agent.
    pub agent: AgentName,
    /// The run.
    pub run_id: RunId,
    /// The stream sequence of the last message of its journal that is in the state.
    pub sequence: u64,
    /// How the run ended; absent when it had not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// The conversation, oldest first, with that of the state which the run itself went on from. It begins with somebody's
    /// words to the agent, and every call in it has its result. A model's thinking is left out: it is only wanted within a
    /// step.
    pub turns: Vec<Turn>,
    /// How many turns were left out after the first, oldest first, because there were too many.
    #[serde(default)]
    pub left_out: u64,
    /// Every tool call that was made, oldest first, also of turns that were left out.
    #[serde(default)]
    pub tools: Vec<ToolUse>,
    /// The commit that the run, or a child of it, published last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// The bundles that hold the worktree, oldest first, uncommitted changes included; none when it was not changed.
    #[serde(default)]
    pub worktree: Vec<WorktreeSaved>,
    /// What harnesses keep of their own, by their names. Whoever does not know one passes it on as it is.
    #[serde(default)]
    pub data: BTreeMap<String, serde_json::Value>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "role", rename_all = "snake_case")]
pub enum Turn {
    /// Somebody speaks to the agent.
    User {
        /// What, one after the other.
        texts: Vec<Text>,
    },
    /// The model spoke.
    Assistant {
        /// What.
        blocks: Vec<Block>,
    },
    /// What its tool calls returned.
    Tools {
        /// One a call, in the order of the calls.
        results: Vec<ToolResult>,
    },
}

/// What one tool call returned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolResult {
    /// The call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: ToolOutcome,
    /// What the model was shown.
    pub output: Text,
}

/// A tool call that was made. What it was about is in its turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolUse {
    /// The call.
    pub call_id: String,
    /// The tool.
    pub tool: String,
    /// How it ended.
    pub outcome: ToolOutcome,
}

/// Something that no run can go on from.
#[derive(Debug, thiserror::Error)]
pub enum InvalidState {
    /// It is larger than any state.
    #[error("it has {bytes} bytes, and no saved state has more than {MAX_STATE_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: u64,
    },
    /// It is none, or not all of one.
    #[error("it is damaged, or no saved state")]
    Damaged(#[source] serde_json::Error),
    /// A newer build wrote it.
    #[error("it has version {found}, and {STATE_VERSION} is the newest that this build reads: upgrade it")]
    Future {
        /// Its version.
        found: u32,
    },
    /// Its conversation is not one.
    #[error("its conversation is damaged at turn {turn}: {why}")]
    Conversation {
        /// Which turn, from 1.
        turn: usize,
        /// What is wrong there.
        why: &'static str,
    },
    /// It is of another project: what it refers to is not here.
    #[error("it is of project {found}, and this is {here}")]
    OtherProject {
        /// Its project.
        found: ProjectId,
        /// This one.
        here: ProjectId,
    },
    /// It is of another agent, which may know what this one may not.
    #[error("it is the state of {found}, and {wanted} can not go on from it")]
    OtherAgent {
        /// Its agent.
        found: AgentName,
        /// Who was to go on.
        wanted: AgentName,
    },
}

/// As much as every version has.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

impl SavedState {
    /// Reads a state, or says why no run can go on from it.
    pub fn parse(json: &[u8]) -> Result<Self, InvalidState> {
        let bytes = json.len() as u64;
        if bytes > MAX_STATE_BYTES {
            return Err(InvalidState::TooLarge { bytes });
        }
        let Versioned { version: found } = serde_json::from_slice(json).map_err(InvalidState::Damaged)?;
        if found > STATE_VERSION {
            return Err(InvalidState::Future { found });
        }
        let state: Self = serde_json::from_slice(json).map_err(InvalidState::Damaged)?;
        state.check_turns()?;
        Ok(state)
    }

    /// Whether `agent` of `project` can go on from it.
    pub fn check_for(&self, project: &ProjectId, agent: &AgentName) -> Result<(), InvalidState> {
        if self.project != *project {
            return Err(InvalidState::OtherProject { found: self.project.clone(), here: project.clone() });
        }
        if self.agent != *agent {
            return Err(InvalidState::OtherAgent { found: self.agent.clone(), wanted: agent.clone() });
        }
        Ok(())
    }

    /// No provider takes a conversation in which a call and its result do not stand together.
    fn check_turns(&self) -> Result<(), InvalidState> {
        let mut called: Vec<&str> = Vec::new();
        let mut known = BTreeSet::new();
        for (n, turn) in self.turns.iter().enumerate() {
            let wrong = |why| Err(InvalidState::Conversation { turn: n + 1, why });
            match turn {
                Turn::Tools { results } => {
                    let returned: Vec<&str> = results.iter().map(|result| result.call_id.as_str()).collect();
                    if called.is_empty() || called != returned {
                        return wrong("the results are not those of the calls before them");
                    }
                    called.clear();
                }
                _ if !called.is_empty() => return wrong("the calls before it have no results"),
                Turn::Assistant { .. } if n == 0 => return wrong("it begins with a model's answer"),
                Turn::Assistant { blocks } if blocks.is_empty() => return wrong("it is empty"),
                Turn::Assistant { blocks } => {
                    called = calls(blocks).collect();
                    if !called.iter().all(|id| known.insert(*id)) {
                        return wrong("a call has the id of another");
                    }
                }
                Turn::User { texts } if texts.is_empty() => return wrong("it is empty"),
                Turn::User { .. } => {}
            }
        }
        if self.turns.is_empty() || !called.is_empty() {
            let why = if called.is_empty() { "there is none" } else { "its calls have no results" };
            return Err(InvalidState::Conversation { turn: self.turns.len(), why });
        }
        Ok(())
    }
}

/// The ids of the tool calls in an answer.
fn calls(blocks: &[Block]) -> impl Iterator<Item = &str> {
    blocks.iter().filter_map(|block| match block {
        Block::ToolUse { id, .. } => Some(id.as_str()),
        _ => None,
    })
}

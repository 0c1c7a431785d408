//! Schemas of arguments, generated from the types that parse them, and the offer that only the runner can take.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Deserialize;
use serde_json::Value;

use super::{HandledBy, ToolSpec};

/// The schema of `A`: one object, with nothing that refers elsewhere.
pub(super) fn of<A: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.meta_schema = None;
        settings.inline_subschemas = true;
    });
    let mut schema = settings.into_generator().into_root_schema_for::<A>();
    for name in ["title", "description"] {
        schema.remove(name);
    }
    schema.to_value()
}

/// Arguments of `handoff`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Handoff {
    /// The agent that takes over the task.
    pub agent: String,
    /// What it has to do and when that is done, in full: it sees nothing of this conversation.
    pub task: String,
    /// What it should know: findings, paths, decisions.
    #[serde(default)]
    pub context: Option<String>,
}

pub(super) fn handoff() -> ToolSpec {
    ToolSpec {
        name: "handoff",
        description: "Gives a task to another agent of the crew and waits for its answer. Use it when another agent's role fits \
                      the task better than yours. Its work on the repository goes on from yours.",
        input_schema: of::<Handoff>(),
        idempotent: false,
        mutates_worktree: false,
        handled_by: HandledBy::Runner,
    }
}

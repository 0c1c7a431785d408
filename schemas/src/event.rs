//! The journal of a run: what was decided, in order.
//!
//! A message under `swarm.run.<run_id>.>` is one [`Decision`]: its events were decided together and are in the log
//! together or not at all. Times are not in the events; they are the message's (`ce-time`, and the stream's own).

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    content::{BlobRef, Block, Text},
    ids::{AgentName, Class, EventId, ProjectId, RunId},
    kinds::kinds,
    money::{MicroUsd, Usage},
    trigger::{ReplyTo, Trigger},
};

/// The body of every message under `swarm.run.<run_id>.>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    /// What was decided, in order. Their ids are `<ce-id>/<n>`.
    pub events: Vec<RunEvent>,
}

impl Decision {
    /// The kinds of the events, as they stand in the `Nc-Kinds` header.
    pub fn kinds(&self) -> String {
        self.events.iter().map(RunEvent::kind).collect::<Vec<_>>().join(",")
    }
}

kinds! {
    /// One event of a run.
    pub enum RunEvent {
        /// A trigger asked for the run; always the first.
        Requested(Box<Requested>) = "requested",
        /// A runner took it; opens an epoch.
        Started(Started) = "started",
        /// A runner went on with it; opens an epoch.
        Resumed(Resumed) = "resumed",
        /// What the agent knows at its start.
        ContextLoaded(ContextLoaded) = "context_loaded",
        /// A model is about to be called.
        ModelCalled(ModelCalled) = "model_called",
        /// A model answered.
        ModelReplied(ModelReplied) = "model_replied",
        /// A model call ended without an answer.
        ModelFailed(ModelFailed) = "model_failed",
        /// A tool is about to be called.
        ToolCalled(ToolCalled) = "tool_called",
        /// A tool returned.
        ToolReturned(ToolReturned) = "tool_returned",
        /// A tool changed a file of the worktree.
        FileChanged(FileChanged) = "file_changed",
        /// The worktree was saved.
        WorktreeSaved(WorktreeSaved) = "worktree_saved",
        /// A commit on the run's branch was published to its repository.
        CodeCommitted(CodeCommitted) = "code_committed",
        /// Another agent was given a task; its run is a child of this one.
        HandedOff(HandedOff) = "handed_off",
        /// A child run ended.
        ChildEnded(ChildEnded) = "child_ended",
        /// A person or service said something to the run.
        MessageReceived(MessageReceived) = "message_received",
        /// A privileged call waits for a person.
        ApprovalRequested(ApprovalRequested) = "approval_requested",
        /// A person or policy decided.
        ApprovalDecided(ApprovalDecided) = "approval_decided",
        /// The run waits and is held by nobody.
        Waiting(Waiting) = "waiting",
        /// A signal was taken into the run. It may be acknowledged once this is in the journal.
        SignalTaken(SignalTaken) = "signal_taken",
        /// The run says something in a channel: decision and command at once.
        MessageSent(MessageSent) = "message_sent",
        /// The run ended well.
        Finished(Finished) = "finished",
        /// The run could not go on.
        Failed(Failed) = "failed",
        /// The run was ended at once by a person or a limit.
        Killed(Killed) = "killed",
        /// The run was called off.
        Cancelled(Cancelled) = "cancelled",
        /// The run's messages below this one are in an archive.
        Archived(Archived) = "archived",
    }
}

impl RunEvent {
    /// Whether this event opens an epoch.
    pub const fn opens_epoch(&self) -> bool {
        matches!(self, Self::Started(_) | Self::Resumed(_))
    }

    /// Whether this event ends the run.
    pub const fn is_end(&self) -> bool {
        matches!(self, Self::Finished(_) | Self::Failed(_) | Self::Killed(_) | Self::Cancelled(_))
    }
}

/// The kinds that end a run, for readers that see only the `Nc-Kinds` header.
pub const END_KINDS: [&str; 4] = ["finished", "failed", "killed", "cancelled"];

/// The kinds that open an epoch, for readers that see only the `Nc-Kinds` header.
pub const EPOCH_KINDS: [&str; 2] = ["started", "resumed"];

/// A trigger's command to start a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Requested {
    /// The project.
    pub project: ProjectId,
    /// Who is woken.
    pub agent: AgentName,
    /// Which kind of process serves it.
    pub class: Class,
    /// What woke the agent.
    pub trigger: Trigger,
    /// The rule that turned the trigger into this run, such as `mention`.
    pub rule: String,
    /// The task, as the person or agent put it.
    pub prompt: Text,
    /// What a parent shares with its child beyond the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Text>,
    /// Where the answer goes; a child has none, because the root answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reply_to: Option<ReplyTo>,
    /// The run that started this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent_run_id: Option<RunId>,
    /// The run at the root of the tree; itself for a root.
    pub root_run_id: RunId,
    /// Handoffs between the root and this run.
    #[serde(default)]
    pub depth: u32,
    /// When the run must have ended.
    pub deadline: Timestamp,
    /// Where the worktree begins, when not at the repository's base branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
    /// A saved state that the run goes on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BlobRef>,
}

/// A commit of a repository.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Work {
    /// The repository's name in `team.yaml`.
    pub repository: String,
    /// The branch that holds the commit.
    pub branch: String,
    /// The commit's SHA.
    pub commit: String,
}

/// A runner took the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Started {
    /// The runner's instance, unique per process.
    pub runner: String,
    /// The harness that drives the agent.
    pub harness: String,
}

/// A runner went on with the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Resumed {
    /// The runner's instance.
    pub runner: String,
    /// How often the run was taken before, this time included; the first resume is 2.
    pub attempt: u32,
    /// Why.
    pub cause: ResumeCause,
}

/// Why a runner went on with a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ResumeCause {
    /// Its holder stayed silent.
    HolderLost,
    /// It waited, and a signal came.
    Signal,
}

/// What the agent knows at its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ContextLoaded {
    /// The model route that the run uses.
    pub model: String,
    /// The model's window, in tokens.
    pub context_window: u64,
    /// The system prompt.
    pub system: Text,
    /// The tools that the agent may call.
    pub tools: Vec<String>,
}

/// A model is about to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCalled {
    /// Counts the run's model calls from 1; with the run id it is the call's idempotency key.
    pub step: u32,
    /// Counts the tries of this step from 1.
    pub attempt: u32,
    /// The model route.
    pub model: String,
    /// Upper estimate of the input, in tokens.
    pub input_estimate: u64,
    /// How many of the oldest messages were left out so that the input fits the window.
    #[serde(default)]
    pub dropped_messages: u32,
}

/// A model answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelReplied {
    /// The step that was answered.
    pub step: u32,
    /// The model's name as it reported it.
    pub model: String,
    /// The answer.
    pub content: Vec<Block>,
    /// Why the model stopped.
    pub stop: StopReason,
    /// Tokens: what the provider reported, or what budget-proxy has on record of the step when it reported none or a
    /// try before failed; without what [`ModelFailed::billed`] of the step tells.
    pub usage: Usage,
    /// What the call cost; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<MicroUsd>,
    /// Whether the usage is an upper estimate, because none was reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// From request to last byte, in milliseconds.
    pub millis: u64,
}

/// Why a model stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// It was done.
    EndTurn,
    /// It wants tools to be called.
    ToolUse,
    /// The limit on output was reached.
    MaxTokens,
    /// The provider declined.
    Refusal,
    /// Anything else.
    Other,
}

/// A model call ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFailed {
    /// The step.
    pub step: u32,
    /// The try of this step.
    pub attempt: u32,
    /// What kind of failure.
    pub class: ModelErrorClass,
    /// HTTP status, when there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// What the provider or proxy said, bounded.
    pub message: String,
    /// How long it asked to wait, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// Until when that is, so that whoever goes on with the run waits only for the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// What the step was billed for all the same, as far as no event before tells of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<Billed>,
}

/// What budget-proxy has on record of a model call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Billed {
    /// Tokens.
    pub usage: Usage,
    /// What they cost; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<MicroUsd>,
    /// Whether the usage is an upper estimate, because none was reported.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub estimated: bool,
    /// Stream sequence of the last record that is in it.
    pub through: u64,
}

/// Kinds of model failures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelErrorClass {
    /// Too many requests; worth a retry after the time it names.
    RateLimited,
    /// The provider is overloaded or failing; worth a retry.
    Unavailable,
    /// The stream ended early or stalled; worth a retry.
    Interrupted,
    /// The answer could not be understood; worth a retry, few times.
    Malformed,
    /// The request itself was refused; no retry helps.
    Refused,
    /// A budget is used up; no retry helps.
    Budget,
}

/// A tool is about to be called.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolCalled {
    /// The provider's id of the call.
    pub call_id: String,
    /// The model step that asked for it.
    pub step: u32,
    /// The tool.
    pub tool: String,
    /// Its arguments.
    pub arguments: serde_json::Value,
    /// Whether a call that was in flight may be run again.
    pub idempotent: bool,
}

/// A tool returned.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolReturned {
    /// The call.
    pub call_id: String,
    /// How it ended.
    pub outcome: ToolOutcome,
    /// What the model is shown.
    pub output: Text,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

/// How a tool call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It did what was asked.
    Ok,
    /// It ran and failed, or its arguments were wrong.
    Error,
    /// The gate refused it.
    Refused,
    /// Its runner was lost while it ran: it may have acted or not.
    Uncertain,
}

/// A tool changed a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChanged {
    /// The call that changed it.
    pub call_id: String,
    /// Path inside the worktree.
    pub path: String,
    /// What happened to it.
    pub change: FileChange,
    /// Lines added.
    pub added: u64,
    /// Lines removed.
    pub removed: u64,
    /// Unified diff, bounded.
    pub diff: Text,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FileChange {
    /// It is new.
    Added,
    /// Its content or mode changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// The worktree was saved as an incremental git bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WorktreeSaved {
    /// The call after which it was saved.
    pub call_id: String,
    /// The repository's name.
    pub repository: String,
    /// The run's branch.
    pub branch: String,
    /// The commit that the branch started from.
    pub base: String,
    /// The branch's head when it was saved.
    pub head: String,
    /// The commit that holds the worktree's content, uncommitted changes included.
    pub snapshot: String,
    /// The bundle; it needs `base` and the bundles saved before it.
    pub bundle: BlobRef,
}

/// A commit on the run's branch was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CodeCommitted {
    /// The call that committed.
    pub call_id: String,
    /// What was committed.
    pub work: Work,
    /// The first line of the commit's message.
    pub subject: String,
}

/// Another agent was given a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HandedOff {
    /// The call that handed off.
    pub call_id: String,
    /// The child's run.
    pub child_run_id: RunId,
    /// The child's agent.
    pub agent: AgentName,
    /// The task, as the child's prompt.
    pub task: Text,
}

/// A child run ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ChildEnded {
    /// The handoff's call.
    pub call_id: String,
    /// The child's run.
    pub child_run_id: RunId,
    /// How it ended.
    pub outcome: Outcome,
    /// Its answer, or why it ended.
    pub answer: Text,
    /// What it and its own children used.
    pub totals: Totals,
    /// The commit that it published, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub work: Option<Work>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well.
    Finished,
    /// It could not go on.
    Failed,
    /// Ended at once.
    Killed,
    /// Called off.
    Cancelled,
}

/// Somebody said something to a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageReceived {
    /// Who.
    pub from: String,
    /// What.
    pub text: Text,
}

/// A privileged call waits for a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalRequested {
    /// The approval's id.
    pub approval_id: String,
    /// The tool call.
    pub call_id: String,
    /// SHA-256 of the tool and its canonical arguments.
    pub digest: String,
    /// When the question expires.
    pub expires_at: Timestamp,
}

/// A person or policy decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalDecided {
    /// The approval.
    pub approval_id: String,
    /// Granted or not.
    pub granted: bool,
    /// Who decided.
    pub by: String,
}

/// The run waits and is held by nobody.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Waiting {
    /// What for.
    pub reason: WaitReason,
    /// When it is woken at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitReason {
    /// Children.
    Child,
    /// A person's approval.
    Approval,
    /// An end of a pause.
    Pause,
}

/// A signal was taken into the run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SignalTaken {
    /// The signal's `ce-id`.
    pub signal_id: EventId,
    /// Its name.
    pub name: String,
}

/// The run says something in a channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MessageSent {
    /// Where to.
    pub to: ReplyTo,
    /// What, as Markdown.
    pub text: Text,
    /// What stands under it.
    pub footer: Footer,
}

/// What stands under a chat message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Footer {
    /// Who speaks.
    pub agent: AgentName,
    /// The run.
    pub run_id: RunId,
    /// What the run and its children used.
    pub totals: Totals,
    /// Whether the answer is a rehearsal's and no model's.
    #[serde(default)]
    pub rehearsal: bool,
}

/// What a run used, its children included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Tokens.
    pub usage: Usage,
    /// Money for calls with a price.
    pub cost: MicroUsd,
    /// Model calls without a price; their money is not in `cost`.
    #[serde(default)]
    pub unpriced_calls: u32,
    /// Model calls, failed ones too, whose tokens and money are an upper estimate, because no usage was reported.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub estimated_calls: u32,
    /// Model calls that were answered.
    pub model_calls: u32,
    /// Tool calls that returned.
    pub tool_calls: u32,
    /// From `requested` to the end, in milliseconds; not a sum over children.
    pub millis: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The run ended well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Finished {
    /// The agent's answer.
    pub answer: Text,
    /// What it used.
    pub totals: Totals,
}

/// The run could not go on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Failed {
    /// Why, for programs.
    pub reason: FailReason,
    /// Why, for people.
    pub message: String,
    /// What it used.
    pub totals: Totals,
}

/// Why a run could not go on. Loop breakers are among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FailReason {
    /// The model failed and no retry helped.
    Model,
    /// The model refused to answer.
    Refusal,
    /// Its deadline passed.
    Deadline,
    /// Too many steps.
    Steps,
    /// Too many tokens.
    Tokens,
    /// Too many handoffs, or too deep.
    Handoffs,
    /// The same handoff again and again.
    RepeatedHandoff,
    /// The same calls again and again.
    NoProgress,
    /// Too many messages in a room without a person.
    RoomChatter,
    /// Its journal reached its limit in bytes.
    JournalFull,
    /// It was taken over too often.
    Attempts,
    /// The agent, model or repository is not known here.
    Unknown,
    /// A budget is used up.
    Budget,
    /// The saved state that it was to go on from can not be loaded.
    State,
    /// Something that Nightcrew got wrong.
    Internal,
}

/// The run was ended at once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Killed {
    /// Who or which limit.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What it used.
    pub totals: Totals,
}

/// The run was called off.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Cancelled {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What it used.
    pub totals: Totals,
}

/// The run's messages are in an archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Archived {
    /// The compressed archive.
    pub archive: BlobRef,
    /// SHA-256 of the archive before compression, lower-case hex.
    pub digest: String,
    /// How many messages it holds, by subject kind.
    pub messages: BTreeMap<String, u64>,
    /// The first stream sequence of the run.
    pub first_sequence: u64,
    /// The last stream sequence in the archive.
    pub last_sequence: u64,
    /// The blobs that its messages name, so that they are kept; absent when there are too many to list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<Vec<String>>,
}

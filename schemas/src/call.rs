//! A model call as budget-proxy saw it on the wire, on `swarm.call.<run_id>`.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ids::{AgentName, RunId},
    money::{MicroUsd, Usage},
};

/// One model call. Published once a call that reached the upstream has ended, however it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCall {
    /// The run that is billed.
    pub run_id: RunId,
    /// The agent.
    pub agent: AgentName,
    /// The epoch of the bearer.
    pub epoch: u64,
    /// The caller's idempotency key.
    pub idempotency_key: String,
    /// `anthropic` or `openai`.
    pub api: String,
    /// The route asked for.
    pub route: String,
    /// The model that the upstream reported, or the one that was asked for.
    pub model: String,
    /// SHA-256 of the request's body, lower-case hex.
    pub request_digest: String,
    /// How it ended.
    pub outcome: CallOutcome,
    /// HTTP status of the upstream, when it answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Tokens; what the upstream did not report is the upper estimate, and `usage_estimated` says so.
    pub usage: Usage,
    /// Whether `usage` is an estimate.
    #[serde(default)]
    pub usage_estimated: bool,
    /// What it cost by the prices of `price_date`; absent when the model has no price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<MicroUsd>,
    /// The date of the price list that priced it, `YYYY-MM-DD`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_date: Option<String>,
    /// When it was forwarded.
    pub started_at: Timestamp,
    /// From there to the first byte of the answer, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// From there to the end, in milliseconds.
    pub total_ms: u64,
    /// Whether the upstream is the rehearsal model.
    #[serde(default)]
    pub rehearsal: bool,
}

/// How a model call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// Answered to its end.
    Completed,
    /// The upstream refused, or gave nothing that could be passed on.
    UpstreamError,
    /// The upstream broke off an answer that was being passed on.
    UpstreamCut,
    /// The caller hung up; the upstream's answer was still read to its end and kept.
    CallerGone,
    /// Cut by a limit.
    LimitCut,
    /// Cut by the proxy for another reason: the run had ended, or the proxy itself was ending.
    ProxyCut,
}

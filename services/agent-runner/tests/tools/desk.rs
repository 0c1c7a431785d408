//! A run with its worktree, at which tools are called as a model calls them.

use std::sync::Arc;

use agent_runner::{
    tools::{self, ToolContext, ToolOutput},
    worktree::Worktree,
};
use schemas::AgentName;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::fixture::{RUN, Site, author};

/// A run with its worktree.
pub(crate) struct Desk {
    pub(crate) site: Site,
    pub(crate) context: ToolContext,
}

impl Desk {
    pub(crate) async fn new() -> Self {
        let site = Site::new();
        let worktree = Arc::new(site.ensure(&[]).await);
        let context = ToolContext {
            run_id: RUN,
            agent: AgentName::try_new("coder").unwrap(),
            worktree,
            sandbox: site.sandbox.clone(),
            read_only: false,
            at: author().at,
            cancel: CancellationToken::new(),
            logs: None,
        };
        Self { site, context }
    }

    pub(crate) fn worktree(&self) -> &Worktree {
        &self.context.worktree
    }

    pub(crate) async fn call(&self, tool: &str, arguments: Value) -> ToolOutput {
        tools::call(&self.context, tool, arguments).await
    }

    pub(crate) async fn ok(&self, tool: &str, arguments: Value) -> String {
        let output = self.call(tool, arguments).await;
        assert!(!output.is_error, "{tool}: {}", output.content);
        output.content
    }

    pub(crate) async fn refused(&self, tool: &str, arguments: Value) -> String {
        let output = self.call(tool, arguments).await;
        assert!(output.is_error, "{tool}: {}", output.content);
        output.content
    }
}

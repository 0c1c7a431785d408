//! What an agent knows at its start: its system prompt and the tools on offer. Pure.

use std::fmt::Write as _;

use kit::crew::{Agent, Crew};
use schemas::event::Requested;

/// The system prompt of `agent`. It begins with a line `Agent: <name>`, by which the rehearsal model knows its part.
pub(crate) fn system_prompt(crew: &Crew, agent: &Agent, request: &Requested) -> String {
    let mut prompt = format!("Agent: {}\n\n{}\n", agent.name, agent.persona.trim());
    if let Some(repository) = agent.capabilities.repositories.first() {
        let _ = write!(
            prompt,
            "\nYou work in a worktree of the repository `{repository}`, on a branch of this run. Paths are relative to its root.\n"
        );
    }
    let colleagues: Vec<&Agent> = agent.capabilities.handoff_to.iter().filter_map(|name| crew.agent(name)).collect();
    if !colleagues.is_empty() {
        prompt.push_str("\nYou can hand work to:\n");
        for colleague in colleagues {
            let _ = writeln!(prompt, "- {}: {}", colleague.name, colleague.description);
        }
    }
    if request.parent_run_id.is_some() {
        prompt.push_str("\nAnother agent gave you this task. Your last message goes back to it, not to a person: say what you found or did, and where.\n");
    }
    prompt
}

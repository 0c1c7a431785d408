//! What an agent knows at its start: its system prompt and the tools on offer. Pure.

use std::fmt::Write as _;

use kit::crew::{Agent, Crew};
use schemas::{Trigger, event::Requested};

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
    if matches!(request.trigger, Trigger::Handoff { .. }) {
        prompt.push_str("\nAnother agent gave you this task. Your last message goes back to it, not to a person: say what you found or did, and where.\n");
    }
    prompt
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kit::for_test;
    use schemas::{EventId, RunId};

    use super::*;

    const TEAM: &str = "{project: test, time_zone: UTC, agents: [{name: coder, description: codes}], \
        limits: {max_steps: 9, max_handoff_depth: 2, max_handoffs: 4, max_repeats: 3, deadline: 1h, max_tokens: 9, \
        max_messages_without_human: 9}}";
    const MODELS: &str = "routes: {play: {provider: rehearsal, model: rehearsal, context_window: 9000, \
        max_output_tokens: 900, unpriced: true}}";
    const SCOPE: &str =
        "{lifecycle: resident, harness: native, models: [play], rooms: [], repositories: [], tools: []}";

    fn prompt_of(trigger: Trigger) -> String {
        let files = |path: &str| {
            Ok(match path {
                "team.yaml" => TEAM,
                "models.yaml" => MODELS,
                path if path.ends_with("capabilities.yaml") => SCOPE,
                _ => "You code.",
            }
            .to_owned())
        };
        let crew = Crew::assemble(Path::new("/project"), files).unwrap();
        let parent = RunId::from_uuid(uuid::Uuid::from_u128(1));
        let (_, request) = for_test::request("coder");
        let request = Requested { trigger, parent_run_id: Some(parent), root_run_id: parent, depth: 1, ..request };
        system_prompt(&crew, &crew.agents[0], &request)
    }

    #[test]
    fn only_who_was_handed_a_task_is_told_of_another_agent() {
        let of = RunId::from_uuid(uuid::Uuid::from_u128(1));
        let (decision_id, call_id) = (EventId::new("d"), "call-1".to_owned());
        let child = prompt_of(Trigger::Handoff { parent_run_id: of, decision_id, index: 0, call_id });
        assert!(child.contains("Another agent gave you this task."), "{child}");
        let retry = prompt_of(Trigger::Retry { of, by: "ada".into(), key: "1".into() });
        assert_eq!(retry, "Agent: coder\n\nYou code.\n");
    }
}

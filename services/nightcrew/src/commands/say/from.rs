//! `say --from`: words to an agent that goes on from what it knew after a run.
//!
//! It is a bare command, and a run of its own each time: it does not go by the bridge, which knows what people say and not
//! what agents know. The answer comes by the bridge, like every other.

use chat_bridge::{adapters::terminal, ports::Started};
use jiff::Timestamp;
use kit::{blobs::Blobs, clock, journal::Journal, message::Outgoing};
use schemas::{
    AgentName, Decision, RunEvent, RunId, SavedState, Subject, Trigger, envelope::DECISION_TYPE, event::Requested,
    trigger::ReplyTo,
};

use crate::{
    commands::{request, show, state::source},
    connected::{Connected, Usage},
};

/// The rule in the new run.
const RULE: &str = "say";

/// What is said, and to whom.
pub(super) struct Words {
    /// The agent that the words name.
    pub(super) agent: Option<AgentName>,
    /// What.
    pub(super) text: String,
}

/// Starts a run that goes on from what `from` names, and answers in `room`.
pub(super) async fn start(crew: &Connected, from: &str, words: Words, room: &str) -> anyhow::Result<Started> {
    let state = source::of(crew, from).await?;
    let agent = words.agent.unwrap_or_else(|| state.agent.clone());
    may_go_on(crew, &state, &agent).await?;
    let blobs = Blobs::new(&crew.bus);
    let content = source::encode(&state)?;
    let key = clock::uuid7();
    let run_id = RunId::from_uuid(key);
    let now = clock::now();
    let agents = &crew.project.crew;
    let requested = Requested {
        project: agents.project.clone(),
        class: agents.agent(&agent).map_or(schemas::Class::Resident, |agent| agent.capabilities.lifecycle),
        agent: agent.clone(),
        trigger: Trigger::Command { by: crew.person.clone(), key: key.to_string() },
        rule: RULE.to_owned(),
        prompt: blobs.text(words.text).await?,
        context: None,
        reply_to: Some(ReplyTo { channel: terminal::CHANNEL.to_owned(), room: room.to_owned(), thread: None }),
        parent_run_id: None,
        root_run_id: run_id,
        depth: 0,
        deadline: now.saturating_add(agents.limits.deadline.0).unwrap_or(Timestamp::MAX),
        work: state.work.clone(),
        state: Some(blobs.put(content.into()).await?),
    };
    let mut envelope = crew.envelope(DECISION_TYPE, Some(run_id));
    envelope.root_run_id = Some(run_id);
    envelope.agent = Some(agent.clone());
    let subject = Subject::Requested(run_id, requested.class, agent.clone());
    let decision = Decision { events: vec![RunEvent::Requested(Box::new(requested))] };
    request(crew, Outgoing::decision(subject, envelope, &decision)?).await?;
    Ok(Started { event_id: key.to_string(), agent, run_id })
}

/// Refuses before a run is there what its runner would have to fail it for.
async fn may_go_on(crew: &Connected, state: &SavedState, agent: &AgentName) -> anyhow::Result<()> {
    crew.known(agent)?;
    state.check_for(&crew.project.crew.project, agent)?;
    let terminal = crew.project.crew.channels.terminal.as_ref();
    if !terminal.is_some_and(|terminal| terminal.agents.contains(agent)) {
        return Err(Usage(format!("team.yaml does not let {agent} be woken from the terminal")).into());
    }
    // What a state refers to is kept because the journal of its run names it.
    if !Journal::new(&crew.bus).exists(state.run_id).await? {
        anyhow::bail!("it is the state after {}, which is not in this crew's log", show::run(state.run_id));
    }
    let scope = crew.project.crew.agent(agent).map(|agent| &agent.capabilities.repositories);
    let lost = state.worktree.last().filter(|last| scope.is_none_or(|scope| !scope.contains(&last.repository)));
    if let Some(last) = lost {
        anyhow::bail!(
            "its work is on the repository {}, which is not in the scope of {agent} any more",
            last.repository
        );
    }
    Ok(())
}

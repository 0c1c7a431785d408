//! `nightcrew retry`: an ended run once more, as a new run whose parent is the old one.
//!
//! The new run has the task, the room and the beginning of the old one, and a deadline of its own. Each retry is a run of
//! its own, so nobody can ask for the same one twice by accident: the old run says what has become of it.

use kit::{
    clock,
    logs::{Limits, LogStore},
    message::Outgoing,
};
use schemas::{
    Decision, RunEvent, RunId, Subject, Trigger, cli::Retried, event::Requested, summary::RunState, timeline::Source,
};

use super::{run_of, show};
use crate::{cli::RetryOptions, connected::Connected, output::Output};

/// The rule in the new run.
const RULE: &str = "retry";

/// Tries an ended run again.
pub(crate) async fn retry(crew: &Connected, options: &RetryOptions, out: &Output) -> anyhow::Result<()> {
    let old = run_of(&crew.bus, &options.run).await?;
    let request = request_of(crew, old).await?;
    crew.known(&request.agent)?;
    let key = clock::uuid7();
    let run_id = RunId::from_uuid(key);
    let agent = request.agent.clone();
    let deadline = clock::now().saturating_add(crew.project.crew.limits.deadline.0)?;
    let requested = Requested {
        trigger: Trigger::Retry { of: old, by: crew.person.clone(), key: key.to_string() },
        rule: RULE.to_owned(),
        parent_run_id: Some(old),
        deadline,
        ..request
    };
    let mut envelope = crew.envelope("decision", Some(run_id));
    envelope.parent_run_id = requested.parent_run_id;
    envelope.root_run_id = Some(requested.root_run_id);
    envelope.agent = Some(agent.clone());
    let subject = Subject::Requested(run_id, requested.class, agent.clone());
    let decision = Decision { events: vec![RunEvent::Requested(Box::new(requested))] };
    super::request(crew, Outgoing::decision(subject, envelope, &decision)?).await?;
    if options.json {
        return Ok(out.json(&Retried { run_id, of: old, agent })?);
    }
    Ok(out.line(&format!(
        "{agent} tries again: {}; `nightcrew timeline {run_id} --follow` shows it",
        show::run(run_id)
    ))?)
}

/// How an ended run was asked for, as its timeline has it, whether that comes from the log or from an archive.
async fn request_of(crew: &Connected, run: RunId) -> anyhow::Result<Requested> {
    let logs = LogStore::at(crew.project.state("logs"), Limits::SHIPPED);
    let timeline = run_correlator::timeline(&crew.bus, &logs, run, false).await?;
    if timeline.summary.state != RunState::Ended {
        anyhow::bail!("{} has not ended: `nightcrew cancel {run}` first", show::run(run));
    }
    let requested =
        timeline.entries.into_iter().find(|entry| entry.source == Source::Journal && entry.kind == "requested");
    let event = requested.map(|entry| serde_json::from_value(entry.detail)).transpose()?;
    match event {
        Some(RunEvent::Requested(requested)) => Ok(*requested),
        _ => anyhow::bail!("{} has lost its beginning", show::run(run)),
    }
}

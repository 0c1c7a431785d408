//! Triggers: requests for runs, one by one or a thousand at once.

use std::time::{Duration, Instant};

use anyhow::ensure;
use futures::future;
use jiff::SignedDuration;
use kit::{
    clock,
    message::Outgoing,
    requester::{Request, Requester},
};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, ProjectId, RunEvent, RunId, Subject, Trigger,
    envelope::DECISION_TYPE, event::Requested, trigger::ReplyTo,
};

/// Who is asked.
const AGENT: &str = "lead";

/// The first message of a new run.
pub(super) fn request(project: &ProjectId) -> anyhow::Result<(RunId, Outgoing)> {
    let agent = AgentName::try_new(AGENT)?;
    let trigger = Trigger::Command { by: "bench".to_owned(), key: clock::uuid7().to_string() };
    let run = RunId::derive(project, &trigger, "bench", &agent);
    let request = Requested {
        project: project.clone(),
        agent: agent.clone(),
        class: Class::Resident,
        trigger,
        rule: "bench".to_owned(),
        prompt: "Say hello.".into(),
        context: None,
        reply_to: Some(ReplyTo { channel: "terminal".to_owned(), room: "bench".to_owned(), thread: None }),
        parent_run_id: None,
        root_run_id: run,
        depth: 0,
        deadline: clock::now().checked_add(SignedDuration::from_hours(1))?,
        work: None,
        state: None,
    };
    let mut envelope = Envelope::new(EventId::new(clock::uuid7().to_string()), DECISION_TYPE, "bench", clock::now());
    envelope.run_id = Some(run);
    envelope.root_run_id = Some(run);
    envelope.agent = Some(agent.clone());
    let subject = Subject::Requested(run, Class::Resident, agent);
    let decision = Decision { events: vec![RunEvent::Requested(Box::new(request))] };
    Ok((run, Outgoing::decision(subject, envelope, &decision)?))
}

/// Requests `runs` at the same moment; gives how long each took to be in the log.
pub(super) async fn at_once(requester: &Requester, project: &ProjectId, runs: usize) -> anyhow::Result<Vec<Duration>> {
    let messages = (0..runs).map(|_| request(project)).collect::<anyhow::Result<Vec<_>>>()?;
    let began = Instant::now();
    let asked = messages.into_iter().map(|(_, message)| async move {
        let request = requester.request(message).await?;
        ensure!(matches!(request, Request::Started { .. }), "a new run was there already");
        Ok(began.elapsed())
    });
    future::try_join_all(asked).await
}

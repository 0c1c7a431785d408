//! Wakes into the log: each the first message of its run.

use futures::future;
use jiff::Timestamp;
use kit::{
    blobs::BlobError,
    class::{Classified as _, ErrorClass},
    message::{EncodeError, Outgoing},
    requester::Requester,
};
use schemas::{Decision, Envelope, EventId, RunEvent, RunId, Subject, Trigger, event::Requested};

use super::{Project, SOURCE};
use crate::domain::inbound::{IncomingMessage, Wake};

/// The rule in a run's id. One for all ways to be addressed: an edit that adds a mention to a message that was heard
/// anyway must not start a second run.
const RULE: &str = "chat";

/// The code of a log that is so full that even a write is refused: waiting for room would hold up every other message.
const FULL: &str = "stream_full";

/// A wake and the message that puts it into the log.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) wake: Wake,
    /// The message that it comes from; for an edit not the original.
    pub(super) message: IncomingMessage,
    pub(super) run_id: RunId,
    pub(super) outgoing: Outgoing,
}

/// What became of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It is the first message of its run.
    Started,
    /// Its run was there: the message came again, or is the edit of one that started it.
    AlreadyThere,
    /// The log does not take it: it is full, or the request is not one.
    Refused(kit::requester::RequestError),
}

/// A request can not be made now.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// The prompt can not be kept.
    #[error("the prompt can not be kept")]
    Blob(#[source] BlobError),
    /// It has no wire form.
    #[error("the request can not be encoded")]
    Encode(#[source] EncodeError),
}

/// The run that `message`, or the message that it corrects, starts for an agent.
pub(super) fn run_id(project: &Project, trigger: &Trigger, agent: &schemas::AgentName) -> RunId {
    RunId::derive(&project.crew.project, trigger, RULE, agent)
}

/// What woke the agent.
pub(super) fn trigger(message: &IncomingMessage, event_id: &str) -> Trigger {
    Trigger::Chat {
        channel: message.channel.clone(),
        room: message.room.clone(),
        event_id: event_id.to_owned(),
        sender: message.sender.clone(),
    }
}

/// Makes the request of a wake; `context` is what was said in its thread before.
pub(super) async fn build(
    project: &Project,
    message: &IncomingMessage,
    wake: Wake,
    context: Option<String>,
    now: Timestamp,
) -> Result<Request, RequestError> {
    let trigger = trigger(message, &wake.event_id);
    let run_id = run_id(project, &trigger, &wake.agent);
    let class = project.crew.agent(&wake.agent).map_or(schemas::Class::Resident, |agent| agent.capabilities.lifecycle);
    let prompt = project.blobs.text(wake.prompt.clone()).await.map_err(RequestError::Blob)?;
    let context = match context {
        Some(context) => Some(project.blobs.text(context).await.map_err(RequestError::Blob)?),
        None => None,
    };
    let requested = Requested {
        project: project.crew.project.clone(),
        agent: wake.agent.clone(),
        class,
        trigger,
        rule: RULE.to_owned(),
        prompt,
        context,
        reply_to: Some(wake.reply_to.clone()),
        parent_run_id: None,
        root_run_id: run_id,
        depth: 0,
        deadline: now.saturating_add(project.crew.limits.deadline.0).unwrap_or(Timestamp::MAX),
        work: None,
        state: None,
    };
    // The same message has the same id however often it is read; an edit has one of its own, which tells it from the
    // original that may have started the run.
    let id = EventId::new(run_id.to_string()).derive(&format!("requested/{}", message.event_id));
    let mut envelope = Envelope::new(id, schemas::envelope::DECISION_TYPE, SOURCE, now);
    envelope.root_run_id = Some(run_id);
    envelope.agent = Some(wake.agent.clone());
    let decision = Decision { events: vec![RunEvent::Requested(Box::new(requested))] };
    let subject = Subject::Requested(run_id, class, wake.agent.clone());
    let outgoing = Outgoing::decision(subject, envelope, &decision).map_err(RequestError::Encode)?;
    Ok(Request { wake, message: message.clone(), run_id, outgoing })
}

/// Asks for runs; those that are asked for together are written together. Outcomes are in the same order. An error means
/// that the bus did not say: the same requests shall be made again.
pub(super) async fn start(
    requester: &Requester,
    requests: &[Request],
) -> Result<Vec<Outcome>, kit::requester::RequestError> {
    let asked: Vec<_> = requests.iter().map(|request| requester.request(request.outgoing.clone())).collect();
    future::join_all(asked).await.into_iter().map(outcome).collect()
}

fn outcome(
    result: Result<kit::requester::Request, kit::requester::RequestError>,
) -> Result<Outcome, kit::requester::RequestError> {
    match result {
        Ok(kit::requester::Request::Started { .. }) => Ok(Outcome::Started),
        Ok(kit::requester::Request::AlreadyThere) => Ok(Outcome::AlreadyThere),
        Err(error) if error.class() == ErrorClass::Transient && error.code() != FULL => Err(error),
        Err(error) => Ok(Outcome::Refused(error)),
    }
}

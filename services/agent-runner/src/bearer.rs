//! The credential of a run and epoch, asked of the issuer.

use std::time::Duration;

use kit::bus::Bus;
use schemas::{
    Subject,
    ask::{Answer, AskError, ISSUER, MINT, MintReply, MintRequest},
    ids::{InvalidName, Token},
};

use crate::run::RunState;

/// The issuer answers in a millisecond, and when none is there the server says so at once. This is for the last of a
/// thousand runs that ask at the same moment of a busy machine.
const MINT_TIMEOUT: Duration = Duration::from_secs(10);

/// No bearer could be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BearerError {
    /// Nobody answered.
    #[error("the issuer did not answer")]
    Unanswered(#[source] async_nats::RequestError),
    /// The answer could not be read.
    #[error("the issuer's answer could not be understood")]
    Unreadable(#[source] serde_json::Error),
    /// The issuer refused.
    #[error("the issuer refused")]
    Refused(#[source] AskError),
    /// A constant is no token: a mistake of ours.
    #[error("the request's subject is not valid")]
    Subject(#[from] InvalidName),
}

/// Asks for the bearer of `state`'s run in `epoch`.
pub(crate) async fn mint(bus: &Bus, state: &RunState, epoch: u64) -> Result<String, BearerError> {
    let subject = Subject::Ask(Token::try_new(ISSUER)?, Token::try_new(MINT)?).to_string();
    let request = MintRequest {
        run_id: state.run_id(),
        root_run_id: state.request().root_run_id,
        agent: state.request().agent.clone(),
        epoch,
        deadline: state.request().deadline,
    };
    let body = serde_json::to_vec(&request).map_err(BearerError::Unreadable)?;
    let reply = tokio::time::timeout(MINT_TIMEOUT, bus.client().request(subject, body.into()))
        .await
        .unwrap_or_else(|_| Err(async_nats::RequestError::new(async_nats::RequestErrorKind::TimedOut)))
        .map_err(BearerError::Unanswered)?;
    let answer: Answer<MintReply> = serde_json::from_slice(&reply.payload).map_err(BearerError::Unreadable)?;
    Ok(answer.into_result().map_err(BearerError::Refused)?.token)
}

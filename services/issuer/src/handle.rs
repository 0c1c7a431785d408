//! A request to a reply.
//!
//! Consumes `swarm.ask.issuer.<operation>`. Emits one reply to the request's inbox, always: granted or
//! refused. (`health` is not its own: `kit` answers that.) Idempotency: minting twice gives two bearers that say
//! the same. Ordering: none. On failure to reply, the asker times out and asks again.

use async_nats::Message;
use schemas::ask::{self, Answer, AskCode, AskError, MintRequest, Refused};
use serde::Serialize;

use crate::Deps;
use crate::domain::{Issuer, refuse};

pub(crate) async fn answer(deps: &Deps, issuer: &Issuer, request: Message) {
    let Some(inbox) = request.reply else {
        tracing::warn!(subject = %request.subject, "a request that wants no reply is ignored");
        return;
    };
    let operation = request.subject.rsplit('.').next().unwrap_or_default();
    if operation == ask::HEALTH {
        return;
    }
    let reply = match operation {
        ask::MINT => encode(mint(deps, issuer, &request.payload)),
        ask::KEYS => encode(Ok(issuer.keys())),
        _ => encode::<()>(Err(refuse(AskCode::UnknownOperation, format!("issuer has no operation `{operation}`")))),
    };
    if let Err(error) = deps.client.publish(inbox, reply.into()).await {
        tracing::warn!(%error, operation, "a reply could not be sent");
    }
}

fn mint(deps: &Deps, issuer: &Issuer, body: &[u8]) -> Result<ask::MintReply, AskError> {
    let request: MintRequest =
        serde_json::from_slice(body).map_err(|error| refuse(AskCode::Malformed, error.to_string()))?;
    let minted = issuer.mint(&request, (deps.now)());
    match &minted {
        Ok(_) => tracing::debug!(run = %request.run_id, epoch = request.epoch, "minted a bearer"),
        Err(error) => {
            tracing::warn!(run = %request.run_id, epoch = request.epoch, %error, "refused a bearer");
        }
    }
    minted
}

fn encode<T: Serialize>(answer: Result<T, AskError>) -> Vec<u8> {
    let answer = match answer {
        Ok(done) => Answer::Done(done),
        Err(error) => Answer::Refused(Refused { error }),
    };
    serde_json::to_vec(&answer).unwrap_or_else(|error| {
        tracing::error!(%error, "a reply could not be encoded");
        br#"{"error":{"code":"internal","message":"the reply could not be encoded"}}"#.to_vec()
    })
}

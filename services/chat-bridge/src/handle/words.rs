//! What the bridge says in its own name: words about a problem.
//!
//! They must not hold up what works, so the words of a batch have some time together, and what is not said within it is
//! given up. Whether that loses anything is for the caller to know. Their ids derive from what they are about, so that
//! they are one message however often their batch comes.

use kit::class::chain;
use schemas::EventId;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    domain::{inbound::Tell, patience::Patience, transaction},
    ports::{Body, Cause, Deliver, DeliverError, Outgoing, Said},
};

/// Something was not said.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    /// The service ends; it shall be said after the next start.
    #[error("the service is shutting down")]
    ShuttingDown,
    /// The room does not take it, or not in time.
    #[error("the room could not be told")]
    Room(#[source] DeliverError),
}

/// Says the words of one batch.
#[derive(Debug)]
pub(super) struct Words<'a, D> {
    sender: &'a D,
    channel: &'static str,
    shutdown: &'a CancellationToken,
    patience: Patience,
}

impl<'a, D: Deliver> Words<'a, D> {
    pub(super) fn of_batch(sender: &'a D, channel: &'static str, shutdown: &'a CancellationToken) -> Self {
        Self { sender, channel, shutdown, patience: Patience::fresh() }
    }

    /// Says something, or gives up when the batch has no more time for it.
    pub(super) async fn tell(&mut self, tell: &Tell) -> Result<(), Untold> {
        let outgoing = outgoing(self.channel, tell);
        loop {
            let began = Instant::now();
            let tried = tokio::time::timeout(self.patience.left(), self.sender.deliver(&outgoing));
            let tried = self.unless_ending(tried).await?;
            let error = match tried {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(error)) => error,
                Err(_) => too_slow(tell),
            };
            self.patience.lose(began.elapsed());
            let pause = match &error {
                DeliverError::Refused { .. } => None,
                DeliverError::Unavailable { retry_after, .. } => self.patience.pause(*retry_after),
            };
            let Some(pause) = pause else {
                return Err(Untold::Room(error));
            };
            tracing::debug!(error = chain(&error), ?pause, "a room can not be told now");
            self.unless_ending(tokio::time::sleep(pause)).await?;
        }
    }

    /// Says something that nothing depends on.
    pub(super) async fn mention(&mut self, tell: &Tell) -> Result<(), Untold> {
        match self.tell(tell).await {
            Err(error @ Untold::Room(_)) => {
                tracing::error!(error = chain(&error), text = tell.text, "a room could not be told");
                Ok(())
            }
            result => result,
        }
    }

    async fn unless_ending<T>(&self, work: impl Future<Output = T>) -> Result<T, Untold> {
        tokio::select! {
            biased;
            () = self.shutdown.cancelled() => Err(Untold::ShuttingDown),
            done = work => Ok(done),
        }
    }
}

/// What is sent for words: the same for the same words.
pub(super) fn outgoing(channel: &str, tell: &Tell) -> Outgoing {
    let cause = EventId::new(format!("tell/{channel}/{}", tell.key));
    Outgoing {
        id: transaction::id(&cause, 0),
        room: tell.room.clone(),
        thread: tell.thread.clone(),
        body: Body::Text(tell.text.clone()),
        run_id: None,
        notice: true,
        maybe_sent: false,
    }
}

fn too_slow(tell: &Tell) -> DeliverError {
    let source: Cause = Said("it takes too long".to_owned()).into();
    DeliverError::Unavailable { room: tell.room.clone(), retry_after: None, source }
}

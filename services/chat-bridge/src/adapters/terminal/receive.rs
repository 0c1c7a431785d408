//! The receiving half: requests in, runs out.

use std::collections::HashMap;

use async_nats::{Message, Subscriber};
use futures::StreamExt as _;
use kit::{bus::Bus, crew::TERMINAL_ROOM};

use super::{BRIDGE, CHANNEL, Heard, Say, say_subject};
use crate::{
    domain::inbound::{Content, IncomingMessage, Kind},
    ports::{self, Batch, Receive, ReceiveError, Started, ThreadLine},
};

/// Messages of one batch. What is waiting is taken together, so that its runs share a write to the log.
const BATCH: usize = 256;

/// Threads whose beginning is kept while their message is decided.
const THREADS: usize = BATCH;

/// Receives what is said in all sessions.
pub struct Receiver {
    bus: Bus,
    requests: Option<Subscriber>,
    /// The requests of the batch that was given out.
    pending: Vec<(Say, Message)>,
}

impl Receiver {
    /// Listens from the first `next` on.
    pub fn new(bus: &Bus) -> Self {
        Self { bus: bus.clone(), requests: None, pending: Vec::new() }
    }

    async fn listen(&mut self) -> Result<&mut Subscriber, ReceiveError> {
        if self.requests.is_none() {
            let subject = say_subject().map_err(unavailable)?;
            // As a group: of several bridges one answers.
            let requests = self.bus.client().queue_subscribe(subject.to_string(), BRIDGE.to_owned()).await;
            self.requests = Some(requests.map_err(unavailable)?);
        }
        self.requests.as_mut().ok_or_else(|| unavailable(ports::Said("not listening".to_owned())))
    }

    fn batch(&self) -> Batch {
        Batch { messages: self.pending.iter().map(|(say, _)| message(say)).collect(), notices: Vec::new() }
    }
}

impl Receive for Receiver {
    fn name(&self) -> &'static str {
        CHANNEL
    }

    async fn next(&mut self) -> Result<Batch, ReceiveError> {
        while self.pending.is_empty() {
            let requests = self.listen().await?;
            let Some(first) = requests.next().await else {
                self.requests = None;
                return Err(unavailable(ports::Said("the bus closed the subscription".to_owned())));
            };
            let mut waiting = vec![first];
            while waiting.len() < BATCH
                && let Some(Some(request)) = futures::FutureExt::now_or_never(requests.next())
            {
                waiting.push(request);
            }
            self.pending = waiting.into_iter().filter_map(read).collect();
        }
        Ok(self.batch())
    }

    async fn commit(&mut self, started: &[Started]) -> Result<(), ReceiveError> {
        let mut by_event: HashMap<&str, Vec<Started>> = HashMap::new();
        for run in started {
            by_event.entry(&run.event_id).or_default().push(run.clone());
        }
        for (say, request) in std::mem::take(&mut self.pending) {
            let Some(inbox) = request.reply else { continue };
            let heard = Heard { runs: by_event.get(say.event_id.as_str()).cloned().unwrap_or_default() };
            let body = serde_json::to_vec(&heard).map_err(unavailable)?;
            self.bus.client().publish(inbox, body.into()).await.map_err(unavailable)?;
        }
        Ok(())
    }

    async fn thread(&self, room: &str, root: &str) -> Result<Vec<ThreadLine>, ReceiveError> {
        let said = self.pending.iter().take(THREADS).map(|(say, _)| say);
        let mut said = said.filter(|say| say.session == room && say.thread.as_deref() == Some(root));
        Ok(said.next().map(|say| say.earlier.clone()).unwrap_or_default())
    }
}

fn read(request: Message) -> Option<(Say, Message)> {
    match serde_json::from_slice(&request.payload) {
        Ok(say) => Some((say, request)),
        Err(error) => {
            tracing::warn!(%error, "a request to say something is not readable");
            None
        }
    }
}

fn message(say: &Say) -> IncomingMessage {
    IncomingMessage {
        channel: CHANNEL.to_owned(),
        room: say.session.clone(),
        room_name: Some(TERMINAL_ROOM.to_owned()),
        event_id: say.event_id.clone(),
        sender: say.sender.clone(),
        thread_root: say.thread.clone(),
        mentions_account: false,
        kind: Kind::New,
        content: Content::Text(say.text.clone()),
        at: say.at,
    }
}

fn unavailable(source: impl Into<ports::Cause>) -> ReceiveError {
    ReceiveError::Unavailable { channel: CHANNEL, source: source.into() }
}

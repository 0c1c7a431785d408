//! The other end: one command line.

use std::{
    collections::{HashSet, VecDeque},
    pin::pin,
};

use async_nats::{Message, RequestErrorKind, Subscriber};
use futures::StreamExt as _;
use jiff::Timestamp;
use kit::bus::Bus;
use schemas::ids::InvalidName;
use uuid::Uuid;

use super::{ANSWER_WITHIN, Heard, Said, Say, say_subject, session_subject};
use crate::ports::{Started, ThreadLine};

/// How often a message is asked again whose answer did not come. The same id makes that harmless.
const ATTEMPTS: u32 = 3;

/// One conversation at a terminal.
#[derive(Debug)]
pub struct Session {
    bus: Bus,
    id: String,
    said: Subscriber,
    seen: HashSet<String>,
    /// What was said while the bridge's answer was waited for.
    heard: VecDeque<Said>,
    thread: Option<String>,
    earlier: Vec<ThreadLine>,
}

/// A session does not work.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The id is no token.
    #[error("the session has no valid name")]
    Name(#[from] InvalidName),
    /// The session can not listen.
    #[error("the session can not listen on the bus")]
    Listen(#[source] async_nats::SubscribeError),
    /// The bridge does not run.
    #[error("nobody answers: chat-bridge does not run, or team.yaml has no terminal")]
    NoBridge,
    /// The bridge does not answer.
    #[error("chat-bridge did not answer in time")]
    Silent,
    /// The bus is away.
    #[error("the bus can not be asked")]
    Bus(#[source] async_nats::RequestError),
    /// The answer can not be read.
    #[error("the answer of chat-bridge can not be read")]
    Answer(#[source] serde_json::Error),
}

impl Session {
    /// Opens a session; `id` is a fresh UUID. The bus is that of the user `nightcrew`.
    pub async fn open(bus: &Bus, id: Uuid) -> Result<Self, SessionError> {
        let id = format!("terminal-{id}");
        let subject = session_subject(&id)?;
        let said = bus.client().subscribe(subject.to_string()).await.map_err(SessionError::Listen)?;
        Ok(Self {
            bus: bus.clone(),
            id,
            said,
            seen: HashSet::new(),
            heard: VecDeque::new(),
            thread: None,
            earlier: Vec::new(),
        })
    }

    /// The session's room in its channel: where a run answers that was started past the bridge.
    pub fn room(&self) -> &str {
        &self.id
    }

    /// Says something and gives the runs that it belongs to. `event_id` is a fresh UUID: a message that is said again
    /// with the same one starts nothing new. A second message of a session follows up on the first.
    pub async fn say(
        &mut self,
        event_id: Uuid,
        sender: &str,
        text: &str,
        at: Timestamp,
    ) -> Result<Vec<Started>, SessionError> {
        let say = Say {
            session: self.id.clone(),
            event_id: event_id.to_string(),
            sender: sender.to_owned(),
            thread: self.thread.clone(),
            earlier: self.earlier.clone(),
            text: text.to_owned(),
            at,
        };
        let heard = self.ask(&say).await?;
        self.thread.get_or_insert_with(|| say.event_id.clone());
        self.earlier.push(ThreadLine { event_id: say.event_id, sender: say.sender, text: say.text });
        Ok(heard.runs)
    }

    /// Waits for what is said in the session, each message once. Nothing when the bus is closed.
    pub async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some(said) = self.heard.pop_front() {
                return Some(said);
            }
            let request = self.said.next().await?;
            self.hear(request).await;
        }
    }

    /// Answers whoever says something, and keeps what is new.
    async fn hear(&mut self, request: Message) {
        if let Some(inbox) = request.reply {
            // An answer that is lost brings the same message again.
            drop(self.bus.client().publish(inbox, "{}".into()).await);
        }
        match serde_json::from_slice::<Said>(&request.payload) {
            Ok(said) if self.seen.insert(said.id.clone()) => {
                self.earlier.push(ThreadLine {
                    event_id: said.id.clone(),
                    sender: "crew".to_owned(),
                    text: said.text.clone(),
                });
                self.heard.push_back(said);
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "something that can not be read was said"),
        }
    }

    /// Asks the bridge, and listens meanwhile: it says why nobody is woken before it answers.
    async fn ask(&mut self, say: &Say) -> Result<Heard, SessionError> {
        let subject = say_subject()?;
        let body = serde_json::to_vec(say).map_err(SessionError::Answer)?;
        let client = self.bus.client().clone();
        for _ in 0..ATTEMPTS {
            let asked = client.request(subject.to_string(), body.clone().into());
            let mut asked = pin!(tokio::time::timeout(ANSWER_WITHIN, asked));
            let answer = loop {
                tokio::select! {
                    biased;
                    Some(request) = self.said.next() => self.hear(request).await,
                    answer = &mut asked => break answer,
                }
            };
            match answer {
                Ok(Ok(answer)) => {
                    return serde_json::from_slice(&answer.payload).map_err(SessionError::Answer);
                }
                Ok(Err(error)) if error.kind() == RequestErrorKind::NoResponders => {
                    return Err(SessionError::NoBridge);
                }
                Ok(Err(error)) if error.kind() != RequestErrorKind::TimedOut => {
                    return Err(SessionError::Bus(error));
                }
                Ok(Err(_)) | Err(_) => {}
            }
        }
        Err(SessionError::Silent)
    }
}

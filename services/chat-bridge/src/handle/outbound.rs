//! What runs say, into rooms.
//!
//! Consumes: `swarm.run.*.say.<channel>`. Emits: messages through the port; the signal `delivered` with the message's id in
//! the channel, or `undelivered` with the reason; words about what a run has ended without. Idempotency: a message's id derives
//! from the decision that says it, and the channel sends the same id once; the signal's id derives from it too. Ordering: the
//! parts of one answer are sent in order; answers of different runs are independent. On failure: a room that can not be reached
//! is tried later, without end; a message that its room does not take, or that can not be read, is parked, and all else that
//! its decision leads to is done.

use std::time::Duration;

use kit::{
    blobs::BlobError,
    class::{Classified, ErrorClass, chain},
    consume::{Delivery, Fate},
    message::{DecodeError, Stored},
    telemetry::run_span,
};
use schemas::{
    Decision, EventId, RunEvent, RunId, Signal, Subject,
    event::MessageSent,
    signal::{Delivered, Undelivered},
};
use tracing::Instrument as _;

use super::{
    Project, SURELY_REMEMBERED,
    signals::{self, SignalError},
    words,
};
use crate::{
    domain::{
        footer,
        split::{self, Layout},
        transaction,
    },
    ports::{Body, Deliver, DeliverError, Outgoing},
};

/// The longest wait that a channel may ask for. It is asked again then.
const LONGEST_WAIT: Duration = Duration::from_mins(5);

/// The room of a message that can not be read.
const UNKNOWN: &str = "unknown";

/// Something that was said is not delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SayError {
    /// The decision can not be read.
    #[error("what is said can not be read")]
    Decode(#[source] DecodeError),
    /// The text can not be had.
    #[error("the text of what is said can not be had")]
    Blob(#[source] BlobError),
    /// The channel did not take it.
    #[error("what is said is not delivered")]
    Deliver(#[source] DeliverError),
    /// The run can not be told.
    #[error("the run can not be told of the delivery")]
    Signal(#[source] SignalError),
}

impl Classified for SayError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Decode(_) | Self::Deliver(DeliverError::Refused { .. }) => ErrorClass::Broken,
            Self::Deliver(DeliverError::Unavailable { .. }) => ErrorClass::Transient,
            Self::Blob(error) => error.class(),
            Self::Signal(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Decode(error) => error.code(),
            Self::Deliver(DeliverError::Refused { .. }) => "room_refused",
            Self::Deliver(DeliverError::Unavailable { .. }) => "room_unavailable",
            Self::Blob(error) => error.code(),
            Self::Signal(error) => error.code(),
        }
    }
}

/// One message of a decision.
#[derive(Clone, Copy)]
struct Part<'a> {
    stored: &'a Stored,
    n: usize,
    said: &'a MessageSent,
    maybe_sent: bool,
}

/// Takes what runs say to one channel.
#[derive(Debug, Clone)]
pub(crate) struct Outbound<D> {
    pub(crate) project: Project,
    pub(crate) sender: D,
}

impl<D: Deliver> Outbound<D> {
    pub(crate) async fn handle(&self, delivery: Delivery) -> Result<Fate, SayError> {
        match self.say(&delivery).await {
            Err(SayError::Deliver(DeliverError::Unavailable { retry_after: Some(wait), .. })) => {
                Ok(Fate::Later(wait.min(LONGEST_WAIT)))
            }
            Err(error) => Err(error),
            Ok(()) => Ok(Fate::Ack),
        }
    }

    async fn say(&self, delivery: &Delivery) -> Result<(), SayError> {
        let stored = &delivery.stored;
        let decision: Decision = match stored.decode().map_err(SayError::Decode) {
            Ok(decision) => decision,
            Err(error) => {
                if let Subject::Say(run, channel) = &stored.subject {
                    let undelivered = undelivered(stored, (channel.as_str(), UNKNOWN), &error);
                    self.tell_undelivered(stored, *run, 0, undelivered).await?;
                }
                return Err(error);
            }
        };
        let age = kit::clock::now().duration_since(stored.time);
        let maybe_sent = delivery.attempt > 1 || age > SURELY_REMEMBERED;
        let mut broken = None;
        for (n, event) in decision.events.iter().enumerate() {
            let RunEvent::MessageSent(said) = event else {
                continue;
            };
            let span = run_span(said.footer.run_id, &said.footer.agent);
            let part = Part { stored, n, said, maybe_sent };
            match self.bring(part).instrument(span.clone()).await {
                Err(error) if error.class() == ErrorClass::Broken => {
                    broken.get_or_insert(error);
                }
                brought => brought?,
            }
            if stored.is_end() {
                self.tell_unheard(said, stored.sequence).instrument(span).await?;
            }
        }
        broken.map_or(Ok(()), Err)
    }

    /// Says which messages the run has ended without, at a sequence: whoever wrote them waits for an answer.
    async fn tell_unheard(&self, said: &MessageSent, end: u64) -> Result<(), SayError> {
        let (run, agent) = (said.footer.run_id, &said.footer.agent);
        let unheard = match signals::unheard(&self.project, run, end).await {
            // The answer is there: its message is not to be parked for this.
            Err(error) if error.class() == ErrorClass::Broken => {
                tracing::error!(error = chain(&error), "what the run has ended without is not known");
                return Ok(());
            }
            unheard => unheard.map_err(SayError::Signal)?,
        };
        for id in unheard {
            let tell = signals::too_late(&id, agent, &said.to.room, said.to.thread.clone());
            match self.sender.deliver(&words::outgoing(&said.to.channel, &tell)).await {
                Err(error @ DeliverError::Refused { .. }) => {
                    tracing::error!(error = chain(&error), text = tell.text, "a room could not be told");
                }
                result => drop(result.map_err(SayError::Deliver)?),
            }
        }
        Ok(())
    }

    /// Sends one message and tells its run.
    async fn bring(&self, part: Part<'_>) -> Result<(), SayError> {
        let Part { stored, n, said, maybe_sent } = part;
        let run = said.footer.run_id;
        let decision_id = stored.envelope.id.clone();
        let external_id = match self.send(said, &decision_id.nth(n), maybe_sent).await {
            Ok(external_id) => external_id,
            Err(error) if error.class() == ErrorClass::Broken => {
                let undelivered = undelivered(stored, (&said.to.channel, &said.to.room), &error);
                self.tell_undelivered(stored, run, n, undelivered).await?;
                return Err(error);
            }
            Err(error) => return Err(error),
        };
        let (channel, room) = (said.to.channel.clone(), said.to.room.clone());
        tracing::info!(room, event = external_id, "what the run says is in its room");
        let delivered = Signal::Delivered(Delivered { decision_id, channel, room, external_id });
        self.tell_run(stored, run, &format!("delivered/{n}"), &delivered).await
    }

    /// Tells a run of a message that is parked for a person to see: the letter may be dropped, and the log has to know too.
    async fn tell_undelivered(
        &self,
        stored: &Stored,
        run: RunId,
        n: usize,
        undelivered: Undelivered,
    ) -> Result<(), SayError> {
        match self.tell_run(stored, run, &format!("undelivered/{n}"), &Signal::Undelivered(undelivered)).await {
            // The letter shall say what is wrong with the message.
            Err(error) if error.class() == ErrorClass::Broken => {
                tracing::error!(error = chain(&error), %run, "a run is not told that its message is parked");
                Ok(())
            }
            told => told,
        }
    }

    async fn tell_run(&self, stored: &Stored, run: RunId, what: &str, signal: &Signal) -> Result<(), SayError> {
        let id = stored.envelope.id.derive(what);
        let signal = signals::outgoing(run, id, signal).map_err(SayError::Signal)?;
        signals::give(&self.project, &signal).await.map_err(SayError::Signal)
    }

    /// Sends all parts of a message and gives the id of the first.
    async fn send(&self, said: &MessageSent, id: &EventId, maybe_sent: bool) -> Result<String, SayError> {
        let text = self.project.blobs.load(&said.text).await.map_err(SayError::Blob)?;
        let link = self.project.crew.run_url.as_ref().map(|url| url.of(&said.footer.run_id));
        let footer = footer::line(&said.footer, link.as_deref());
        let mut first = None;
        for (part, body) in bodies(&text, &footer, &said.footer.run_id.short()).into_iter().enumerate() {
            let outgoing = Outgoing {
                id: transaction::id(id, part),
                room: said.to.room.clone(),
                thread: said.to.thread.clone(),
                body,
                run_id: Some(said.footer.run_id),
                notice: false,
                maybe_sent,
            };
            let external_id = self.sender.deliver(&outgoing).await.map_err(SayError::Deliver)?;
            first.get_or_insert(external_id);
        }
        Ok(first.unwrap_or_default())
    }
}

/// That a message is not in its channel and room, and why.
fn undelivered(stored: &Stored, (channel, room): (&str, &str), error: &SayError) -> Undelivered {
    Undelivered {
        decision_id: stored.envelope.id.clone(),
        channel: channel.to_owned(),
        room: room.to_owned(),
        reason: chain(error),
    }
}

/// What is sent of an answer, in order. The footer stands under the last text.
fn bodies(text: &str, footer: &str, name: &str) -> Vec<Body> {
    let with_footer = |text: &str| Body::Text(format!("{}\n\n---\n\n{footer}", text.trim_end()));
    match split::layout(text) {
        Layout::Parts(mut parts) => {
            let last = parts.pop().unwrap_or_default();
            parts.into_iter().map(Body::Text).chain([with_footer(&last)]).collect()
        }
        Layout::Attached { teaser, file } => {
            vec![with_footer(&teaser), Body::File { name: format!("answer-{name}.md"), text: file }]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_footer_stands_under_the_last_text() {
        let short = bodies("hello\n", "*lead*", "x");
        assert_eq!(short, [Body::Text("hello\n\n---\n\n*lead*".to_owned())]);
        let two = bodies(&format!("{}\n\n{}", "a".repeat(6000), "b".repeat(6000)), "*lead*", "x");
        assert_eq!(two.len(), 2);
        assert!(matches!(&two[1], Body::Text(text) if text.starts_with('b') && text.ends_with("*lead*")));
        let long = bodies(&"word ".repeat(20_000), "*lead*", "x");
        assert!(matches!(&long[0], Body::Text(text) if text.ends_with("*lead*")));
        assert!(matches!(&long[1], Body::File { name, .. } if name == "answer-x.md"));
    }
}

//! Asking who holds a run, and answering for those that are held here.
//!
//! Whoever has a wake of a run that is held in another process asks on `swarm.hold.<run>` and names the epoch that it read
//! in the log. A holder of that epoch or a later one answers; one of an earlier epoch has lost the run and lets go. Whoever
//! asks because of a signal also names the signal by its place in the log: the holder's process reads it there and hands it
//! over, so that the holder takes it at once, whichever process it was delivered to. The log stays what counts: what is
//! handed over is what stands in it, and it is taken once it is in the journal.

use std::time::Duration;

use async_nats::{HeaderMap, Message, Subject as Inbox};
use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use kit::{bus::Bus, class::chain, journal::Journal};
use schemas::{RunId, Signal, Subject};
use tokio_util::sync::CancellationToken;

use crate::holds::{Delivered, Holds};

/// How long the holder of a run may stay silent before it is taken for lost; whoever has a signal for it gives it
/// [`TAKEN_WITHIN`] besides.
const HOLDER_SILENCE: Duration = Duration::from_secs(1);

/// How long the answer to a question with a signal may wait for the holder to journal that: it does so in milliseconds
/// unless it is between two steps. What takes longer is delivered again.
const TAKEN_WITHIN: Duration = Duration::from_secs(1);

/// Signals that wait here for their holders at once. What comes beyond is delivered again.
const HANDED_OVER_AT_ONCE: usize = 1_000;

/// Names a signal by its sequence in the log: in a question one to be handed over, in an answer one that was taken. It is a
/// header, so that who does not know it still understands the question.
const SIGNAL: &str = "Nc-Signal";

/// A question for the holder of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The run.
    pub run: RunId,
    /// The epoch that it is in, as an ordinal. Only who took it then or later answers.
    pub epoch: u32,
    /// Where the signal stands in the log that the holder shall take.
    pub signal: Option<u64>,
}

/// What a holder says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Nothing, over a connected bus: it is lost, or there is none.
    Silent,
    /// That it is there.
    Holds,
    /// That it is there, and the signal is in the run's journal.
    HasTaken,
}

impl Question {
    fn headers(&self) -> Option<HeaderMap> {
        self.signal.map(naming)
    }

    /// The question in a message. One without an epoch is for any holder.
    fn read(message: &Message) -> Option<Self> {
        let run = message.subject.parse::<Subject>().ok()?.run_id()?;
        let epoch = std::str::from_utf8(&message.payload).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
        Some(Self { run, epoch, signal: named(message) })
    }
}

fn naming(signal: u64) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(SIGNAL, signal.to_string());
    headers
}

fn named(message: &Message) -> Option<u64> {
    message.headers.as_ref()?.get(SIGNAL)?.as_str().parse().ok()
}

/// Asks whoever holds the run to say so. Silence counts only on a connected bus.
pub async fn ask(bus: &Bus, question: Question) -> Answer {
    let (subject, epoch) = (Subject::Hold(question.run).to_string(), question.epoch.to_string().into());
    let (asked, within) = match question.headers() {
        Some(headers) => {
            let asked = bus.client().request_with_headers(subject, headers, epoch);
            (asked.left_future(), HOLDER_SILENCE + TAKEN_WITHIN)
        }
        None => (bus.client().request(subject, epoch).right_future(), HOLDER_SILENCE),
    };
    match tokio::time::timeout(within, asked).await {
        Ok(Ok(answer)) if question.signal.is_some() && named(&answer) == question.signal => Answer::HasTaken,
        Ok(Err(_)) | Err(_) if bus.is_connected() => Answer::Silent,
        _ => Answer::Holds,
    }
}

/// Nobody can be answered any more. Who does not answer loses its runs.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The questions can not be heard.
    #[error("questions for holders can not be heard")]
    Subscribe(#[from] async_nats::SubscribeError),
    /// No more questions will come.
    #[error("questions for holders come no more")]
    Ended,
}

/// Answers for the runs that this process holds, until the end.
///
/// Consumes `swarm.hold.*`: the question for the holder of an epoch or a later one, which is also how one who has taken a
/// run over tells who held it before. Emits a reply, or nothing for a run that is not held here any more; the reply to a
/// question with a signal waits for the holder to take that, for a bounded time. On failure: a lost question is asked again
/// with the next delivery of the wake.
pub async fn answer_for_held(
    journal: Journal,
    holds: Holds,
    runner: String,
    shutdown: CancellationToken,
) -> Result<(), AnswerError> {
    let client = journal.bus().client();
    let mut questions = client.subscribe(schemas::subject::filter::HOLDS).await?;
    let mut handed = FuturesUnordered::new();
    loop {
        let (reply, taken) = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            Some(answer) = handed.next() => answer,
            message = questions.next() => {
                let message = message.ok_or(AnswerError::Ended)?;
                let question = Question::read(&message).filter(|asked| holds.answers(asked.run, asked.epoch));
                let (Some(question), Some(reply)) = (question, message.reply) else { continue };
                match question.signal {
                    Some(signal) if handed.len() < HANDED_OVER_AT_ONCE => {
                        handed.push(hand_over(&journal, &holds, question.run, signal, reply));
                        continue;
                    }
                    _ => (reply, None),
                }
            }
        };
        // An answer that is lost is asked for again.
        let _ = match taken {
            Some(signal) => client.publish_with_headers(reply, naming(signal), runner.clone().into()).await,
            None => client.publish(reply, runner.clone().into()).await,
        };
    }
}

/// Hands a signal to the run's holder here; gives whom to tell, and the signal once it is in the journal.
async fn hand_over(journal: &Journal, holds: &Holds, run: RunId, signal: u64, reply: Inbox) -> (Inbox, Option<u64>) {
    let taken = async {
        let stored = match journal.signal(run, signal).await {
            Ok(stored) => stored?,
            Err(error) => {
                tracing::warn!(%run, error = %chain(&error), "a signal for a run in hand can not be read now");
                return None;
            }
        };
        // Whoever it was delivered to has read it too, and parks what is unreadable.
        let content: Signal = stored.decode().ok()?;
        let delivered = holds.deliver(run, stored.envelope.id, content).await;
        (delivered == Delivered::Taken).then_some(signal)
    };
    (reply, tokio::time::timeout(TAKEN_WITHIN, taken).await.ok().flatten())
}

//! What no service could handle, told to people: nobody looks into a stream by themselves.
//!
//! Consumes the stream of parked messages, by looking. Emits the health check `dead letters`, a warning while anything is parked,
//! and a line of the log for each letter: why it is there, and what a person can do. Idempotency: a letter is told once by each process,
//! so a restart repeats what still lies there. Ordering: as they were parked. On failure: the check is red, for nobody knows.

use std::time::Duration;

use jiff::Timestamp;
use kit::bus::Bus;
use kit::class::chain;
use kit::message::Verbatim;
use kit::scan::ScanError;
use kit::service::{Check, Context};
use schemas::dead::DeadLetter;
use schemas::subject::filter;
use schemas::{RunId, Subject};

/// The stream of parked messages.
pub(crate) const STREAM: &str = "DEAD";

/// Name of the health check.
const CHECK: &str = "dead letters";

/// How often it is looked: one small request. A person who mended the cause sees soon that it is mended.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Letters that are told at once: a restart among thousands must not push everything else out of the log lines' store.
const MOST_TOLD: u64 = 100;

/// What is parked can not be looked up.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error("what is parked can not be counted now")]
    Count(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("what is parked can not be read now")]
    Read(#[from] ScanError),
}

/// Looks again and again, until shutdown.
pub(crate) async fn watch(bus: Bus, context: Context) {
    let mut watch = Watch { bus, told: 0 };
    loop {
        let looked = tokio::select! {
            () = context.shutdown.cancelled() => return,
            looked = watch.look() => looked,
        };
        let check = match looked {
            Ok(parked) => check(parked),
            Err(error) => {
                tracing::debug!(error = chain(&error), "what is parked can not be looked up");
                Check::Red(chain(&error))
            }
        };
        context.health.set(CHECK, check);
        tokio::select! {
            () = context.shutdown.cancelled() => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }
}

fn check(parked: u64) -> Check {
    match parked {
        0 => Check::Green,
        1 => Check::Warn("1 message could not be handled and is parked: `nightcrew dead list`".to_owned()),
        _ => Check::Warn(format!("{parked} messages could not be handled and are parked: `nightcrew dead list`")),
    }
}

struct Watch {
    bus: Bus,
    /// The last letter that was told.
    told: u64,
}

impl Watch {
    /// How many messages are parked. Those that were not told yet are told.
    async fn look(&mut self) -> Result<u64, LookError> {
        let stream = self.bus.jetstream().get_stream_no_info(STREAM).await;
        let stream = stream.map_err(|error| LookError::Count(Box::new(error)))?;
        let state = stream.get_info().await.map_err(|error| LookError::Count(Box::new(error)))?.state;
        if state.last_sequence < self.told {
            // Another stream in the place of the one before.
            self.told = 0;
        }
        let newest = state.last_sequence.saturating_sub(MOST_TOLD);
        if state.messages > MOST_TOLD && newest > self.told {
            let parked = state.messages;
            tracing::error!(parked, "more is parked than is told here, one by one: `nightcrew dead list` tells all");
            self.told = newest;
        }
        let mut next = (state.messages > 0 && state.last_sequence > self.told).then_some(self.told + 1);
        while let Some(from) = next {
            let page = self.bus.scan(STREAM, filter::DEAD, from).await?;
            for message in &page.messages {
                tell(message);
                self.told = message.sequence;
            }
            next = page.next;
        }
        Ok(state.messages)
    }
}

fn tell(message: &Verbatim) {
    let number = message.sequence;
    let parked_at: Timestamp = message.time;
    let letter: DeadLetter = match serde_json::from_slice(&message.body) {
        Ok(letter) => letter,
        Err(error) => {
            return tracing::error!(number, %parked_at, %error, "what is parked can not be read: `nightcrew dead drop {number}`");
        }
    };
    let DeadLetter { service, consumer, code, reason, subject, .. } = &letter;
    let run = run_of(subject).map(tracing::field::display);
    tracing::error!(
        run,
        number,
        %parked_at,
        service,
        consumer,
        code,
        reason,
        subject,
        "a message could not be handled and is parked: `nightcrew dead show {number}`, then `nightcrew dead replay {number}` or \
         `nightcrew dead drop {number}`"
    );
}

/// The run that a letter is about.
fn run_of(subject: &str) -> Option<RunId> {
    subject.parse::<Subject>().ok()?.run_id()
}

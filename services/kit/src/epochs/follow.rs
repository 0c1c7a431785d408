//! Follows the heads of all journals from now on.
//!
//! Consumes `swarm.run.>` with a consumer of its own, headers only. Emits into the fold. Idempotency: the fold's.
//! Ordering: does not matter to the fold; that nothing is missing does. So after everything that can lose a message
//! (a changed connection, a lost request, a gap in the numbers) the consumer is made anew behind the last message
//! that was seen. On failure: the fold is stale until that has worked and the backlog was read.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull};
use schemas::Subject;
use schemas::envelope::KINDS_HEADER;
use schemas::subject::filter;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Follower, Shared};
use crate::bus::Bus;
use crate::class::{Classified, ErrorClass, chain};
use crate::identity;
use crate::journal::STREAM;
use crate::pull::{Pulled, Puller};

/// How often the server says that nothing has come: several times within what makes the fold stale.
const HEARTBEAT: Duration = Duration::from_millis(250);

/// Messages that may be on their way here. They are headers only.
const ON_THE_WAY: usize = 1024;

/// Pause before the consumer is made anew after it could not be.
const RETRY: Duration = Duration::from_millis(100);

/// After so long without a reader the server forgets a consumer that was left behind.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

type Source = Box<dyn std::error::Error + Send + Sync>;

/// The log can not be followed.
#[derive(Debug, thiserror::Error)]
#[error("no consumer of {STREAM} can be made")]
pub struct StartError(#[source] Source);

impl Classified for StartError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Transient
    }

    fn code(&self) -> &'static str {
        "epochs_start"
    }
}

/// Follows the log.
pub(super) struct Following {
    bus: Bus,
    shared: Arc<Shared>,
    puller: Puller,
    /// Number of the last message that this consumer delivered.
    delivered: u64,
    /// The last message of the log that is known to be folded.
    folded: u64,
}

pub(super) async fn start(bus: Bus, shared: Arc<Shared>) -> Result<Following, StartError> {
    let (name, behind) = make(&bus, DeliverPolicy::New).await.map_err(StartError)?;
    let following = Following {
        puller: Puller::new(&bus, STREAM, &name, HEARTBEAT).await,
        bus,
        shared,
        delivered: 0,
        folded: behind.last,
    };
    following.heard(true);
    Ok(following)
}

impl Following {
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        let cancelled = shutdown.clone();
        let following = async {
            loop {
                self.follow().await;
                self.behind();
                self.begin_again().await;
            }
        };
        tokio::select! {
            () = cancelled.cancelled() => {}
            () = following => {}
        }
        // Whoever still asks is not told what may have changed.
    }

    /// Takes what comes, until something may be missing.
    async fn follow(&mut self) {
        loop {
            match self.puller.next(ON_THE_WAY).await {
                Pulled::Message(message) => {
                    if self.take(&message).is_none() {
                        return;
                    }
                }
                Pulled::Idle => self.heard(true),
                Pulled::Cut | Pulled::Gone => return,
            }
        }
    }

    /// Folds a message; none when one before it is missing.
    fn take(&mut self, message: &jetstream::Message) -> Option<()> {
        let info = message.info().ok()?;
        if info.consumer_sequence != self.delivered + 1 {
            return None;
        }
        self.delivered = info.consumer_sequence;
        self.folded = info.stream_sequence;
        let subject = message.subject.parse::<Subject>().ok();
        if let Some(run) = subject.and_then(|subject| subject.run_id()) {
            let kinds = kinds(message);
            self.shared.runs().apply(run, info.stream_sequence, &kinds);
        }
        self.heard(info.pending == 0);
        Some(())
    }

    /// Makes the consumer anew behind what was folded.
    async fn begin_again(&mut self) {
        loop {
            self.bus.connected().await;
            let start_sequence = self.folded + 1;
            match make(&self.bus, DeliverPolicy::ByStartSequence { start_sequence }).await {
                Ok((name, behind)) => {
                    self.puller = Puller::new(&self.bus, STREAM, &name, HEARTBEAT).await;
                    self.delivered = 0;
                    self.heard(behind.pending == 0);
                    return;
                }
                Err(error) => {
                    tracing::warn!(error = chain(&*error), "the epochs can not be followed now");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    fn heard(&self, caught_up: bool) {
        let heard = Instant::now();
        let follower = Follower { caught_up, heard };
        self.shared.follower.send_replace(follower);
    }

    fn behind(&self) {
        let behind = |follower: &mut Follower| follower.caught_up = false;
        self.shared.follower.send_modify(behind);
    }
}

fn kinds(message: &jetstream::Message) -> Vec<String> {
    let headers = message.headers.as_ref();
    let kinds = headers.and_then(|headers| headers.get(KINDS_HEADER));
    kinds.map(|kinds| kinds.as_str().split(',').map(|kind| kind.trim().to_owned()).collect()).unwrap_or_default()
}

/// How far behind a new consumer is.
struct Behind {
    /// Messages that it has yet to deliver.
    pending: u64,
    /// The last message of the log before those.
    last: u64,
}

/// Makes a consumer and gives its name.
async fn make(bus: &Bus, deliver_policy: DeliverPolicy) -> Result<(String, Behind), Source> {
    let stream = bus.jetstream().get_stream_no_info(STREAM).await?;
    let name = identity::reader_name(bus.service());
    let config = pull::Config {
        name: Some(name.clone()),
        deliver_policy,
        ack_policy: AckPolicy::None,
        replay_policy: ReplayPolicy::Instant,
        filter_subject: filter::RUNS.to_owned(),
        headers_only: true,
        memory_storage: true,
        num_replicas: 1,
        inactive_threshold: FORGOTTEN_AFTER,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let info = consumer.cached_info();
    let behind = Behind { pending: info.num_pending, last: info.delivered.stream_sequence };
    Ok((name, behind))
}

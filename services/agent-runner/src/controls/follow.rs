//! Keeps the controls up to date.
//!
//! Consumes `swarm.control.>` with an ordered consumer of its own, the last message of each subject first. Emits the
//! fold through a watch, and a check that warns while a control in force could not be read. Ordering: by stream sequence.
//! On failure: the consumer is made anew; what was said meanwhile is read then, because the last word of each target stays
//! in the log.

use std::time::Duration;

use async_nats::jetstream::{
    ErrorCode,
    consumer::{DeliverPolicy, StreamError, pull::OrderedConfig},
    context::GetStreamErrorKind,
    stream::ConsumerError,
};
use futures::StreamExt as _;
use kit::{
    bus::Bus,
    class::chain,
    identity,
    service::{Check, Health},
};
use schemas::{
    Subject,
    control::Control,
    subject::{Target, filter},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::Controls;

/// Name of the health check.
const CHECK: &str = "controls";

/// The stream of controls.
const STREAM: &str = "CONTROL";

/// Pause before the consumer is made anew.
const RETRY: Duration = Duration::from_millis(500);

/// For how long the first read is tried: a cluster that elects the leader of CONTROL does not answer for ten seconds, and
/// a runner that is started for one that was lost with it must not be lost too.
const FIRST_READ_WITHIN: Duration = Duration::from_secs(30);

/// The controls can not be followed.
#[derive(Debug, thiserror::Error)]
pub enum ControlsError {
    /// The stream is not to be had.
    #[error("stream CONTROL is not to be had")]
    Stream(#[source] async_nats::jetstream::context::GetStreamError),
    /// How much there is to read is not known.
    #[error("stream CONTROL does not say how it stands")]
    Info(#[source] async_nats::jetstream::stream::InfoError),
    /// No consumer can be made.
    #[error("no consumer of CONTROL can be made")]
    Consumer(#[source] ConsumerError),
    /// The consumer gives no messages.
    #[error("the consumer of CONTROL gives no messages")]
    Messages(#[source] StreamError),
    /// It ended before all of them were read.
    #[error("the consumer of CONTROL was cut off")]
    Cut,
}

impl ControlsError {
    /// Whether trying again may help.
    fn may_pass(&self) -> bool {
        let Self::Stream(error) = self else { return true };
        !matches!(error.kind(), GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND)
    }
}

/// Keeps a watch up to date.
#[derive(Debug)]
pub struct Follower {
    bus: Bus,
    sender: watch::Sender<Controls>,
    health: Health,
}

/// Reads the controls as they stand, and gives who will follow them and say in `health` what can not be read.
pub async fn follow(bus: &Bus, health: Health) -> Result<(watch::Receiver<Controls>, Follower), ControlsError> {
    let (sender, receiver) = watch::channel(Controls::default());
    let follower = Follower { bus: bus.clone(), sender, health };
    let until = Instant::now() + FIRST_READ_WITHIN;
    while let Err(error) = follower.read(None).await {
        if !error.may_pass() || Instant::now() >= until {
            return Err(error);
        }
        tracing::warn!(error = %chain(&error), "the controls can not be read now");
        tokio::time::sleep(RETRY).await;
    }
    Ok((receiver, follower))
}

impl Follower {
    /// Follows until the end.
    pub async fn run(self, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.read(Some(&shutdown)).await {
                tracing::warn!(error = %chain(&error), "the controls can not be followed now");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    /// Reads what there is and, when `follow` is given, what comes, until it is cancelled or the consumer fails.
    async fn read(&self, follow: Option<&CancellationToken>) -> Result<(), ControlsError> {
        let mut stream = self.bus.jetstream().get_stream(STREAM).await.map_err(ControlsError::Stream)?;
        if follow.is_none() && stream.info().await.map_err(ControlsError::Info)?.state.messages == 0 {
            return Ok(());
        }
        let config = OrderedConfig {
            name: Some(identity::reader_name(self.bus.service())),
            filter_subject: filter::CONTROLS.to_owned(),
            deliver_policy: DeliverPolicy::LastPerSubject,
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.map_err(ControlsError::Consumer)?;
        let mut messages = consumer.messages().await.map_err(ControlsError::Messages)?;
        loop {
            let message = match follow {
                None => messages.next().await,
                Some(shutdown) => tokio::select! {
                    () = shutdown.cancelled() => return Ok(()),
                    message = messages.next() => message,
                },
            };
            let Some(Ok(message)) = message else { return Err(ControlsError::Cut) };
            let pending = message.info().map_or(0, |info| info.pending);
            self.apply(&message);
            if follow.is_none() && pending == 0 {
                return Ok(());
            }
        }
    }

    fn apply(&self, message: &async_nats::jetstream::Message) {
        let sequence = match message.info() {
            Ok(info) => info.stream_sequence,
            Err(error) => {
                tracing::error!(subject = %message.subject, error, "a control has no place in its stream: passed over");
                return;
            }
        };
        // A subject that names nobody may mean everybody.
        let target = match message.subject.parse::<Subject>() {
            Ok(Subject::Control(target)) => target,
            _ => Target::All,
        };
        let control = serde_json::from_slice::<Control>(&message.payload);
        self.sender.send_if_modified(|controls| {
            let before = controls.clone();
            match &control {
                Ok(control) => controls.apply(sequence, &target, control),
                Err(error) => controls.apply_unread(sequence, &target, &error.to_string()),
            }
            *controls != before
        });
        self.say();
    }

    fn say(&self) {
        let unread = self.sender.borrow().unread().collect::<Vec<_>>().join(" ");
        if unread.is_empty() {
            return self.health.set(CHECK, Check::Green);
        }
        tracing::error!(unread, "controls can not be read: whom they mean is paused until a later control");
        self.health.set(CHECK, Check::Warn(unread));
    }
}

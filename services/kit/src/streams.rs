//! Every stream, bucket and consumer, declared in one place and made so at start.
//!
//! `ensure` looks at what there is: it makes what is missing, changes what can be changed, and refuses to start over
//! a difference that can not be applied, naming the field, what is wanted and what was found. It never deletes, never
//! empties, and never takes room or replicas away that somebody gave; what a declared limit does not keep goes. Two that run
//! it at once come to the same result.

mod compare;
mod declare;

use std::time::Duration;

use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, ConsumerErrorKind};
use async_nats::jetstream::{self, ErrorCode};
use futures::future;
use tokio::time::Instant;

use crate::bus::Bus;
use crate::class::{Classified, ErrorClass};
use crate::consumer::{self, Durable};
use crate::journal::STREAM;

pub use compare::Difference;
pub use declare::{REPLIES_TTL, StreamOptions};

/// How long a server that just started, or a cluster that has no leader yet, may take to answer.
const WITHIN: Duration = Duration::from_secs(30);

/// Pause between tries on a server that is not ready.
const PAUSE: Duration = Duration::from_millis(100);

/// What `ensure` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Streams and consumers that were not there, as `stream` or `stream/consumer`.
    pub created: Vec<String>,
    /// Those that were changed, and what was.
    pub updated: Vec<(String, Vec<Difference>)>,
    /// How many were as they should be.
    pub unchanged: usize,
}

/// A stream or consumer is not as it has to be, and was not made so.
#[derive(Debug, thiserror::Error)]
pub enum EnsureError {
    /// A field that can not be changed once it is there.
    #[error("{what} can not be used: {} can not be changed", list(.fields))]
    Fixed {
        /// Stream, or stream and consumer.
        what: String,
        /// The fields.
        fields: Vec<Difference>,
    },
    /// The server refused a change.
    #[error("{what} can not be changed: {}", list(.fields))]
    Update {
        /// Stream, or stream and consumer.
        what: String,
        /// What was to be changed.
        fields: Vec<Difference>,
        /// The server's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The server refused to make it.
    #[error("{what} can not be made")]
    Create {
        /// Stream, or stream and consumer.
        what: String,
        /// The server's words.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It could not be looked at.
    #[error("{what} can not be looked at")]
    Look {
        /// Stream, or stream and consumer.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn list(fields: &[Difference]) -> String {
    let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
    fields.join("; ")
}

impl Classified for EnsureError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Look { .. } => ErrorClass::Transient,
            _ => ErrorClass::Broken,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Fixed { .. } => "stream_fixed",
            Self::Update { .. } => "stream_update",
            Self::Create { .. } => "stream_create",
            Self::Look { .. } => "stream_look",
        }
    }
}

/// What was done to one of them.
enum Done {
    Created(String),
    Updated(String, Vec<Difference>),
    Unchanged,
}

/// Makes every stream, bucket and consumer what it is declared to be. Needs the user `setup`.
pub async fn ensure(bus: &Bus, options: &StreamOptions) -> Result<Report, EnsureError> {
    let streams = declare::streams(options).into_iter().map(|config| ensure_stream(bus, config));
    let mut done = future::try_join_all(streams).await?;
    let consumers = consumer::ALL.iter().map(|consumer| ensure_consumer(bus, consumer));
    done.extend(future::try_join_all(consumers).await?);
    Ok(Report::of(done))
}

impl Report {
    fn of(done: Vec<Done>) -> Self {
        let mut report = Self::default();
        for done in done {
            match done {
                Done::Created(what) => report.created.push(what),
                Done::Updated(what, fields) => report.updated.push((what, fields)),
                Done::Unchanged => report.unchanged += 1,
            }
        }
        report
    }
}

/// Makes the bucket of kept replies anew when it is lost, as the service that owns it may. It lives in memory, so a
/// server that was restarted has it no more, while everything else is still there.
pub async fn restore_replies(bus: &Bus) -> Result<(), EnsureError> {
    let log = bus.jetstream().get_stream(STREAM).await;
    let log = log.map_err(|source| EnsureError::Look { what: STREAM.to_owned(), source: Box::new(source) })?;
    let replicas = log.cached_info().config.num_replicas;
    ensure_stream(bus, declare::replies(replicas)).await.map(|_| ())
}

async fn ensure_stream(bus: &Bus, wanted: Config) -> Result<Done, EnsureError> {
    let what = wanted.name.clone();
    let deadline = Instant::now() + WITHIN;
    loop {
        let found = match bus.jetstream().get_stream(&wanted.name).await {
            Ok(stream) => Some(stream.cached_info().config.clone()),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(problem) if problem.error_code() == ErrorCode::STREAM_NOT_FOUND => None,
                kind => {
                    let passing = match kind {
                        GetStreamErrorKind::JetStream(problem) => is_passing(&problem),
                        _ => true,
                    };
                    if passing && Instant::now() < deadline {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    let source = Box::new(error);
                    return Err(EnsureError::Look { what, source });
                }
            },
        };
        let Some(found) = found else {
            match bus.jetstream().create_stream(wanted.clone()).await {
                Ok(_) => return Ok(Done::Created(what)),
                Err(error) => {
                    // Somebody else made it in the meantime: look again.
                    let again = match error.kind() {
                        CreateStreamErrorKind::JetStream(problem) => {
                            problem.error_code() == ErrorCode::STREAM_NAME_EXIST || is_passing(&problem)
                        }
                        CreateStreamErrorKind::TimedOut => true,
                        _ => false,
                    };
                    if again && Instant::now() < deadline {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    let source = Box::new(error);
                    return Err(EnsureError::Create { what, source });
                }
            }
        };
        return update_stream(bus, what, &wanted, &found).await;
    }
}

async fn update_stream(bus: &Bus, what: String, wanted: &Config, found: &Config) -> Result<Done, EnsureError> {
    let wanted = &as_given(wanted, found);
    let differences = compare::streams(wanted, found);
    let Some(fields) = changeable(&what, differences)? else {
        return Ok(Done::Unchanged);
    };
    match bus.jetstream().update_stream(wanted.clone()).await {
        Ok(_) => Ok(Done::Updated(what, fields)),
        Err(source) => Err(EnsureError::Update { what, fields, source: Box::new(source) }),
    }
}

/// What is wanted, with the replicas and the room that the stream has where those are more: an operator gave them, and to
/// take room away from a log could stop it.
fn as_given(wanted: &Config, found: &Config) -> Config {
    let max_bytes = if found.max_bytes < 0 { found.max_bytes } else { wanted.max_bytes.max(found.max_bytes) };
    let max_bytes = if wanted.max_bytes < 0 { wanted.max_bytes } else { max_bytes };
    Config { num_replicas: wanted.num_replicas.max(found.num_replicas), max_bytes, ..wanted.clone() }
}

/// Makes a consumer what it is declared to be; its owner may do so too, when it was deleted.
async fn ensure_consumer(bus: &Bus, durable: &Durable) -> Result<Done, EnsureError> {
    let what = format!("{}/{}", durable.stream, durable.name);
    let wanted = durable.config(0);
    let stream = bus.jetstream().get_stream_no_info(durable.stream).await;
    let stream = stream.map_err(|source| EnsureError::Look { what: what.clone(), source: Box::new(source) })?;
    let deadline = Instant::now() + WITHIN;
    loop {
        let found = match consumer_config(&stream, durable.name).await {
            Ok(found) => found,
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(PAUSE).await;
                continue;
            }
            Err(source) => return Err(EnsureError::Look { what, source }),
        };
        let Some(found) = found else {
            // Idempotent for the same configuration: whoever else makes it makes the same.
            match stream.create_consumer(wanted.clone()).await {
                Ok(_) => return Ok(Done::Created(what)),
                Err(error) => {
                    let passing = match error.kind() {
                        ConsumerErrorKind::JetStream(problem) => is_passing(&problem),
                        ConsumerErrorKind::TimedOut | ConsumerErrorKind::Request => true,
                        _ => false,
                    };
                    if passing && Instant::now() < deadline {
                        tokio::time::sleep(PAUSE).await;
                        continue;
                    }
                    let source = Box::new(error);
                    let look = |what, source| EnsureError::Look { what, source };
                    return Err(if passing { look(what, source) } else { EnsureError::Create { what, source } });
                }
            }
        };
        let differences = compare::consumers(&wanted, &found);
        let Some(fields) = changeable(&what, differences)? else {
            return Ok(Done::Unchanged);
        };
        return match stream.update_consumer(wanted.clone()).await {
            Ok(_) => Ok(Done::Updated(what, fields)),
            Err(source) => Err(EnsureError::Update { what, fields, source: Box::new(source) }),
        };
    }
}

async fn consumer_config(
    stream: &jetstream::stream::Stream<()>,
    name: &str,
) -> Result<Option<jetstream::consumer::Config>, Box<dyn std::error::Error + Send + Sync>> {
    use jetstream::context::ConsumerInfoErrorKind;
    match stream.consumer_info(name).await {
        Ok(info) => Ok(Some(info.config)),
        Err(error) if matches!(error.kind(), ConsumerInfoErrorKind::NotFound) => Ok(None),
        Err(error) => Err(Box::new(error)),
    }
}

/// The differences, when there are any and all can be applied.
fn changeable(what: &str, differences: Vec<Difference>) -> Result<Option<Vec<Difference>>, EnsureError> {
    let (fixed, changeable): (Vec<_>, Vec<_>) = differences.into_iter().partition(|difference| difference.fixed);
    if !fixed.is_empty() {
        return Err(EnsureError::Fixed { what: what.to_owned(), fields: fixed });
    }
    Ok((!changeable.is_empty()).then_some(changeable))
}

/// Whether a server says so only because it has just started.
fn is_passing(problem: &jetstream::Error) -> bool {
    [ErrorCode::CLUSTER_NOT_AVAILABLE, ErrorCode::CLUSTER_NOT_LEADER, ErrorCode::CLUSTER_NO_PEERS]
        .contains(&problem.error_code())
}

/// Makes one consumer that is not there, as its owner may: somebody deleted it under a running service.
pub(crate) async fn restore_consumer(bus: &Bus, durable: &Durable) -> Result<(), EnsureError> {
    ensure_consumer(bus, durable).await.map(|_| ())
}

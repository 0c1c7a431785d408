//! Messages that can not be handled: parked on `swarm.dead.<service>` whole, and there until a person replays or
//! drops them.
//!
//! Parking comes before the ack, and has the same id for the same message: one that is delivered again after a crash between
//! the two is parked once, if that is within the minutes for which the stream knows ids. After a longer outage there are two
//! letters of one message. That does no harm: a replay of the second finds done what the first has done, as with any
//! redelivery. A full stream refuses, and then the message waits where it is.

use std::collections::BTreeMap;

use async_nats::header::HeaderMap;
use async_nats::jetstream::stream::DeleteMessageErrorKind;
use async_nats::jetstream::{self, ErrorCode};
use data_encoding::BASE64;
use jiff::Timestamp;
use schemas::dead::{DeadLetter, MAX_BODY_BYTES};
use schemas::subject::filter;
use schemas::{Envelope, EventId, Subject};
use serde_json::json;

use crate::bus::{Bus, Fault, PublishError};
use crate::class::{Classified, ErrorClass};
use crate::clock;
use crate::consume::{RedeliverError, Redelivered, redeliver_ask};
use crate::fill::{self, NoRoom};
use crate::journal::{AppendError, Journal};
use crate::message::{self, DecodeError, EncodeError, Outgoing};

/// The stream of parked messages.
const STREAM: &str = "DEAD";

/// `ce-type` of a parked message.
const KIND: &str = "dead_letter";

/// What the server says of a message to be deleted that is not there.
const GONE: [ErrorCode; 2] = [ErrorCode::SEQUENCE_NOT_FOUND, ErrorCode::STREAM_MESSAGE_DELETE_FAILED];

/// A parked message and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    /// Its sequence among the parked: what a person names it by.
    pub sequence: u64,
    /// When it was parked.
    pub time: Timestamp,
    /// The message and why it is here.
    pub letter: DeadLetter,
}

/// What a replay did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// It was handled, and is parked no more.
    Handled,
    /// It was published again with this sequence, and is parked no more.
    Published(u64),
    /// Its run is there already, so it started nothing; it is parked no more.
    AlreadyThere,
}

/// Parked messages could not be read, replayed or dropped.
#[derive(Debug, thiserror::Error)]
pub enum DeadError {
    /// There is none with that number.
    #[error("there is no parked message {0}")]
    Unknown(u64),
    /// The stream could not be asked.
    #[error("the parked messages can not be read or changed now")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A message among the parked is not a parked message.
    #[error("the parked message {sequence} is not readable")]
    Unreadable {
        /// Its number.
        sequence: u64,
        /// Why.
        #[source]
        source: Box<DecodeError>,
    },
    /// Its body was too large to be kept, so it can not be published again.
    #[error("the parked message {0} is cut: its body was too large to be kept")]
    Cut(u64),
    /// It can not be read as a message, so it can not be published again.
    #[error("what is parked as {sequence} is no message of this version and can only be dropped")]
    NoMessage {
        /// Its number.
        sequence: u64,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Its service handled it again, with the same end.
    #[error("{service} still can not handle it: {reason} ({code})")]
    StillBroken {
        /// The service.
        service: String,
        /// Why, for programs.
        code: String,
        /// Why, for people.
        reason: String,
    },
    /// Its service can not handle it at this moment.
    #[error("{service} can not handle it now: try again")]
    NotNow {
        /// The service.
        service: String,
    },
    /// Its service has begun to handle it, and is not done.
    #[error("{service} is handling it: replay it once more to see what came of that")]
    UnderWay {
        /// The service.
        service: String,
    },
    /// Its service could not be asked.
    #[error("its service could not be asked to handle it")]
    Ask(#[source] RedeliverError),
    /// It asks for a run, and none can be started now.
    #[error("the run that it asks for can not be started now: replay it later")]
    NoRoom(#[source] NoRoom),
    /// It could not be published again.
    #[error("publishing it again")]
    Publish(#[source] PublishError),
    /// It could not be appended again.
    #[error("appending it again")]
    Append(#[source] AppendError),
}

impl Classified for DeadError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unavailable(_) | Self::NotNow { .. } | Self::UnderWay { .. } => ErrorClass::Transient,
            Self::Ask(error) => error.class(),
            Self::NoRoom(no_room) => no_room.class(),
            Self::Publish(error) => error.class(),
            Self::Append(error) => error.class(),
            _ => ErrorClass::Broken,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "dead_unknown",
            Self::Unavailable(_) => "bus_unavailable",
            Self::Unreadable { .. } => "dead_unreadable",
            Self::Cut(_) => "dead_cut",
            Self::NoMessage { .. } => "dead_no_message",
            Self::StillBroken { .. } => "dead_still_broken",
            Self::NotNow { .. } => "dead_not_now",
            Self::UnderWay { .. } => "dead_under_way",
            Self::Ask(error) => error.code(),
            Self::NoRoom(no_room) => no_room.code(),
            Self::Publish(error) => error.code(),
            Self::Append(error) => error.code(),
        }
    }
}

/// A message could not be parked.
#[derive(Debug, thiserror::Error)]
pub enum ParkError {
    /// It has no wire form.
    #[error("encoding what is to be parked")]
    Encode(#[source] EncodeError),
    /// It was not taken.
    #[error("parking")]
    Publish(#[source] PublishError),
}

impl Classified for ParkError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Encode(_) => ErrorClass::Broken,
            Self::Publish(error) => error.class(),
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Encode(error) => error.code(),
            Self::Publish(error) => error.code(),
        }
    }
}

/// Parks a message that a consumer delivered.
pub(crate) async fn park(
    bus: &Bus,
    consumer: &str,
    message: &jetstream::Message,
    code: &str,
    reason: &str,
) -> Result<(), ParkError> {
    let info = message.info().ok();
    let place = info.as_ref().map(|info| (info.stream.to_owned(), info.stream_sequence));
    let id = match &place {
        Some((stream, sequence)) => format!("{stream}/{sequence}/{consumer}"),
        None => format!("{}/{consumer}", message.subject),
    };
    let body = &message.payload;
    let letter = DeadLetter {
        service: bus.service().to_owned(),
        consumer: Some(consumer.to_owned()),
        code: code.to_owned(),
        reason: reason.to_owned(),
        subject: message.subject.to_string(),
        stream: place.as_ref().map(|(stream, _)| stream.clone()),
        sequence: place.map(|(_, sequence)| sequence),
        headers: message.headers.as_ref().map(headers).unwrap_or_default(),
        body: BASE64.encode(&body[..body.len().min(MAX_BODY_BYTES)]),
        body_bytes: body.len() as u64,
    };
    publish(bus, &EventId::new(id), &letter).await
}

/// Parks a message that was never published, such as a trigger that can not be routed. Its replay publishes it with
/// the id that it has, so it starts what it would have started.
pub async fn park_outgoing(bus: &Bus, outgoing: &Outgoing, code: &str, reason: &str) -> Result<(), ParkError> {
    let own = outgoing.headers().map_err(ParkError::Encode)?;
    let body = &outgoing.body;
    let letter = DeadLetter {
        service: bus.service().to_owned(),
        consumer: None,
        code: code.to_owned(),
        reason: reason.to_owned(),
        subject: outgoing.subject.to_string(),
        stream: None,
        sequence: None,
        headers: headers(&own),
        body: BASE64.encode(&body[..body.len().min(MAX_BODY_BYTES)]),
        body_bytes: body.len() as u64,
    };
    publish(bus, &outgoing.envelope.id, &letter).await
}

async fn publish(bus: &Bus, id: &EventId, letter: &DeadLetter) -> Result<(), ParkError> {
    let envelope = Envelope::new(id.derive(KIND), KIND, bus.service(), clock::now());
    let subject = Subject::Dead(bus.service_token().clone());
    let outgoing = Outgoing::json(subject, envelope, letter).map_err(ParkError::Encode)?;
    bus.publish(&outgoing).await.map_err(ParkError::Publish)?;
    Ok(())
}

fn headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    headers
        .iter()
        .map(|(name, values)| {
            let values = values.iter().map(ToString::to_string).collect();
            (name.to_string(), values)
        })
        .collect()
}

/// The parked messages from a number on, at most `limit`, oldest first.
pub async fn list(bus: &Bus, from: u64, limit: usize) -> Result<Vec<Parked>, DeadError> {
    let mut parked = Vec::new();
    let mut from = from;
    loop {
        let page = bus.page(STREAM, filter::DEAD, from).await;
        let page = page.map_err(unavailable)?;
        for message in &page.messages {
            if parked.len() == limit {
                return Ok(parked);
            }
            let stored = message::direct(message);
            let sequence = match &stored {
                Ok(stored) => stored.sequence,
                Err(error) => error.sequence.unwrap_or(page.last_sequence),
            };
            parked.push(read(sequence, stored)?);
        }
        if !page.more {
            return Ok(parked);
        }
        from = page.last_sequence + 1;
    }
}

/// One parked message.
pub async fn show(bus: &Bus, sequence: u64) -> Result<Parked, DeadError> {
    let found = bus.leader_get(STREAM, &json!({ "seq": sequence })).await;
    let found = found.map_err(unavailable)?.ok_or(DeadError::Unknown(sequence))?;
    read(sequence, message::raw(&found))
}

fn read(sequence: u64, stored: Result<message::Stored, DecodeError>) -> Result<Parked, DeadError> {
    let unreadable = |source| DeadError::Unreadable { sequence, source: Box::new(source) };
    let stored = stored.map_err(unreadable)?;
    Ok(Parked { sequence: stored.sequence, time: stored.time, letter: stored.decode().map_err(unreadable)? })
}

/// Forgets a parked message.
pub async fn drop(bus: &Bus, sequence: u64) -> Result<(), DeadError> {
    let stream = bus.jetstream().get_stream_no_info(STREAM).await;
    let stream = stream.map_err(|error| DeadError::Unavailable(Box::new(error)))?;
    match stream.delete_message(sequence).await {
        Ok(_) => Ok(()),
        Err(error) => match error.kind() {
            DeleteMessageErrorKind::JetStream(problem) if GONE.contains(&problem.error_code()) => {
                Err(DeadError::Unknown(sequence))
            }
            _ => Err(DeadError::Unavailable(Box::new(error))),
        },
    }
}

/// Handles a parked message once more, and forgets it when that went well.
///
/// One that lies in its stream goes to the consumer that parked it; one that was never published is published, a
/// `requested` as the first message of its run. That is a new run like any other: while the log is too full for new runs it
/// stays parked.
pub async fn replay(bus: &Bus, sequence: u64) -> Result<Replayed, DeadError> {
    let Parked { letter, .. } = show(bus, sequence).await?;
    let replayed = match (&letter.consumer, letter.sequence) {
        (Some(consumer), Some(at)) => redeliver(bus, &letter.service, consumer, at).await?,
        _ => publish_again(bus, sequence, &letter).await?,
    };
    match drop(bus, sequence).await {
        Ok(()) | Err(DeadError::Unknown(_)) => Ok(replayed),
        Err(error) => Err(error),
    }
}

async fn redeliver(bus: &Bus, service: &str, consumer: &str, sequence: u64) -> Result<Replayed, DeadError> {
    match redeliver_ask(bus, service, consumer, sequence).await.map_err(DeadError::Ask)? {
        Redelivered::Done => Ok(Replayed::Handled),
        Redelivered::UnderWay => Err(DeadError::UnderWay { service: service.to_owned() }),
        Redelivered::Later => Err(DeadError::NotNow { service: service.to_owned() }),
        Redelivered::Broken { code, reason } => {
            Err(DeadError::StillBroken { service: service.to_owned(), code, reason })
        }
    }
}

async fn publish_again(bus: &Bus, sequence: u64, letter: &DeadLetter) -> Result<Replayed, DeadError> {
    let outgoing = outgoing(sequence, letter)?;
    let Subject::Requested(run, ..) = outgoing.subject else {
        let sequence = bus.publish(&outgoing).await.map_err(DeadError::Publish)?;
        return Ok(Replayed::Published(sequence));
    };
    let journal = Journal::new(bus);
    // A run that is there needs no room.
    if !matches!(journal.exists(run).await, Ok(true)) {
        fill::check_now(bus).await.map_err(DeadError::NoRoom)?;
    }
    let appended = journal.append_or_find(run, 0, &outgoing).await;
    match appended {
        Ok(appended) if appended.found => Ok(Replayed::AlreadyThere),
        Ok(appended) => Ok(Replayed::Published(appended.sequence)),
        Err(AppendError::Conflict { .. }) => Ok(Replayed::AlreadyThere),
        Err(error) => Err(DeadError::Append(error)),
    }
}

/// The message that a letter holds.
fn outgoing(sequence: u64, letter: &DeadLetter) -> Result<Outgoing, DeadError> {
    let no_message = |source| DeadError::NoMessage { sequence, source };
    let body = BASE64.decode(letter.body.as_bytes()).map_err(|error| no_message(Box::new(error)))?;
    if letter.body_bytes > body.len() as u64 {
        return Err(DeadError::Cut(sequence));
    }
    let subject = letter.subject.parse().map_err(|error| no_message(Box::new(error)))?;
    let get = |name: &'static str| Some(letter.headers.get(name)?.first()?.as_str());
    let envelope = Envelope::parse(get).map_err(|error| no_message(Box::new(error)))?;
    Ok(Outgoing {
        subject,
        envelope,
        kinds: get(schemas::envelope::KINDS_HEADER).map(ToOwned::to_owned),
        body: body.into(),
    })
}

fn unavailable(fault: Fault) -> DeadError {
    DeadError::Unavailable(Box::new(fault))
}

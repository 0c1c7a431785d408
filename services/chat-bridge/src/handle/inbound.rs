//! What people write, into the log.
//!
//! Consumes: a channel's batches, by the port. Emits: `requested`, the signals `message` and `cancel`, parked requests,
//! words to rooms. Idempotency: run ids derive from messages and a run's first message is written once, so a batch that
//! comes again changes nothing. Ordering: a batch is committed to its channel only when everything that it leads to is
//! in the log; batches follow one another. On failure: while the log can not be written, the same batch is tried until
//! it can, health is red, and nothing further is read. A thread that can not be read is done without, and that is said; a
//! channel that is ill has some time to get well before that. A refused request is answered in its room; where that is not
//! possible it is parked, so that an operator finds what a person waits for. A signal that a run can not be given is parked
//! and told.

use std::{sync::Arc, time::Duration};

use kit::{
    class::{Classified as _, ErrorClass, chain},
    consume::backoff,
    dead,
    journal::ReadError,
    requester::{self, Requester},
    service::Context,
    telemetry::run_span,
};
use schemas::{
    EventId, RunId, Signal, Text,
    signal::{ByWhom, Message},
};
use tokio::time::Instant;

use super::{
    Project,
    requests::{self, Outcome, Request, RequestError},
    signals::{self, Given, SignalError},
    words::{Untold, Words},
};
use crate::{
    domain::{
        inbound::{self, Decision, IncomingMessage, Tell, Wake},
        rules::Rules,
    },
    health::Health,
    ports::{Batch, Deliver, Receive, ReceiveError, Started, ThreadLine},
};

/// Between two tries of a channel that refuses us: a person has to act, and is noticed within this time.
const REFUSED_PAUSE: Duration = Duration::from_secs(15);

/// Bytes of a thread that an agent is shown.
const MAX_CONTEXT_BYTES: usize = 32 * 1024;

/// For how long a thread that its channel is too ill to show holds up everything. Without it the wrong agent may be woken, and
/// a homeserver that is restarted is back within it.
const THREAD_WITHIN: Duration = Duration::from_mins(2);

/// What an agent is shown in place of a thread that can not be read.
const UNREAD: &str = "This message stands in a thread. What was said in it before could not be read.";

/// The code of a request that was refused and whose room could not be told so.
const UNTOLD: &str = "refused_untold";

/// Health key.
const LOG: &str = "requests";

/// Health key.
const POSITION: &str = "position";

/// Takes the messages of one channel to the log.
pub(crate) struct Inbound<R, D> {
    pub(crate) project: Project,
    pub(crate) requester: Requester,
    pub(crate) rules: Arc<Rules>,
    pub(crate) receiver: R,
    pub(crate) sender: D,
    pub(crate) health: Health,
    pub(crate) context: Context,
}

/// Something that a batch leads to is not in the log; the same batch shall be handled again.
#[derive(Debug, thiserror::Error)]
enum HandleError {
    #[error("a request can not be made")]
    Request(#[source] RequestError),
    #[error("a request can not be put into the log")]
    Append(#[source] requester::RequestError),
    #[error("the run of an edited message can not be looked at")]
    Read(#[source] ReadError),
    #[error("a run can not be told")]
    Signal(#[source] SignalError),
    #[error("a request that can not be routed or answered can not be parked")]
    Park(#[source] dead::ParkError),
    #[error("a thread can not be read")]
    Thread(#[source] ReceiveError),
    #[error("not everything is said before the service ends")]
    Words(#[source] Untold),
}

impl<R: Receive, D: Deliver> Inbound<R, D> {
    /// Reads until shutdown. An error ends the service: the channel can not go on in this process.
    pub(crate) async fn run(mut self) -> Result<(), ReceiveError> {
        let shutdown = self.context.shutdown.clone();
        let mut failures: u64 = 0;
        let mut said = String::new();
        loop {
            let next = tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                next = self.receiver.next() => next,
            };
            let pause = match next {
                Ok(batch) => {
                    failures = 0;
                    said.clear();
                    if !self.take(&batch).await? {
                        return Ok(());
                    }
                    continue;
                }
                Err(error @ ReceiveError::Broken { .. }) => return Err(error),
                Err(error) => {
                    failures += 1;
                    // The check is red all the time; the log says what is new.
                    let error_text = chain(&error);
                    if said == error_text {
                        tracing::debug!(error = error_text, failures, "a channel can still not be read");
                    } else {
                        tracing::warn!(error = error_text, failures, "a channel can not be read");
                        said = error_text;
                    }
                    if matches!(error, ReceiveError::Refused { .. }) { REFUSED_PAUSE } else { backoff(failures) }
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Handles a batch until all of it is in the log, then commits it. False when shutdown came first.
    async fn take(&mut self, batch: &Batch) -> Result<bool, ReceiveError> {
        let mut attempt = 0;
        let mut ill_since: Option<Instant> = None;
        let started = loop {
            let patient = ill_since.is_none_or(|since| since.elapsed() < THREAD_WITHIN);
            match self.handle(batch, patient).await {
                Ok(started) => break started,
                Err(HandleError::Words(Untold::ShuttingDown)) => return Ok(false),
                Err(error) => {
                    attempt += 1;
                    self.health.report(LOG, chain(&error));
                    match error {
                        HandleError::Thread(ReceiveError::Ill { .. }) => {
                            ill_since.get_or_insert_with(Instant::now);
                        }
                        HandleError::Thread(_) => ill_since = None,
                        _ => {}
                    }
                    tokio::select! {
                        () = self.context.shutdown.cancelled() => return Ok(false),
                        () = tokio::time::sleep(backoff(attempt)) => {}
                    }
                }
            }
        };
        self.health.clear(LOG);
        if let Err(error) = self.receiver.commit(&started).await {
            // The batch comes again, and changes nothing.
            self.health.report(POSITION, format!("a position can not be kept: {}", chain(&error)));
            tokio::select! {
                () = self.context.shutdown.cancelled() => return Ok(false),
                () = tokio::time::sleep(backoff(1)) => return Ok(true),
            }
        }
        self.health.clear(POSITION);
        Ok(true)
    }

    /// Brings all that a batch leads to into the log. While it is `patient`, an ill channel is waited for.
    async fn handle(&self, batch: &Batch, patient: bool) -> Result<Vec<Started>, HandleError> {
        let mut words = Words::of_batch(&self.sender, self.receiver.name(), &self.context.shutdown);
        let mut wakes: Vec<Request> = Vec::new();
        let mut edits: Vec<Request> = Vec::new();
        let mut after: Vec<(&IncomingMessage, Decision)> = Vec::new();
        for message in &batch.messages {
            for decision in inbound::decide(&self.rules, message) {
                match decision {
                    Decision::Wake(wake) => {
                        for request in self.requests(message, wake, patient, &mut words).await? {
                            // The original of an edit may be in the same batch, and goes first.
                            let taken = wakes.iter().any(|other| other.run_id == request.run_id);
                            if request.wake.edit || taken {
                                edits.push(request);
                            } else {
                                wakes.push(request);
                            }
                        }
                    }
                    Decision::Ignore(why) => {
                        tracing::debug!(event = message.event_id, sender = message.sender, ?why, "ignored");
                    }
                    other => after.push((message, other)),
                }
            }
        }
        let mut started = self.start(wakes, &mut words).await?;
        for edit in edits {
            started.extend(self.correct(edit, &mut words).await?);
        }
        for (message, decision) in after {
            self.follow(message, decision, &mut words).await?;
        }
        for notice in &batch.notices {
            words.mention(notice).await.map_err(HandleError::Words)?;
        }
        Ok(started)
    }

    /// The requests of a wake: one, or those of a thread's own agents when the message named nobody.
    async fn requests(
        &self,
        message: &IncomingMessage,
        wake: Wake,
        patient: bool,
        words: &mut Words<'_, D>,
    ) -> Result<Vec<Request>, HandleError> {
        let lines = self.thread(message, patient, words).await?;
        let unread = lines.is_none();
        let lines = lines.unwrap_or_default();
        let mut agents = vec![wake.agent.clone()];
        if wake.by_default
            && let Some(root) = lines.first()
        {
            let named = inbound::thread_agents(&self.rules, message.room_name.as_deref(), &root.text);
            if !named.is_empty() {
                agents = named.into_iter().collect();
            }
        }
        let context = if unread { Some(UNREAD.to_owned()) } else { thread_context(&lines, &message.event_id) };
        let mut requests = Vec::new();
        for agent in agents {
            let wake = Wake { agent, ..wake.clone() };
            let request = requests::build(&self.project, message, wake, context.clone(), kit::clock::now()).await;
            requests.push(request.map_err(HandleError::Request)?);
        }
        Ok(requests)
    }

    /// What was said in the thread of a message; nothing when it is not to be had. Then the message is taken without it,
    /// because nothing that comes after it may wait for that.
    async fn thread(
        &self,
        message: &IncomingMessage,
        patient: bool,
        words: &mut Words<'_, D>,
    ) -> Result<Option<Vec<ThreadLine>>, HandleError> {
        let Some(root) = &message.thread_root else {
            return Ok(Some(Vec::new()));
        };
        match self.receiver.thread(&message.room, root).await {
            Ok(lines) => Ok(Some(lines)),
            Err(error @ ReceiveError::Unavailable { .. }) => Err(HandleError::Thread(error)),
            Err(error @ ReceiveError::Ill { .. }) if patient => Err(HandleError::Thread(error)),
            Err(error) => {
                tracing::warn!(event = message.event_id, root, error = chain(&error), "a thread can not be read");
                let tell = Tell {
                    room: message.room.clone(),
                    thread: Some(root.clone()),
                    key: format!("thread/{}", message.event_id),
                    text: "I can not read what was said in this thread before, so I go by your last message alone."
                        .to_owned(),
                };
                words.mention(&tell).await.map_err(HandleError::Words)?;
                Ok(None)
            }
        }
    }

    /// Starts runs and says where that is refused.
    async fn start(&self, requests: Vec<Request>, words: &mut Words<'_, D>) -> Result<Vec<Started>, HandleError> {
        let outcomes = requests::start(&self.requester, &requests).await.map_err(HandleError::Append)?;
        let mut started = Vec::new();
        for (request, outcome) in requests.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Started | Outcome::AlreadyThere => started.push(belongs(&request)),
                Outcome::Refused(error) => self.refuse(&request, &error, words).await?,
            }
        }
        Ok(started)
    }

    /// An edit starts a run when the original did not, and is otherwise news for its run.
    async fn correct(&self, request: Request, words: &mut Words<'_, D>) -> Result<Option<Started>, HandleError> {
        let outcomes = requests::start(&self.requester, std::slice::from_ref(&request)).await;
        for outcome in outcomes.map_err(HandleError::Append)? {
            match outcome {
                Outcome::Started => {}
                Outcome::AlreadyThere => self.tell_run(&request, words).await?,
                Outcome::Refused(error) => {
                    self.refuse(&request, &error, words).await?;
                    return Ok(None);
                }
            }
        }
        Ok(Some(belongs(&request)))
    }

    /// Tells a run that the message that started it was edited, unless this edit is what started it. Where that comes too late,
    /// it is said.
    async fn tell_run(&self, request: &Request, words: &mut Words<'_, D>) -> Result<(), HandleError> {
        let first = match self.project.journal.first(request.run_id).await {
            // What is wrong with the run shows again when it is told.
            Err(error) if error.class() == ErrorClass::Broken => None,
            first => first.map_err(HandleError::Read)?,
        };
        if first.as_ref().is_some_and(|first| first.envelope.id == request.outgoing.envelope.id) {
            return Ok(());
        }
        let text = format!("I have edited my message. It reads now:\n\n{}", request.wake.prompt);
        let text = self.project.blobs.text(text).await;
        let text: Text = text.map_err(|error| HandleError::Request(RequestError::Blob(error)))?;
        let signal = Signal::Message(Message { from: request.message.sender.clone(), text });
        let message = &request.message;
        let given = self.signal(message, request.run_id, &signal, words).await?;
        let id = signal_id(message, request.run_id, &signal);
        let Given::Late(end) = given else {
            return Ok(());
        };
        let first = first.map_or(1, |first| first.sequence);
        if self.has_taken(request.run_id, first, end, &id).await? {
            return Ok(());
        }
        let thread = request.wake.reply_to.thread.clone();
        let tell = signals::too_late(&id, &request.wake.agent, &message.room, thread);
        words.mention(&tell).await.map_err(HandleError::Words)
    }

    async fn has_taken(&self, run: RunId, first: u64, end: u64, signal: &EventId) -> Result<bool, HandleError> {
        match signals::taken(&self.project, run, first, end).await {
            Err(error) if error.class() == ErrorClass::Broken => Ok(false),
            taken => Ok(taken.map_err(HandleError::Signal)?.contains(signal)),
        }
    }

    /// Says that a request was refused. One that is broken is parked, and so is one whose room can not be told: whoever
    /// asked would wait for nothing.
    async fn refuse(
        &self,
        request: &Request,
        error: &requester::RequestError,
        words: &mut Words<'_, D>,
    ) -> Result<(), HandleError> {
        let broken = error.class() == ErrorClass::Broken;
        let text = if broken {
            self.park(request, error.code(), &chain(error)).await?;
            format!("I can not start this: {}. An operator finds it with `nightcrew dead list`.", chain(error))
        } else {
            format!("I can not start anything new: {}. Please try again later.", chain(error))
        };
        let key = format!("refused/{}/{}", request.message.event_id, request.wake.agent);
        let thread = request.wake.reply_to.thread.clone();
        let tell = Tell { room: request.message.room.clone(), thread, key, text };
        if broken {
            return words.mention(&tell).await.map_err(HandleError::Words);
        }
        match words.tell(&tell).await {
            Err(untold @ Untold::Room(_)) => {
                let reason = format!("{}; {}", chain(error), chain(&untold));
                tracing::error!(reason, run = %request.run_id, "a refused request is parked");
                self.park(request, UNTOLD, &reason).await
            }
            told => told.map_err(HandleError::Words),
        }
    }

    async fn follow(
        &self,
        message: &IncomingMessage,
        decision: Decision,
        words: &mut Words<'_, D>,
    ) -> Result<(), HandleError> {
        match decision {
            Decision::Tell(tell) => words.mention(&tell).await.map_err(HandleError::Words)?,
            Decision::CallOff { of, agents } => {
                let by = ByWhom { by: message.sender.clone(), reason: "The message was taken back.".to_owned() };
                let trigger = requests::trigger(message, &of);
                for agent in agents {
                    let run = requests::run_id(&self.project, &trigger, &agent);
                    self.signal(message, run, &Signal::Cancel(by.clone()), words).await?;
                }
            }
            Decision::Unroutable { wake, code, reason } => {
                let request = requests::build(&self.project, message, wake, None, kit::clock::now()).await;
                self.park(&request.map_err(HandleError::Request)?, code, &reason).await?;
            }
            Decision::Wake(_) | Decision::Ignore(_) => {}
        }
        Ok(())
    }

    async fn park(&self, request: &Request, code: &str, reason: &str) -> Result<(), HandleError> {
        let parked = dead::park_outgoing(&self.project.bus, &request.outgoing, code, reason).await;
        parked.map_err(HandleError::Park)
    }

    /// Gives a signal to a run that has not ended. What the run can not be told is parked, and whoever wrote it hears so.
    async fn signal(
        &self,
        message: &IncomingMessage,
        run: RunId,
        signal: &Signal,
        words: &mut Words<'_, D>,
    ) -> Result<Given, HandleError> {
        let outgoing = signals::outgoing(run, signal_id(message, run, signal), signal).map_err(HandleError::Signal)?;
        match signals::give_if_open(&self.project, run, &outgoing).await {
            // Nothing that a person writes can mend it, so it must not hold up what comes after it.
            Err(error) if error.class() == ErrorClass::Broken => {
                let reason = chain(&error);
                tracing::error!(reason, %run, "a run can not be told, and what it should hear is parked");
                let parked = dead::park_outgoing(&self.project.bus, &outgoing, error.code(), &reason).await;
                parked.map_err(HandleError::Park)?;
                let key = format!("unsignalled/{}/{run}", message.event_id);
                let name = run.short();
                let text = format!(
                    "I can not tell run {name} of this: {reason}. An operator finds it with `nightcrew dead list`."
                );
                let thread = Some(inbound::thread_of(message).to_owned());
                let tell = Tell { room: message.room.clone(), thread, key, text };
                words.mention(&tell).await.map_err(HandleError::Words)?;
                Ok(Given::InTime)
            }
            result => result.map_err(HandleError::Signal),
        }
    }
}

/// The id of a signal that a message leads to.
fn signal_id(message: &IncomingMessage, run: RunId, signal: &Signal) -> EventId {
    EventId::new(&message.event_id).derive(&format!("{}/{run}", signal.kind()))
}

/// The run that a message belongs to, told to whoever reads the log lines of it.
fn belongs(request: &Request) -> Started {
    let Request { wake, message, run_id, .. } = request;
    run_span(*run_id, &wake.agent).in_scope(|| {
        tracing::info!(
            room = message.room,
            event = message.event_id,
            sender = message.sender,
            "a message is in the log"
        );
    });
    Started { event_id: request.message.event_id.clone(), agent: request.wake.agent.clone(), run_id: request.run_id }
}

/// What was said in a thread before a message, for the agent that the message wakes.
fn thread_context(lines: &[ThreadLine], event_id: &str) -> Option<String> {
    let before: Vec<&ThreadLine> = lines.iter().filter(|line| line.event_id != event_id).collect();
    if before.is_empty() {
        return None;
    }
    let mut text = String::from("What was said in this thread before:\n");
    for line in before {
        text.push_str("\n\n");
        text.push_str(&line.sender);
        text.push_str(":\n");
        text.push_str(&line.text);
    }
    let cut = text.len().saturating_sub(MAX_CONTEXT_BYTES);
    Some(if cut == 0 { text } else { format!("[…]{}", &text[text.ceil_char_boundary(cut)..]) })
}

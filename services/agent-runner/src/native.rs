//! The native harness: Nightcrew's own loop over a model's HTTP API and the built-in tools.
//!
//! It asks [`next`](crate::run::next()) what has to be done, decides, puts the decision into the log, does it, and asks
//! again. What can wake it while it waits is one closed enum, [`Nudge`]. It keeps nothing that is not in the journal
//! but the futures of calls in flight, and those die with it.

mod billing;
mod model_step;
mod tool_step;

pub(crate) use tool_step::HANDOFF;

use std::{sync::Arc, time::Duration};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use jiff::Timestamp;
use kit::{bus::Connection, clock};
use schemas::{
    Signal,
    event::{ContextLoaded, FailReason, WaitReason},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    context,
    controls::{Controls, Standing},
    harness::{Harness, Release},
    hold::{Held, HoldError},
    holds::{Hold, Mail},
    probe::Place,
    run::{Action, Command, End, Phase, decide::Returned, next},
    runtime::Runtime,
    toolbox::RunTools,
};

/// Why a run in hand ends that the log has no room for.
const LOG_SPENT: &str = "the log is nearly full, and what is left of it is for the ends of runs";

/// The native harness.
#[derive(Debug, Clone)]
pub struct Native {
    runtime: Arc<Runtime>,
}

impl Native {
    /// A harness over what the runner has.
    pub const fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }
}

impl Harness for Native {
    fn name(&self) -> &'static str {
        "native"
    }

    fn drive<'a>(&'a self, held: &'a mut Held, hold: &'a mut Hold) -> BoxFuture<'a, Result<Release, HoldError>> {
        Box::pin(Drive::new(&self.runtime, held, hold).run())
    }
}

/// What can wake a driver that waits.
enum Nudge {
    /// A signal for the run.
    Mail(Mail),
    /// A tool returned.
    Tool(Returned),
    /// Somebody told the crew something.
    Control,
    /// The bus was lost or is back, and the run is held still.
    Bus,
    /// The time that was waited for.
    Time,
}

/// One drive of one run.
struct Drive<'a> {
    runtime: &'a Runtime,
    held: &'a mut Held,
    hold: &'a mut Hold,
    tools: RunTools,
    running: FuturesUnordered<BoxFuture<'static, Returned>>,
    taken: Vec<tokio::sync::oneshot::Sender<()>>,
    bearer: Option<String>,
    controls: watch::Receiver<Controls>,
    connection: watch::Receiver<Connection>,
    cancel: CancellationToken,
}

impl Drop for Drive<'_> {
    /// Whatever ends the drive ends its tools.
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl<'a> Drive<'a> {
    fn new(runtime: &'a Runtime, held: &'a mut Held, hold: &'a mut Hold) -> Self {
        let cancel = runtime.shutdown.child_token();
        let tools = runtime.toolbox.for_run(held.state(), cancel.clone());
        let controls = runtime.controls.clone();
        let connection = runtime.bus.connection();
        let (running, taken) = (FuturesUnordered::new(), Vec::new());
        Self { runtime, held, hold, tools, running, taken, bearer: None, controls, connection, cancel }
    }

    async fn run(mut self) -> Result<Release, HoldError> {
        loop {
            while let Some(mail) = self.hold.try_next() {
                self.take(mail)?;
            }
            if let Some(release) = self.obey().await? {
                return Ok(release);
            }
            match next(self.held.state(), &self.runtime.limits, clock::now()) {
                Action::Nothing(_) => {
                    self.flush().await?;
                    return Ok(Release::Ended);
                }
                Action::Take => return Err(HoldError::Lost),
                Action::LoadContext => self.load_context()?,
                Action::CallModel { .. } if self.runtime.fill.is_spent() => {
                    self.end(End::Fail(FailReason::JournalFull, LOG_SPENT.to_owned()))?;
                }
                Action::CallModel { step, attempt, wait_ms } => self.call_model(step, attempt, wait_ms).await?,
                Action::CallTools(asked) => self.call_tools(asked).await?,
                Action::Recover(lost) => self.recover(lost).await?,
                Action::AwaitTools => {
                    if self.flush().await? {
                        let nudge = self.nudge(None).await?;
                        self.on(nudge)?;
                    }
                }
                Action::Wait(reason) => return self.wait(reason).await,
                Action::Finish => {
                    let answer = self.runtime.text(self.held.state().answer()).await;
                    self.end(End::Finish(answer))?;
                }
                Action::Fail(reason, message) => self.end(End::Fail(reason, message))?,
            }
        }
    }

    /// Puts what was decided into the log, then tells those whose signals are in it. False when the run has ended, also
    /// because the log could not take what was decided: then nothing more may be done.
    async fn flush(&mut self) -> Result<bool, HoldError> {
        if !self.held.is_flushed() {
            self.held.flush().await?;
            self.hold.appended(self.held.state().last_sequence());
        }
        self.tell_taken();
        let goes_on = !self.held.has_ended();
        if !goes_on {
            self.end_tools();
        }
        Ok(goes_on)
    }

    fn end_tools(&mut self) {
        self.running.clear();
        self.cancel.cancel();
    }

    fn tell_taken(&mut self) {
        for taken in self.taken.drain(..) {
            let _ = taken.send(());
        }
    }

    /// Waits for whatever comes first; what was decided must be in the log by now.
    async fn nudge(&mut self, until: Option<Timestamp>) -> Result<Nudge, HoldError> {
        debug_assert!(self.held.is_flushed(), "a wait with decisions that are not in the log");
        let deadline = self.held.state().request().deadline;
        let wake_at = until.map_or(deadline, |until| until.min(deadline));
        let pause = Duration::try_from(wake_at.duration_since(clock::now())).unwrap_or(Duration::ZERO);
        let lost = self.hold.lost();
        tokio::select! {
            // The end of this process first: it ends the tools, and what they return then tells nobody anything.
            biased;
            () = self.runtime.shutdown.cancelled() => Err(HoldError::ShuttingDown),
            Some(mail) = self.hold.next() => Ok(Nudge::Mail(mail)),
            Some(returned) = self.running.next() => Ok(Nudge::Tool(returned)),
            Ok(()) = self.controls.changed() => Ok(Nudge::Control),
            () = lost => Err(HoldError::Lost),
            // Who was cut off may have lost the run, and only a tool could still act for it.
            Ok(()) = self.connection.changed(), if !self.running.is_empty() => self.hold_on().await,
            () = tokio::time::sleep(pause) => Ok(Nudge::Time),
        }
    }

    /// Waits for the bus, and sees whether the run is held still.
    async fn hold_on(&mut self) -> Result<Nudge, HoldError> {
        tokio::select! {
            () = self.runtime.shutdown.cancelled() => Err(HoldError::ShuttingDown),
            held = self.tools.is_held(self.held.epoch()) => if held { Ok(Nudge::Bus) } else { Err(HoldError::Lost) },
        }
    }

    fn on(&mut self, nudge: Nudge) -> Result<(), HoldError> {
        match nudge {
            Nudge::Mail(mail) => self.take(mail),
            Nudge::Tool(returned) => self.held.decide(Command::ReturnTool(Box::new(returned))),
            Nudge::Control | Nudge::Bus | Nudge::Time => Ok(()),
        }
    }

    /// Takes a signal into the run. Its sender is told at the next flush.
    fn take(&mut self, mail: Mail) -> Result<(), HoldError> {
        let Mail { id, signal, taken } = mail;
        if self.held.state().has_taken(&id) || self.held.has_ended() {
            self.taken.push(taken);
            return Ok(());
        }
        match signal {
            Signal::ChildEnded(ended) if self.held.state().awaits(&ended) => {
                self.held.decide(Command::EndChild(id, ended))?;
            }
            Signal::Message(message) => self.held.decide(Command::Hear(id, message))?,
            Signal::Cancel(by) => {
                self.held.decide(Command::Note(id, "cancel".to_owned()))?;
                self.end(End::Cancel(by))?;
            }
            // A child that nobody waits for any more, or never did: whoever may send signals can not break the run.
            other => self.held.decide(Command::Note(id, other.kind().to_owned()))?,
        }
        self.taken.push(taken);
        Ok(())
    }

    /// Does what people told the crew, before the next step.
    async fn obey(&mut self) -> Result<Option<Release>, HoldError> {
        if self.held.has_ended() {
            return Ok(None);
        }
        let standing = self.controls.borrow_and_update().of(self.held.agent()).clone();
        match standing {
            Standing::Killed(by) => self.end(End::Kill(by))?,
            Standing::Stopped(by) if self.running.is_empty() => self.end(End::Kill(by))?,
            Standing::Paused(_) if self.running.is_empty() && !self.is_late() && !self.waits_for_children() => {
                self.held.decide(Command::Wait(WaitReason::Pause, Some(self.held.state().request().deadline)))?;
                let goes_on = self.flush().await?;
                return Ok(Some(if goes_on { Release::Paused } else { Release::Ended }));
            }
            Standing::Free | Standing::Stopped(_) | Standing::Paused(_) => {}
        }
        Ok(None)
    }

    /// Whether the run must end for its time is up, paused or not.
    fn is_late(&self) -> bool {
        clock::now() >= self.held.state().request().deadline
    }

    fn waits_for_children(&self) -> bool {
        matches!(next(self.held.state(), &self.runtime.limits, clock::now()), Action::Wait(_))
    }

    fn end(&mut self, end: End) -> Result<(), HoldError> {
        self.end_tools();
        self.held.decide(Command::End(end, clock::now()))
    }

    fn load_context(&mut self) -> Result<(), HoldError> {
        let request = self.held.state().request();
        let Some(agent) = self.runtime.crew.agent(&request.agent) else {
            let message = format!("there is no agent {} in this crew", request.agent);
            return self.end(End::Fail(FailReason::Unknown, message));
        };
        let model = &agent.capabilities.models[0];
        let Some(route) = self.runtime.crew.models.routes.get(model) else {
            let message = format!("there is no model route {model}");
            return self.end(End::Fail(FailReason::Unknown, message));
        };
        let context = ContextLoaded {
            model: model.clone(),
            context_window: route.context_window,
            system: context::system_prompt(&self.runtime.crew, agent, request).into(),
            tools: self.runtime.toolbox.offers(agent).into_iter().map(|offer| offer.name).collect(),
        };
        self.held.decide(Command::LoadContext(context))
    }

    /// Releases the run until a signal comes, or its deadline.
    async fn wait(&mut self, reason: WaitReason) -> Result<Release, HoldError> {
        let deadline = self.held.state().request().deadline;
        self.runtime.wake_at(self.held.run_id(), deadline).await?;
        self.runtime.probe.at(self.held.run_id(), self.held.agent(), Place::AfterSchedule, "wait");
        self.held.decide(Command::Wait(reason, Some(deadline)))?;
        if !self.flush().await? {
            return Ok(Release::Ended);
        }
        debug_assert_eq!(self.held.state().phase(), Phase::Waiting(reason));
        Ok(Release::Waiting)
    }
}

//! Tool calls of one step: gated, journaled, made all at once, journaled as they return.

use futures::FutureExt as _;
use kit::fill::{Fill, NoRoom};
use schemas::{
    AgentName, EventId, RunId, Trigger,
    event::{HandedOff, Requested, ToolCalled, ToolOutcome, ToolReturned},
};

use super::{Drive, model_step::idempotency_key};
use crate::{
    hold::HoldError,
    run::{Command, End, decide::Returned, limits, next::Asked},
    toolbox::Permit,
    tools::Handoff,
};

/// The tool that gives a task to another agent; the harness itself handles it.
pub(crate) const HANDOFF: &str = "handoff";

/// What a lost call tells the model.
const UNCERTAIN: &str = "The runner was lost while this call ran, and the call can not be repeated safely. \
    It is uncertain whether it took effect: look at the result before you do it again.";

/// What a call tells the model of which its own answer has the beginning only.
const CUT: &str = "This call was not made: your answer reached the limit of its output (max_output_tokens) before the \
    arguments were complete. Do it in smaller parts: of a long file write the beginning, and add the rest by edits.";

/// Pause before it is asked again how full the log is, when nobody knows: the bus is away, or has just come back.
const ROOM_UNKNOWN_MS: u64 = 500;

impl Drive<'_> {
    pub(super) async fn call_tools(&mut self, asked: Vec<Asked>) -> Result<(), HoldError> {
        let full = match room_for(&self.runtime.fill, &asked).await {
            Ok(()) => None,
            Err(full @ NoRoom::Full { .. }) => Some(full),
            // Nothing was decided yet: the calls are looked at again.
            Err(NoRoom::Unknown) => return self.pause(ROOM_UNKNOWN_MS).await.map(drop),
        };
        let mut to_start = Vec::new();
        for (index, asked) in asked.into_iter().enumerate() {
            if self.held.state().was_cut(&asked.call_id) {
                let call_id = asked.call_id.clone();
                self.held.decide(Command::CallTool { asked, idempotent: false })?;
                self.refuse(&call_id, ToolOutcome::Error, CUT)?;
            } else if asked.tool == HANDOFF {
                self.hand_off(index, asked, full.as_ref()).await?;
            } else {
                to_start.extend(self.permit(asked)?);
            }
            if self.held.has_ended() {
                return Ok(());
            }
        }
        if self.flush().await? {
            for call in to_start {
                self.start(call);
            }
        }
        Ok(())
    }

    /// Calls that a lost holder left open.
    pub(super) async fn recover(&mut self, lost: Vec<ToolCalled>) -> Result<(), HoldError> {
        let mut to_start = Vec::new();
        for call in lost {
            if call.idempotent {
                let asked =
                    Asked { call_id: call.call_id.clone(), tool: call.tool.clone(), arguments: call.arguments.clone() };
                self.held.decide(Command::CallTool { asked, idempotent: true })?;
                to_start.push(call);
            } else {
                self.refuse(&call.call_id, ToolOutcome::Uncertain, UNCERTAIN)?;
            }
        }
        if self.flush().await? {
            for call in to_start {
                self.start(call);
            }
        }
        Ok(())
    }

    /// Decides the call when the agent may make it; otherwise the model is told why not.
    fn permit(&mut self, asked: Asked) -> Result<Option<ToolCalled>, HoldError> {
        let permit = self.runtime.toolbox.permit(self.held.agent(), &asked);
        let idempotent = matches!(permit, Permit::Granted { idempotent: true });
        let call_id = asked.call_id.clone();
        let call = ToolCalled {
            call_id: call_id.clone(),
            step: self.held.state().step(),
            tool: asked.tool.clone(),
            arguments: asked.arguments.clone(),
            idempotent,
        };
        self.held.decide(Command::CallTool { asked, idempotent })?;
        if let Permit::Refused(why) = permit {
            self.refuse(&call_id, ToolOutcome::Refused, &why)?;
            return Ok(None);
        }
        Ok(Some(call))
    }

    fn refuse(&mut self, call_id: &str, outcome: ToolOutcome, why: &str) -> Result<(), HoldError> {
        let result = ToolReturned { call_id: call_id.to_owned(), outcome, output: why.into(), millis: 0 };
        let returned = Returned { result, changes: Vec::new(), saved: None, committed: None };
        self.held.decide(Command::ReturnTool(Box::new(returned)))
    }

    fn start(&mut self, call: ToolCalled) {
        self.running.push(self.tools.call(call, self.held.epoch()).boxed());
    }

    async fn hand_off(&mut self, index: usize, asked: Asked, full: Option<&NoRoom>) -> Result<(), HoldError> {
        let call_id = asked.call_id.clone();
        let arguments = serde_json::from_value::<Handoff>(asked.arguments.clone());
        let granted = self.runtime.toolbox.permit(self.held.agent(), &asked);
        self.held.decide(Command::CallTool { asked, idempotent: false })?;
        if let Permit::Refused(why) = granted {
            return self.refuse(&call_id, ToolOutcome::Refused, &why);
        }
        let arguments = match arguments {
            Ok(arguments) => arguments,
            Err(error) => {
                let why = format!("The arguments are not right: {error}. Give agent, task and, if it helps, context.");
                return self.refuse(&call_id, ToolOutcome::Error, &why);
            }
        };
        let colleague = match self.runtime.colleague(self.held.agent(), &arguments.agent) {
            Ok(colleague) => colleague,
            Err(why) => {
                return self.refuse(&call_id, ToolOutcome::Refused, &why);
            }
        };
        if let Some(full) = full {
            let why =
                format!("{colleague} was not asked: {full}. Go on without, or say in your answer what is left to do.");
            return self.refuse(&call_id, ToolOutcome::Refused, &why);
        }
        let state = self.held.state();
        if let Some((reason, message)) =
            limits::refuses_handoff(state, &self.runtime.limits, colleague.as_str(), &arguments.task)
        {
            // Children of this step are called off by the end, so they must be there.
            return if self.flush().await? { self.end(End::Fail(reason, message)) } else { Ok(()) };
        }
        let (child, requested) = self.child(index, &call_id, colleague, arguments).await;
        let handed =
            HandedOff { call_id, child_run_id: child, agent: requested.agent.clone(), task: requested.prompt.clone() };
        self.held.hand_off(handed, requested)
    }

    async fn child(&mut self, index: usize, call_id: &str, agent: AgentName, arguments: Handoff) -> (RunId, Requested) {
        let state = self.held.state();
        let request = state.request();
        let trigger = Trigger::Handoff {
            parent_run_id: state.run_id(),
            decision_id: EventId::new(idempotency_key(state.run_id(), state.step())),
            index: u32::try_from(index).unwrap_or(u32::MAX),
            call_id: call_id.to_owned(),
        };
        let child = RunId::derive(&request.project, &trigger, HANDOFF, &agent);
        let requested = Requested {
            project: request.project.clone(),
            class: self.runtime.class_of(&agent),
            agent,
            trigger,
            rule: HANDOFF.to_owned(),
            prompt: self.runtime.text(arguments.task).await,
            context: match arguments.context {
                Some(context) => Some(self.runtime.text(context).await),
                None => None,
            },
            reply_to: None,
            parent_run_id: Some(state.run_id()),
            root_run_id: request.root_run_id,
            depth: request.depth + 1,
            deadline: request.deadline,
            work: state.work().cloned(),
            state: None,
        };
        (child, requested)
    }
}

/// Whether the log has room for the children that these calls want. For other calls it needs none: runs in hand must end.
async fn room_for(fill: &Fill, asked: &[Asked]) -> Result<(), NoRoom> {
    if asked.iter().any(|asked| asked.tool == HANDOFF) { fill.check().await } else { Ok(()) }
}

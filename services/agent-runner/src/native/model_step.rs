//! One model call: fitted to the window, journaled, made, journaled.

use std::{collections::BTreeSet, time::Duration};

use kit::{clock, crew::Provider};
use schemas::{
    Block, RunId, Usage,
    event::{Billed, FailReason, ModelCalled, ModelErrorClass, ModelFailed, ModelReplied},
};

use super::{
    Drive, Nudge,
    billing::{self, Bills, OnRecord},
};
use crate::{
    bearer,
    controls::Standing,
    hold::HoldError,
    model::{Api, ModelAnswer, ModelError, ModelRequest, ToolOffer},
    probe::Place,
    run::{
        Command, End, RunState, Turn,
        conversation::{estimate_bytes, fit},
    },
};

/// A request with everything that it needs, so that its call borrows nothing of the run.
struct Prepared {
    api: Api,
    model: String,
    system: String,
    turns: Vec<Turn>,
    tools: Vec<ToolOffer>,
    max_output_tokens: u64,
    key: String,
}

impl Drive<'_> {
    pub(super) async fn call_model(&mut self, step: u32, attempt: u32, wait_ms: u64) -> Result<(), HoldError> {
        if wait_ms > 0 && !self.pause(wait_ms).await? {
            return Ok(());
        }
        let Some((prepared, called)) = self.prepare(step, attempt).await? else {
            return Ok(());
        };
        let (input_tokens, output_tokens) = (called.input_estimate, prepared.max_output_tokens);
        let worst = Usage { input_tokens, output_tokens, ..Usage::default() };
        self.held.decide(Command::CallModel(called))?;
        if !self.flush().await? {
            return Ok(());
        }
        let bearer = match self.bearer().await {
            Ok(bearer) => bearer,
            Err(error) => {
                tracing::warn!(error = %kit::class::chain(&error), "no bearer for the model call");
                let error = ModelError::new(ModelErrorClass::Unavailable, error.to_string());
                return self.failed(step, attempt, error, None);
            }
        };
        let bills = self.bills(step);
        let client = self.runtime.model.clone();
        let what = step.to_string();
        self.runtime.probe.at(self.held.run_id(), self.held.agent(), Place::BeforeModel, &what);
        let call = async move {
            let started = clock::now();
            let answer = prepared.call(&client, &bearer).await;
            let millis = u64::try_from(clock::now().duration_since(started).as_millis()).unwrap_or(0);
            // At once: what it was billed may have to wait for the bus.
            if let Err(error) = &answer {
                tracing::warn!(step, attempt, class = ?error.class, error = %error.message, "model call failed");
            }
            let found = bills.settle(&answer, attempt).await;
            (answer, millis, found)
        };
        let Some((answer, millis, found)) = self.while_open(call).await? else {
            return Ok(());
        };
        self.runtime.probe.at(self.held.run_id(), self.held.agent(), Place::AfterModel, &what);
        match answer {
            Ok(answer) => {
                let billed = self.billed(found, answer.usage, worst);
                self.replied(step, answer, billed, millis)
            }
            Err(error) => self.failed(step, attempt, error, found.map(|found| found.billed)),
        }
    }

    fn bills(&self, step: u32) -> Bills {
        let (run, state) = (self.held.run_id(), self.held.state());
        let since = state.model_call().map_or(state.last_sequence(), |open| open.since);
        Bills { journal: self.runtime.journal.clone(), run, key: idempotency_key(run, step), since }
    }

    fn billed(&self, found: Option<OnRecord>, reported: Option<Usage>, worst: Usage) -> Billed {
        let route = self.held.state().context().map(|context| context.model.clone()).unwrap_or_default();
        let today = clock::now().to_zoned(self.runtime.crew.time_zone.clone()).date();
        billing::of_answer(found, reported, worst, |usage| self.runtime.price(&route, usage, today))
    }

    /// Waits before a retry, while signals and controls go on being heard. False when the run ended or may not go on.
    pub(super) async fn pause(&mut self, wait_ms: u64) -> Result<bool, HoldError> {
        let deadline = self.held.state().request().deadline;
        let until = (clock::now() + Duration::from_millis(wait_ms)).min(deadline);
        while clock::now() < until {
            if !self.flush().await? {
                return Ok(false);
            }
            let nudge = self.nudge(Some(until)).await?;
            self.on(nudge)?;
            let free = matches!(self.controls.borrow().of(self.held.agent()), Standing::Free);
            if !free || self.held.has_ended() {
                return Ok(false);
            }
        }
        Ok(clock::now() < deadline)
    }

    /// Makes the call while signals and controls go on being heard. Nothing when the run ended meanwhile.
    async fn while_open<T>(&mut self, call: impl Future<Output = T>) -> Result<Option<T>, HoldError> {
        let mut call = std::pin::pin!(call);
        loop {
            let nudge = tokio::select! {
                biased;
                answer = &mut call => return Ok(Some(answer)),
                nudge = self.nudge(None) => nudge?,
            };
            let over = matches!(nudge, Nudge::Time);
            self.on(nudge)?;
            if over {
                return Ok(None);
            }
            if self.must_end() && self.obey().await?.is_some() {
                return Ok(None);
            }
            if self.held.has_ended() || !self.flush().await? {
                return Ok(None);
            }
        }
    }

    /// Whether a control ends even a call that is under way.
    fn must_end(&self) -> bool {
        matches!(self.controls.borrow().of(self.held.agent()), Standing::Killed(_))
    }

    async fn prepare(&mut self, step: u32, attempt: u32) -> Result<Option<(Prepared, ModelCalled)>, HoldError> {
        let state = self.held.state();
        let Some(context) = state.context().cloned() else {
            return Ok(None);
        };
        let agent = self.runtime.crew.agent(&state.request().agent);
        let route = self.runtime.crew.models.routes.get(&context.model);
        let (Some(agent), Some(route)) = (agent, route) else {
            let message =
                format!("agent {} or model route {} is not in this crew any more", self.held.agent(), context.model);
            self.end(End::Fail(FailReason::Unknown, message))?;
            return Ok(None);
        };
        let system = self.runtime.load(&context.system).await;
        let tools = self.runtime.toolbox.offers(agent);
        let mut turns = state.turns().to_vec();
        if state.has_mail() && state.model_call().is_none() {
            turns.push(Turn::User(state.mail().to_vec()));
        }
        let turns = self.runtime.load_turns(turns).await;
        let fixed = estimate_bytes(system.len()) + tools.iter().map(|tool| estimate_bytes(tool.bytes())).sum::<u64>();
        let room = context.context_window.saturating_sub(route.max_output_tokens);
        let fitted = match fit(&turns, state.task(), fixed, room) {
            Ok(fitted) => fitted,
            Err(error) => {
                self.end(End::Fail(FailReason::Model, error.to_string()))?;
                return Ok(None);
            }
        };
        let called = ModelCalled {
            step,
            attempt,
            model: context.model.clone(),
            input_estimate: fitted.estimate,
            dropped_messages: fitted.dropped,
        };
        let prepared = Prepared {
            api: if route.provider == Provider::Openai { Api::OpenAi } else { Api::Anthropic },
            model: context.model,
            system,
            turns: fitted.turns,
            tools,
            max_output_tokens: route.max_output_tokens,
            key: idempotency_key(self.held.run_id(), step),
        };
        Ok(Some((prepared, called)))
    }

    async fn bearer(&mut self) -> Result<String, bearer::BearerError> {
        if let Some(bearer) = &self.bearer {
            return Ok(bearer.clone());
        }
        let minted = bearer::mint(&self.runtime.bus, self.held.state(), self.held.epoch()).await?;
        self.bearer = Some(minted.clone());
        Ok(minted)
    }

    fn replied(&mut self, step: u32, answer: ModelAnswer, billed: Billed, millis: u64) -> Result<(), HoldError> {
        let content = with_own_ids(answer.content, self.held.state(), step);
        let Billed { usage, cost, estimated, .. } = billed;
        let (model, stop) = (answer.model, answer.stop);
        self.held.decide(Command::Reply(ModelReplied { step, model, content, stop, usage, cost, estimated, millis }))
    }

    fn failed(&mut self, step: u32, attempt: u32, error: ModelError, billed: Option<Billed>) -> Result<(), HoldError> {
        let retry_after_ms = error.retry_after.map(|pause| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        let retry_at = error.retry_after.map(|pause| clock::now().checked_add(pause).unwrap_or(jiff::Timestamp::MAX));
        let failed = ModelFailed {
            step,
            attempt,
            class: error.class,
            status: error.status,
            message: error.message,
            retry_after_ms,
            retry_at,
            billed,
        };
        self.held.decide(Command::ModelFail(failed))
    }
}

impl Prepared {
    async fn call(&self, client: &crate::model::ModelClient, bearer: &str) -> Result<ModelAnswer, ModelError> {
        let request = ModelRequest {
            model: &self.model,
            system: &self.system,
            turns: &self.turns,
            tools: &self.tools,
            max_output_tokens: self.max_output_tokens,
        };
        client.call(self.api, &request, bearer, &self.key).await
    }
}

/// Names a call to budget-proxy: the same step of the same run is paid once.
pub(super) fn idempotency_key(run: RunId, step: u32) -> String {
    format!("{run}/{step}")
}

/// Call ids are unique in a conversation, also in one that a run goes on from: some servers count them from zero in every
/// answer, or give one twice.
fn with_own_ids(mut content: Vec<Block>, state: &RunState, step: u32) -> Vec<Block> {
    let mut seen: BTreeSet<String> = state.call_ids().map(str::to_owned).collect();
    for (n, block) in content.iter_mut().enumerate() {
        if let Block::ToolUse { id, .. } = block
            && (!is_globally_unique(id) || !seen.insert(id.clone()))
        {
            *id = format!("call_{}_s{step}_{n}", state.run_id().short());
        }
    }
    content
}

/// Providers' own ids are a prefix and 20 or more random characters.
fn is_globally_unique(id: &str) -> bool {
    const RANDOM_ID_LEN: usize = 20;
    id.len() >= RANDOM_ID_LEN
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use kit::for_test;
    use schemas::{
        event::ToolOutcome,
        state::{STATE_VERSION, SavedState, ToolResult, Turn},
    };

    use super::*;

    const LONG: &str = "toolu_0123456789abcdefghij";

    fn call(id: &str) -> Block {
        Block::ToolUse { id: id.into(), name: "read".into(), input: serde_json::json!({}) }
    }

    /// A run that goes on from a conversation with one call.
    fn run() -> RunState {
        let run = RunId::from_uuid(uuid::Uuid::from_u128(0xfeed_beef));
        let (_, request) = for_test::request("coder");
        let (project, agent) = (request.project.clone(), request.agent.clone());
        let first = for_test::first(request);
        let mut state = RunState::begin(run, 1, Timestamp::UNIX_EPOCH, &first).unwrap();
        let result =
            ToolResult { call_id: LONG.into(), tool: "read".into(), outcome: ToolOutcome::Ok, output: "x".into() };
        state.go_on_from(&SavedState {
            version: STATE_VERSION,
            project,
            agent,
            run_id: run,
            sequence: 1,
            outcome: None,
            turns: vec![
                Turn::User { texts: vec!["begin".into()] },
                Turn::Assistant { blocks: vec![call(LONG)] },
                Turn::Tools { results: vec![result] },
            ],
            left_out: 0,
            tools: Vec::new(),
            work: None,
            worktree: Vec::new(),
            data: std::collections::BTreeMap::new(),
        });
        state
    }

    #[test]
    fn no_two_calls_of_a_conversation_have_the_same_id() {
        let state = run();
        let ids = |content| -> Vec<String> {
            let own = with_own_ids(content, &state, 3).into_iter();
            own.filter_map(|block| if let Block::ToolUse { id, .. } = block { Some(id) } else { None }).collect()
        };
        let other = "toolu_9876543210abcdefghij";
        assert_eq!(ids(vec![call(other), call(other)]), [other, "call_feedbeef_s3_1"]);
        assert_eq!(ids(vec![call("0"), call("0")]), ["call_feedbeef_s3_0", "call_feedbeef_s3_1"]);
        assert_eq!(ids(vec![call(LONG)]), ["call_feedbeef_s3_0"], "nor one of a conversation that it goes on from");
    }
}

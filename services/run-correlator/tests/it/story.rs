//! Runs as tests tell them: each call is a second later, each message says which one it comes after.

use jiff::{SignedDuration, Timestamp};
use kit::logs::{Level, LogLine, Stream};
use run_correlator::domain::evidence::{Evidence, JournalMessage, Told, Unreadable};
use run_correlator::domain::{summary, timeline};
use schemas::call::{CallOutcome, ModelCall};
use schemas::event::{
    ContextLoaded, Finished, ModelCalled, ModelReplied, Requested, ResumeCause, Resumed, Started, StopReason,
    ToolCalled, ToolOutcome, ToolReturned, Totals,
};
use schemas::signal::{Delivered, Undelivered};
use schemas::timeline::{Gap, Timeline};
use schemas::trigger::ReplyTo;
use schemas::{
    AgentName, Block, Class, Decision, EventId, MicroUsd, ProjectId, RunEvent, RunId, Signal, Trigger, Usage,
};
use serde_json::{Value, json};

/// When every story begins.
pub(crate) fn begin() -> Timestamp {
    "2026-11-21T22:00:00Z".parse().unwrap()
}

/// The run that every story is of.
pub(crate) fn run() -> RunId {
    RunId::from_uuid(uuid::Uuid::from_u128(0x0196_b2f0_0000_7000_8000_0000_0000_5a2f))
}

/// A run being told.
pub(crate) struct Story {
    pub(crate) evidence: Evidence,
    at: Timestamp,
    sequence: u64,
    last: u64,
}

impl Story {
    /// A run that was asked for by a person in a room.
    pub(crate) fn asked(prompt: &str) -> Self {
        Self::empty().then(vec![requested(prompt)])
    }

    pub(crate) fn empty() -> Self {
        Self { evidence: Evidence::default(), at: begin(), sequence: 100, last: 0 }
    }

    /// A decision.
    pub(crate) fn then(mut self, events: Vec<RunEvent>) -> Self {
        self.tick();
        self.evidence.journal.push(JournalMessage {
            sequence: self.sequence,
            after: Some(self.last),
            time: self.at,
            id: EventId::new(format!("d{}", self.sequence)),
            effect: None,
            decision: Decision { events },
        });
        self.last = self.sequence;
        self
    }

    /// A decision that wants something from `system`.
    pub(crate) fn effect(self, system: &str, events: Vec<RunEvent>) -> Self {
        let mut story = self.then(events);
        let last = story.evidence.journal.last_mut().unwrap();
        last.effect = Some(system.to_owned());
        story
    }

    /// A message that somebody took out of the log.
    pub(crate) fn lost(mut self) -> Self {
        self.tick();
        self.last = self.sequence;
        self
    }

    /// A message of the journal that nobody can read.
    pub(crate) fn garbled(mut self) -> Self {
        self.tick();
        self.evidence.unreadable.push(Unreadable {
            sequence: self.sequence,
            after: Some(self.last),
            time: self.at,
            in_journal: true,
            reason: "its body is no decision".to_owned(),
        });
        self.last = self.sequence;
        self
    }

    pub(crate) fn signal(mut self, signal: Signal) -> Self {
        self.tick();
        self.evidence.signals.push(Told {
            sequence: self.sequence,
            time: self.at,
            id: EventId::new(format!("s{}", self.sequence)),
            by: "somebody".to_owned(),
            body: signal,
        });
        self
    }

    /// The channel has what the last decision said.
    pub(crate) fn delivered(self) -> Self {
        let decision_id = EventId::new(format!("d{}", self.last));
        self.signal(Signal::Delivered(Delivered {
            decision_id,
            channel: "matrix".to_owned(),
            room: "!crew:example.org".to_owned(),
            external_id: "$answer".to_owned(),
        }))
    }

    /// The channel refused what the last decision said.
    pub(crate) fn refused(self) -> Self {
        let decision_id = EventId::new(format!("d{}", self.last));
        self.signal(Signal::Undelivered(Undelivered {
            decision_id,
            channel: "matrix".to_owned(),
            room: "!crew:example.org".to_owned(),
            reason: "not in the room".to_owned(),
        }))
    }

    /// budget-proxy saw a call.
    pub(crate) fn metered(mut self, step: u32, change: impl FnOnce(&mut ModelCall)) -> Self {
        self.tick();
        let mut body = model_call(step, self.at);
        change(&mut body);
        self.evidence.calls.push(Told {
            sequence: self.sequence,
            time: self.at,
            id: EventId::new(format!("c{}", self.sequence)),
            by: "budget-proxy".to_owned(),
            body,
        });
        self
    }

    pub(crate) fn printed(mut self, tool: &str, stream: Stream, text: &str) -> Self {
        self.at += SignedDuration::from_millis(10);
        let line = LogLine::tool_output(self.at, "agent-runner", run(), tool, stream, text);
        self.evidence.lines.push(line);
        self
    }

    pub(crate) fn logged(mut self, level: Level, message: &str, fields: &Value) -> Self {
        self.at += SignedDuration::from_millis(10);
        self.evidence.lines.push(LogLine {
            time: self.at,
            service: "agent-runner".to_owned(),
            level,
            run_id: Some(run()),
            target: "agent_runner::native".to_owned(),
            message: message.to_owned(),
            stream: None,
            fields: fields.as_object().cloned().unwrap_or_default(),
        });
        self
    }

    fn tick(&mut self) {
        self.at += SignedDuration::from_secs(1);
        self.sequence += 1;
    }

    /// The timeline as it is seen some time after the story.
    pub(crate) fn told_after(&self, later: SignedDuration) -> Timeline {
        let summary = summary::fold(run(), &self.evidence.links()).unwrap();
        timeline::timeline(summary, &self.evidence, self.at + later)
    }

    /// The timeline as it is seen an hour later.
    pub(crate) fn told(&self) -> Timeline {
        self.told_after(SignedDuration::from_hours(1))
    }

    /// Its gaps an hour later.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        self.told().gaps
    }
}

pub(crate) fn requested(prompt: &str) -> RunEvent {
    let trigger = Trigger::Chat {
        channel: "matrix".to_owned(),
        room: "!crew:example.org".to_owned(),
        event_id: "$asked".to_owned(),
        sender: "@ada:example.org".to_owned(),
    };
    RunEvent::Requested(Box::new(Requested {
        project: ProjectId::try_new("test").unwrap(),
        agent: agent("lead"),
        class: Class::Resident,
        trigger,
        rule: "mention".to_owned(),
        prompt: prompt.into(),
        context: None,
        reply_to: Some(room()),
        parent_run_id: None,
        root_run_id: run(),
        depth: 0,
        deadline: begin() + SignedDuration::from_mins(30),
        work: None,
        state: None,
    }))
}

pub(crate) fn room() -> ReplyTo {
    ReplyTo { channel: "matrix".to_owned(), room: "!crew:example.org".to_owned(), thread: None }
}

pub(crate) fn agent(name: &str) -> AgentName {
    AgentName::try_new(name).unwrap()
}

pub(crate) fn started() -> Vec<RunEvent> {
    vec![
        RunEvent::Started(Started { runner: "0196b2f0-runner-one".to_owned(), harness: "native".to_owned() }),
        RunEvent::ContextLoaded(ContextLoaded {
            model: "default".to_owned(),
            context_window: 200_000,
            system: "You are lead.".into(),
            tools: vec!["read".to_owned(), "shell".to_owned()],
        }),
    ]
}

pub(crate) fn taken_over(attempt: u32) -> RunEvent {
    RunEvent::Resumed(Resumed { runner: "0196b2f0-runner-two".to_owned(), attempt, cause: ResumeCause::HolderLost })
}

pub(crate) fn called(step: u32, attempt: u32) -> RunEvent {
    RunEvent::ModelCalled(ModelCalled {
        step,
        attempt,
        model: "default".to_owned(),
        input_estimate: 1_300,
        dropped_messages: 0,
    })
}

pub(crate) fn usage() -> Usage {
    Usage { input_tokens: 1_204, output_tokens: 88, ..Usage::default() }
}

pub(crate) fn replied(step: u32, content: Vec<Block>) -> RunEvent {
    RunEvent::ModelReplied(ModelReplied {
        step,
        model: "rehearsal-1".to_owned(),
        content,
        stop: StopReason::EndTurn,
        usage: usage(),
        cost: Some(MicroUsd(4_120)),
        estimated: false,
        millis: 812,
    })
}

pub(crate) fn says(text: &str) -> Block {
    Block::Text { text: text.to_owned() }
}

pub(crate) fn wants(id: &str, name: &str, input: Value) -> Block {
    Block::ToolUse { id: id.to_owned(), name: name.to_owned(), input }
}

pub(crate) fn tool(id: &str, step: u32, tool: &str, arguments: Value) -> RunEvent {
    RunEvent::ToolCalled(ToolCalled {
        call_id: id.to_owned(),
        step,
        tool: tool.to_owned(),
        arguments,
        idempotent: tool == "read",
    })
}

pub(crate) fn returned(id: &str, outcome: ToolOutcome, output: &str) -> RunEvent {
    RunEvent::ToolReturned(ToolReturned { call_id: id.to_owned(), outcome, output: output.into(), millis: 1_290 })
}

pub(crate) fn totals() -> Totals {
    Totals {
        usage: usage(),
        cost: MicroUsd(4_120),
        unpriced_calls: 0,
        estimated_calls: 0,
        model_calls: 1,
        tool_calls: 1,
        millis: 4_000,
    }
}

pub(crate) fn finished(answer: &str) -> RunEvent {
    RunEvent::Finished(Finished { answer: answer.into(), totals: totals() })
}

pub(crate) fn answers(text: &str) -> Vec<RunEvent> {
    let sent = json!({
        "kind": "message_sent",
        "to": room(),
        "text": text,
        "footer": { "agent": "lead", "run_id": run(), "totals": totals(), "rehearsal": true },
    });
    vec![serde_json::from_value(sent).unwrap(), finished(text)]
}

fn model_call(step: u32, at: Timestamp) -> ModelCall {
    ModelCall {
        run_id: run(),
        agent: agent("lead"),
        epoch: 102,
        idempotency_key: format!("{}/{step}", run()),
        api: "anthropic".to_owned(),
        route: "default".to_owned(),
        model: "rehearsal-1".to_owned(),
        request_digest: "00".repeat(32),
        outcome: CallOutcome::Completed,
        status: Some(200),
        usage: usage(),
        usage_estimated: false,
        cost: Some(MicroUsd(4_120)),
        price_date: Some("2026-11-01".to_owned()),
        started_at: at,
        first_byte_ms: Some(120),
        total_ms: 808,
        rehearsal: true,
    }
}

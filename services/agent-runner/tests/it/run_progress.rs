//! What `next` asks for is always possible, and a run that does it comes to its end, whatever happens to it on the way:
//! crashes at any point, signals of any kind, failing models, lost tools, children.

use agent_runner::run::{
    Action, Command, End, Limits, Phase, RunState, decide, decide::Returned, limits, next, next::Asked,
    state::OpenModelCall,
};
use jiff::Timestamp;
use proptest::prelude::*;
use schemas::{
    AgentName, Block, Decision, EventId, MicroUsd, RunId, Usage,
    event::{
        ChildEnded, ContextLoaded, HandedOff, ModelCalled, ModelErrorClass, ModelFailed, ModelReplied, Outcome,
        StopReason, ToolOutcome, ToolReturned, Totals, WaitReason,
    },
    signal::{ByWhom, Message},
};

use crate::run_invariants::requested;

/// What happens next.
#[derive(Debug, Clone)]
pub(crate) enum Happens {
    /// The holder does what is to be done; the numbers decide how that goes.
    Step(u8, u8),
    /// The holder is lost and another one takes the run.
    Crash,
    /// Somebody says something.
    Says(u8),
    /// A child that is awaited ends.
    ChildEnds(u8),
    /// The crew is paused, and goes on.
    Pause,
    /// The run is called off.
    Cancel,
}

pub(crate) fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        30 => (any::<u8>(), any::<u8>()).prop_map(|(how, what)| Happens::Step(how, what)),
        4 => Just(Happens::Crash),
        2 => any::<u8>().prop_map(Happens::Says),
        4 => any::<u8>().prop_map(Happens::ChildEnds),
        1 => Just(Happens::Pause),
        1 => Just(Happens::Cancel),
    ]
}

const LIMITS: Limits = Limits {
    max_steps: 6,
    max_tokens: 1_000_000,
    max_handoffs: 4,
    max_depth: 3,
    max_same_handoff: 2,
    max_same_step: 3,
    max_takeovers: 12,
    max_model_attempts: 3,
    max_journal_bytes: 1_000_000,
};

pub(crate) fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

/// A run in the hands of a holder that makes no mistakes.
pub(crate) struct Play {
    pub(crate) live: RunState,
    pub(crate) journal: Vec<Decision>,
    serial: u32,
    name: &'static str,
}

impl Play {
    /// A run whose calls have ids that begin with `name`.
    pub(crate) fn new(name: &'static str) -> Self {
        let (run, first) = requested();
        let live = RunState::begin(run, 1, now(), &first).unwrap();
        Self { live, journal: vec![first], serial: 0, name }
    }

    fn ended(&self) -> bool {
        matches!(self.live.phase(), Phase::Ended(_))
    }

    fn decide(&mut self, command: Command) {
        let told = format!("{command:?}");
        let (after, events) = decide(&self.live, command)
            .unwrap_or_else(|illegal| panic!("{told} was asked for and is refused: {illegal:?}\n{:#?}", self.live));
        self.live = after;
        self.journal.push(Decision { events });
        self.live.appended(self.journal.len() as u64, 10);
    }

    fn fresh(&mut self) -> u32 {
        self.serial += 1;
        self.serial
    }

    pub(crate) fn happen(&mut self, what: &Happens) {
        if self.ended() {
            return;
        }
        match what {
            Happens::Step(how, what) => self.step(*how, *what),
            Happens::Crash => self.take(),
            Happens::Says(n) => {
                let signal = EventId::new(format!("says-{n}"));
                self.woken();
                if !self.live.has_taken(&signal) {
                    self.decide(Command::Hear(signal, Message { from: "ada".into(), text: "well?".into() }));
                }
            }
            Happens::ChildEnds(n) => self.child_ends(usize::from(*n)),
            Happens::Pause => {
                self.woken();
                if !self.runs_tools() {
                    self.decide(Command::Wait(WaitReason::Pause, None));
                }
            }
            Happens::Cancel => {
                self.woken();
                let by = ByWhom { by: "ada".into(), reason: String::new() };
                self.decide(Command::End(End::Cancel(by), now()));
            }
        }
    }

    /// Does what somebody else wants, when the run's state allows it.
    pub(crate) fn attempt(&mut self, command: Command) {
        let before = self.live.clone();
        match decide(&self.live, command) {
            Ok((after, events)) => {
                self.live = after;
                self.journal.push(Decision { events });
                self.live.appended(self.journal.len() as u64, 10);
            }
            Err(_) => assert_eq!(self.live, before, "a refused command changes nothing"),
        }
    }

    /// Whether a tool runs that this holder started: a pause waits for it.
    fn runs_tools(&self) -> bool {
        self.live.open_calls().values().any(|open| open.child.is_none() && open.epoch == self.live.epoch())
    }

    fn take(&mut self) {
        let runner = format!("r{}", self.fresh());
        self.decide(Command::Take { runner, harness: "native".into() });
    }

    fn woken(&mut self) {
        if self.live.phase() != Phase::Held {
            self.take();
        }
    }

    fn child_ends(&mut self, n: usize) {
        let open = self.live.open_calls();
        let awaited: Vec<(String, RunId)> =
            open.iter().filter_map(|(id, open)| Some((id.clone(), open.child?))).collect();
        let Some((call_id, child_run_id)) = awaited.get(n % awaited.len().max(1)).cloned() else {
            return;
        };
        self.woken();
        let ended = ChildEnded {
            call_id,
            child_run_id,
            outcome: if n.is_multiple_of(3) { Outcome::Failed } else { Outcome::Finished },
            answer: "found".into(),
            totals: Totals::default(),
            work: None,
        };
        let signal = EventId::new(format!("{child_run_id}/{}", ended.call_id));
        self.decide(Command::EndChild(signal, ended));
    }

    fn step(&mut self, how: u8, what: u8) {
        let in_flight = |open: &&OpenModelCall| open.failed.is_none() && open.epoch == self.live.epoch();
        if let (Phase::Held, Some(open)) = (self.live.phase(), self.live.model_call().filter(in_flight)) {
            let (step, attempt) = (open.call.step, open.call.attempt);
            return self.answer(step, attempt, how, what);
        }
        match next(&self.live, &LIMITS, now()) {
            Action::Take => self.take(),
            Action::LoadContext => self.decide(Command::LoadContext(ContextLoaded {
                model: "m".into(),
                context_window: 1_000,
                system: "s".into(),
                tools: vec![],
            })),
            Action::CallModel { step, attempt, .. } => self.decide(Command::CallModel(ModelCalled {
                step,
                attempt,
                model: "m".into(),
                input_estimate: 1,
                dropped_messages: 0,
            })),
            Action::CallTools(asked) => self.call_tools(asked),
            Action::Recover(lost) => {
                for call in lost {
                    if call.idempotent {
                        let asked = Asked { call_id: call.call_id, tool: call.tool, arguments: call.arguments };
                        self.decide(Command::CallTool { asked, idempotent: true });
                    } else {
                        self.return_tool(&call.call_id, ToolOutcome::Uncertain, what);
                    }
                }
            }
            Action::AwaitTools => {
                let running: Vec<String> = self
                    .live
                    .open_calls()
                    .iter()
                    .filter(|(_, open)| open.child.is_none())
                    .map(|(id, _)| id.clone())
                    .collect();
                let id = running[usize::from(how) % running.len()].clone();
                self.return_tool(&id, ToolOutcome::Ok, what);
            }
            Action::Wait(reason) => self.decide(Command::Wait(reason, None)),
            Action::Finish => self.decide(Command::End(End::Finish("done".into()), now())),
            Action::Fail(reason, message) => self.decide(Command::End(End::Fail(reason, message), now())),
            Action::Nothing(_) => {}
        }
    }

    fn answer(&mut self, step: u32, attempt: u32, how: u8, what: u8) {
        if how < 40 {
            let class = if how.is_multiple_of(7) { ModelErrorClass::Refused } else { ModelErrorClass::Unavailable };
            return self.decide(Command::ModelFail(ModelFailed {
                step,
                attempt,
                class,
                status: None,
                message: "no".into(),
                billed: None,
                retry_after_ms: None,
                retry_at: None,
            }));
        }
        let block = |n| {
            let name = match (what >> n) & 3 {
                0 => "handoff",
                1 => "read",
                _ => "shell",
            };
            Block::ToolUse {
                id: format!("{}{step}-{n}", self.name),
                name: name.into(),
                input: serde_json::json!({ "n": what }),
            }
        };
        let calls = (how % 4).min(3);
        let content: Vec<Block> = (0..calls).map(block).collect();
        let stop = if content.is_empty() { StopReason::EndTurn } else { StopReason::ToolUse };
        let usage = Usage { input_tokens: 1, output_tokens: 1, ..Usage::default() };
        let model = "m".into();
        self.decide(Command::Reply(ModelReplied {
            step,
            model,
            content,
            stop,
            usage,
            cost: Some(MicroUsd(1)),
            estimated: false,
            millis: 1,
        }));
    }

    fn call_tools(&mut self, asked: Vec<Asked>) {
        for asked in asked {
            let (call_id, idempotent) = (asked.call_id.clone(), asked.tool == "read");
            let handoff = asked.tool == "handoff";
            self.decide(Command::CallTool { asked, idempotent });
            if !handoff {
                continue;
            }
            let agent = AgentName::try_new("scout").unwrap();
            if let Some((reason, message)) = limits::refuses_handoff(&self.live, &LIMITS, agent.as_str(), "look") {
                return self.decide(Command::End(End::Fail(reason, message), now()));
            }
            let child_run_id = RunId::from_uuid(uuid::Uuid::from_u128(u128::from(self.fresh())));
            self.decide(Command::HandOff(HandedOff { call_id, child_run_id, agent, task: "look".into() }));
        }
    }

    fn return_tool(&mut self, call_id: &str, outcome: ToolOutcome, what: u8) {
        let result =
            ToolReturned { call_id: call_id.to_owned(), outcome, output: format!("out {what}").into(), millis: 1 };
        self.decide(Command::ReturnTool(Box::new(Returned { result, changes: vec![], saved: None, committed: None })));
    }

    /// Nothing more happens to the run than what it asks for, and its children end.
    pub(crate) fn go_on_alone(&mut self) {
        for n in 0..500_u32 {
            if self.ended() {
                return;
            }
            let waits = matches!(self.live.phase(), Phase::Waiting(WaitReason::Child));
            // Without a child it is the deadline that wakes it.
            if waits && self.live.open_children().next().is_some() {
                self.child_ends(1);
            } else {
                let bytes = n.to_le_bytes();
                self.step(bytes[0].wrapping_mul(37), bytes[0]);
            }
        }
        panic!("the run does not end: {:#?}", self.live);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_run_goes_on_and_ends(what in proptest::collection::vec(happens(), 0..80)) {
        let mut play = Play::new("s");
        for what in &what {
            play.happen(what);
        }
        play.go_on_alone();
        let mut replayed = RunState::begin(play.live.run_id(), 1, now(), &play.journal[0]).unwrap();
        for (n, decision) in play.journal.iter().enumerate() {
            replayed.apply_message(n as u64 + 1, 10, decision).unwrap();
        }
        prop_assert_eq!(replayed, play.live);
    }
}

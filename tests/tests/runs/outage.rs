//! NATS goes away while runs are at their model call, at a running tool and waiting for children: restarted several times,
//! and stopped for half a minute, in which models answer and tools end. Nothing is lost, nothing is done twice, all end.

use std::{collections::BTreeMap, time::Duration};

use rehearsal::Outcome;
use schemas::{
    RunEvent, RunId,
    call::ModelCall,
    event::{ToolCalled, ToolOutcome, ToolReturned},
};

use crate::stage::Stage;

/// How long the bus is away: longer than an ack wait, a lost connection's notice, an append's own patience and the time
/// that budget-proxy waits, each of which ends at most ten seconds after its begin.
const OUTAGE: Duration = Duration::from_secs(30);

/// Restarts one after the other.
const RESTARTS: usize = 3;

/// Runs at every place, with all that they have in hand.
struct Runs {
    model: RunId,
    tool: RunId,
    parent: RunId,
    children: [RunId; 2],
}

impl Runs {
    async fn begin(stage: &Stage) -> Self {
        let model = stage.at_model("coder").await;
        let tool = stage.at_tool("coder").await;
        let (parent, children) = stage.at_children(2).await;
        Self { model, tool, parent, children }
    }

    /// Models answer, tools end.
    fn go_on(&self, stage: &Stage) {
        stage.rig.rehearsal.open_gate("model").expect("a gate");
        stage.end_tool(self.tool);
        stage.end_tool(self.children[1]);
    }

    async fn check(&self, stage: &Stage) {
        for run in [self.model, self.tool, self.parent] {
            stage.is_finished(run).await;
        }
        for run in self.children {
            let end = stage.end(run, None).await;
            assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
        }
        for run in [self.model, self.tool, self.parent, self.children[0], self.children[1]] {
            called_once(stage, run).await;
        }
        for run in [self.tool, self.children[1]] {
            acted_once(stage, run).await;
        }
        let mut asked = BTreeMap::new();
        for request in stage.rig.rehearsal.requests(0).requests {
            assert_eq!(request.outcome, Outcome::Completed, "{request:?}");
            *asked.entry(request.digest).or_insert(0) += 1;
        }
        assert!(asked.values().all(|times| *times == 1), "a model was asked twice: {asked:?}");
    }
}

/// Each model call is answered once in the journal, and on record once.
async fn called_once(stage: &Stage, run: RunId) {
    let events = stage.rig.events(run).await.expect("events");
    let reply = |event: &RunEvent| if let RunEvent::ModelReplied(reply) = event { Some(reply.step) } else { None };
    let replied: Vec<u32> = events.iter().filter_map(reply).collect();
    assert_eq!(replied, [1, 2], "{events:?}");
    let calls = stage.rig.journal.calls(run, 1).await.expect("calls");
    let calls: Vec<ModelCall> = calls.iter().map(|call| call.decode().expect("a call")).collect();
    let mut keys: Vec<&str> = calls.iter().map(|call| call.idempotency_key.as_str()).collect();
    keys.sort_unstable();
    assert_eq!(keys, [format!("{run}/1"), format!("{run}/2")], "{calls:?}");
}

/// The command ran once.
async fn acted_once(stage: &Stage, run: RunId) {
    let events = stage.rig.events(run).await.expect("events");
    let called: Vec<&ToolCalled> = events
        .iter()
        .filter_map(|event| if let RunEvent::ToolCalled(call) = event { Some(call) } else { None })
        .collect();
    assert_eq!(called.len(), 1, "{called:?}");
    let returned: Vec<&ToolReturned> = events
        .iter()
        .filter_map(|event| if let RunEvent::ToolReturned(returned) = event { Some(returned) } else { None })
        .collect();
    let [returned] = returned.as_slice() else { panic!("it returned {} times", returned.len()) };
    assert_eq!((returned.outcome, returned.output.preview().trim()), (ToolOutcome::Ok, "x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_over_restarts_of_the_bus() {
    let mut stage = Stage::start().await;
    let runs = Runs::begin(&stage).await;
    for n in 0..RESTARTS {
        stage.rig.bus.server().kill().await.expect("a server that is killed");
        stage.rig.bus.server().restart().await.expect("a server that starts");
        // The crew works again: a new run is taken, and the held ones are held still.
        let new = stage.rig.ask("scout", &format!("Anything, {n}.")).await.expect("a run");
        stage.is_finished(new).await;
    }
    stage.rig.bus.server().stop().await.expect("a server that ends");
    runs.go_on(&stage);
    stage.rig.bus.server().restart().await.expect("a server that starts");
    runs.check(&stage).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_go_on_after_half_a_minute_without_the_bus() {
    let mut stage = Stage::start().await;
    let runs = Runs::begin(&stage).await;
    stage.rig.bus.server().stop().await.expect("a server that ends");
    runs.go_on(&stage);
    // The outage itself: what gives up too early does so in this time.
    tokio::time::sleep(OUTAGE).await;
    stage.rig.bus.server().restart().await.expect("a server that starts");
    runs.check(&stage).await;
    let new = stage.rig.ask("scout", "Anything.").await.expect("a run");
    stage.is_finished(new).await;
}

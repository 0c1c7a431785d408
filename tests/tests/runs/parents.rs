//! A thousand parents wait for their children at once. Nobody is held meanwhile, so nothing can deadlock, and all end.

use std::{collections::HashSet, time::Duration};

use futures::StreamExt as _;
use kit::{
    identity::Service,
    journal::{Entry, MAX_BATCH_MESSAGES},
};
use nightcrew_tests::rig::Rig;
use schemas::{AgentName, RunId, Subject, control::Control, subject::Target};

use crate::log::Log;

/// Parents. They are asked for in one batch.
const PARENTS: usize = MAX_BATCH_MESSAGES;

/// How long one who is asked whether he holds a run may take, when there are two thousand such questions before.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

const SCENARIO: &str = "
name: parents
rules:
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: find it}}]
  - name: tells
    when: {agent: lead, step: 2}
    reply: {text: It is found.}
  - name: finds
    when: {agent: scout}
    reply: {text: found}
  - name: is-held
    when: {agent: coder}
    gate: last
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_parents_wait_for_their_children_at_once() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let scout = Target::Agent(AgentName::try_new("scout").expect("a name"));
    rig.tell(scout.clone(), Control::Pause).await.expect("the children may not begin");

    let asked = (0..PARENTS).map(|n| {
        let (run, message) = rig.request("lead", "Find it.", &format!("parent-{n}")).expect("a request");
        (run, Entry::journal(run, 0, message))
    });
    let (parents, entries): (HashSet<RunId>, Vec<Entry>) = asked.unzip();
    rig.journal.append_batch(entries).await.expect("a batch");
    let mut log = Log::of(&rig.client);
    log.wait("waiting", PARENTS).await.expect("parents that wait");
    log.wait("requested", 2 * PARENTS).await.expect("their children");
    assert_eq!(log.with("waiting").collect::<HashSet<_>>(), parents);
    assert_eq!(log.with("finished").count(), 0);
    let runs: Vec<RunId> = log.kinds().keys().copied().collect();
    assert_eq!(held(&rig, &runs).await, [], "nobody is held");

    rig.tell(scout, Control::Resume).await.expect("the children may begin");
    log.wait("finished", 2 * PARENTS).await.expect("every run ends well");
    for (run, kinds) in log.kinds().iter().filter(|(run, _)| parents.contains(run)) {
        let count = |kind: &str| kinds.iter().filter(|seen| *seen == kind).count();
        let once = ["requested", "started", "handed_off", "waiting", "child_ended", "resumed", "message_sent"];
        assert!(once.iter().all(|kind| count(kind) == 1), "run {run}: {kinds:?}");
    }
}

/// The runs among `runs` that a runner answers for. The last that is asked for is held, and its answer follows those of
/// all others: they come from one runner, over one connection.
async fn held(rig: &Rig, runs: &[RunId]) -> Vec<RunId> {
    let last = rig.ask("coder", "Wait at the gate.").await.expect("a run");
    rig.wait(last, |event| event.kind() == "model_called").await.expect("a run that is held");
    let bus = rig.bus.bus(Service::AgentRunner).await;
    let inbox = bus.client().new_inbox();
    let mut answers = bus.client().subscribe(format!("{inbox}.*")).await.expect("a subscription");
    for run in runs.iter().chain([&last]) {
        let reply = format!("{inbox}.{run}");
        let asked = bus.client().publish_with_reply(Subject::Hold(*run).to_string(), reply, "".into());
        asked.await.expect("a question");
    }
    let mut held = Vec::new();
    loop {
        let answer = tokio::time::timeout(ANSWER_WITHIN, answers.next()).await.expect("an answer in time");
        let answer = answer.expect("an answer");
        let run = answer.subject.rsplit('.').next().and_then(|run| run.parse::<RunId>().ok()).expect("a run");
        if run == last {
            rig.rehearsal.open_gate("last").expect("a gate");
            rig.end(last).await.expect("an end");
            return held;
        }
        held.push(run);
    }
}

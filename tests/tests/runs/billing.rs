//! What a run is shown to have used is what budget-proxy has on record of it, also where the model told no usage or its
//! answers broke off.

use kit::logs::{Limits, LogStore};
use nightcrew_tests::rig::Rig;
use rehearsal::Outcome;
use schemas::{
    RunEvent, RunId,
    call::{CallOutcome, ModelCall},
    event::{Finished, Totals},
    timeline::Timeline,
};

/// The child meets every way in which a call is billed without saying so; the parent meets one.
const SCENARIO: &str = "
name: billing
rules:
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: Look.}}]
  - name: tells
    when: {agent: lead, step: 2}
    fault: {kind: missing_usage}
    reply: {text: It is found.}
  - name: is-told
    when: {agent: scout, step: 1}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: breaks-off
    when: {agent: scout, step: 2}
    fault: {kind: cut_stream, after_tokens: 4, times: 1}
    reply:
      text: I go on with what I have found there.
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: tells-an-error
    when: {agent: scout, step: 3}
    fault: {kind: error_frame, after_tokens: 4, times: 1}
    reply:
      text: I go on with what I have found there.
      tools: [{name: list, arguments: {path: .}}]
  - name: is-limited
    when: {agent: scout, step: 4}
    fault: {kind: rate_limited, times: 1}
    reply:
      tools: [{name: read, arguments: {path: hello.txt}}]
  - name: tells-no-usage
    when: {agent: scout, step: 5}
    fault: {kind: missing_usage}
    reply:
      tools: [{name: list, arguments: {path: .}}]
  - name: reports
    when: {agent: scout, step: 6}
    gate: report
    reply: {text: found}
";

/// Calls of the child before its report: five steps, three of them at a second try.
const CALLS: usize = 8;

async fn records(rig: &Rig, run: RunId) -> Vec<ModelCall> {
    let calls = rig.journal.calls(run, 1).await.expect("calls");
    calls.iter().map(|call| call.decode().expect("a call")).collect()
}

/// What is on record, but for what no record knows.
fn on_record(records: &[ModelCall], totals: &Totals) -> Totals {
    let answered = records.iter().filter(|call| call.outcome == CallOutcome::Completed).count();
    let estimated = records.iter().filter(|call| call.usage_estimated).count();
    let mut sum = Totals { tool_calls: totals.tool_calls, millis: totals.millis, ..Totals::default() };
    for call in records {
        sum.usage += call.usage;
        sum.cost += call.cost.expect("a price");
    }
    sum.model_calls = u32::try_from(answered).expect("few");
    sum.estimated_calls = u32::try_from(estimated).expect("few");
    sum
}

async fn explained(rig: &Rig, run: RunId) -> Timeline {
    let logs = LogStore::open(rig.folder().join("logs"), Limits::SHIPPED).expect("a store");
    run_correlator::timeline(&rig.client, &logs, run, true).await.expect("a timeline")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_run_used_is_what_the_proxy_has_on_record() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("lead", "Find it.").await.expect("a run");
    let handed = rig.wait(run, |event| matches!(event, RunEvent::HandedOff(_))).await.expect("a handoff");
    let RunEvent::HandedOff(handed) = handed else { panic!("{handed:?}") };
    let child = handed.child_run_id;
    let reports = || async {
        let asked = rig.rehearsal.requests(0).requests;
        asked.iter().any(|request| request.outcome == Outcome::InProgress && request.step == 6).then_some(())
    };
    rig.until("the child's report", reports).await.expect("in time");

    let so_far = records(&rig, child).await;
    let outcomes = |wanted| so_far.iter().filter(|call| call.outcome == wanted).count();
    assert_eq!((so_far.len(), outcomes(CallOutcome::UpstreamCut)), (CALLS, 2), "{so_far:#?}");
    let shown = explained(&rig, child).await.summary.totals;
    assert_eq!(shown, on_record(&so_far, &shown), "while it runs: {so_far:#?}");
    assert_eq!((shown.model_calls, shown.estimated_calls), (5, 3));

    rig.rehearsal.open_gate("report").expect("a gate");
    let end = rig.end(run).await.expect("an end");
    let RunEvent::Finished(Finished { totals, .. }) = end else { panic!("{end:?}") };
    let mut all = records(&rig, child).await;
    let (own, of_child) = (records(&rig, run).await, all.len());
    assert_eq!((own.len(), of_child), (2, CALLS + 1));
    let RunEvent::Finished(found) = rig.end(child).await.expect("an end") else { panic!("the child finishes") };
    assert_eq!(found.totals, on_record(&all, &found.totals), "of the child: {all:#?}");
    all.extend(own);
    assert_eq!(totals, on_record(&all, &totals), "of both: {all:#?}");
    assert_eq!((totals.model_calls, totals.estimated_calls), (8, 4));

    let said = rig.wait(run, |event| matches!(event, RunEvent::MessageSent(_))).await.expect("an answer");
    let RunEvent::MessageSent(said) = said else { panic!("{said:?}") };
    assert_eq!(said.footer.totals, totals, "in the footer");
    let tree = explained(&rig, run).await;
    assert_eq!(tree.summary.totals, totals, "in the summary");
    let lines: Vec<&str> = tree.children[0].entries.iter().map(|entry| entry.line.as_str()).collect();
    let told = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!(told("billed all the same"), 2, "{lines:#?}");
}

//! What happened can be read afterwards: a timeline of every run, without a gap, from the log alone.

use kit::logs::{Limits, LogStore};
use nightcrew_tests::rig::Rig;
use schemas::timeline::{Source, Timeline};

const DELEGATED: &str = "
name: delegated
rules:
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: handoff, arguments: {agent: coder, task: make it}}]
  - name: tells
    when: {agent: lead, tool_result: {tool: handoff}}
    reply: {text: It is made.}
  - name: writes
    when: {agent: coder, step: 1}
    reply:
      text: I write it.
      tools: [{name: write, arguments: {path: new.txt, content: 'made here'}}]
  - name: commits
    when: {agent: coder, step: 2}
    reply:
      tools: [{name: git, arguments: {operation: commit, message: Add new.txt}}]
  - name: reports
    when: {agent: coder, step: 3}
    reply: {text: made}
";

/// The kinds of a timeline's entries from one source, in order.
fn kinds(timeline: &Timeline, source: Source) -> Vec<&str> {
    timeline.entries.iter().filter(|entry| entry.source == source).map(|entry| entry.kind.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_runs_is_explained_line_by_line() {
    let rig = Rig::start(DELEGATED).await.expect("a crew");
    let logs = LogStore::open(rig.folder().join("logs"), Limits::SHIPPED).expect("a store");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("lead", "Make it.").await.expect("a run");
    rig.end(run).await.expect("an end");
    let tree = run_correlator::timeline(&rig.client, &logs, run, true).await.expect("a timeline");
    assert!(tree.is_complete(), "{:?}", tree.gaps);
    let [child] = tree.children.as_slice() else { panic!("one child, not {}", tree.children.len()) };
    assert_eq!(child.summary.agent.as_str(), "coder");
    assert_eq!(child.summary.totals.model_calls, 3);
    for kind in ["tool_called", "file_changed", "worktree_saved", "code_committed", "tool_returned", "finished"] {
        assert!(kinds(child, Source::Journal).contains(&kind), "no {kind} among {:?}", kinds(child, Source::Journal));
    }
    assert_eq!(kinds(child, Source::Call).len(), 3, "each model call was seen on the wire");
    assert_eq!(kinds(&tree, Source::Signal), ["child_ended"]);
    let line = |kind: &str| child.entries.iter().find(|entry| entry.kind == kind).map(|entry| entry.line.as_str());
    assert_eq!(line("file_changed"), Some("adds new.txt (+1 −0)"));
}

//! The straight path: nothing is killed, nothing fails.

use nightcrew_tests::rig::Rig;
use schemas::{
    Block, RunEvent,
    event::{ToolOutcome, ToolReturned},
};

const ANSWER: &str = "
name: answer
rules:
  - name: answers
    when: {agent: lead}
    reply: {text: Hello from the rehearsal.}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_answered() {
    let rig = Rig::start(ANSWER).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("lead", "Say hello.").await.expect("a run");
    let end = rig.end(run).await.expect("an end");
    let RunEvent::Finished(finished) = end else { panic!("it should finish, not {end:?}") };
    assert_eq!(finished.answer.preview(), "Hello from the rehearsal.");
    assert_eq!(finished.totals.model_calls, 1);
    assert!(finished.totals.cost.0 > 0, "a call has its price: {:?}", finished.totals);
    let kinds: Vec<String> = rig.events(run).await.expect("events").iter().map(|e| e.kind().to_owned()).collect();
    let expected =
        ["requested", "started", "context_loaded", "model_called", "model_replied", "message_sent", "finished"];
    assert_eq!(kinds, expected);
}

const TOOLS: &str = "
name: tools
rules:
  - name: looks
    when: {agent: coder, step: 1}
    reply:
      text: I look.
      tools:
        - {name: read, arguments: {path: hello.txt}}
        - {name: list, arguments: {path: .}}
        - {name: handoff, arguments: {agent: lead, task: not allowed}}
  - name: writes
    when: {agent: coder, step: 2}
    reply:
      tools: [{name: write, arguments: {path: new.txt, content: 'made here'}}]
  - name: runs
    when: {agent: coder, step: 3}
    reply:
      tools: [{name: shell, arguments: {command: 'cat new.txt && echo run=$RUN_ID'}}]
  - name: commits
    when: {agent: coder, step: 4}
    reply:
      tools: [{name: git, arguments: {operation: commit, message: Add new.txt}}]
  - name: reports
    when: {agent: coder, step: 5}
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn tools_work_on_a_branch_of_the_run_and_are_journaled() {
    let rig = Rig::start(TOOLS).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("coder", "Make a file.").await.expect("a run");
    let end = rig.end(run).await.expect("an end");
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    let events = rig.events(run).await.expect("events");
    let returned: Vec<&ToolReturned> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::ToolReturned(returned) => Some(returned),
            _ => None,
        })
        .collect();
    assert_eq!(returned.len(), 6);
    let refused = returned.iter().filter(|r| r.outcome == ToolOutcome::Refused).count();
    assert_eq!(refused, 1, "coder has no handoff: {returned:?}");
    assert!(returned.iter().any(|r| r.output.preview().contains(&format!("run={run}"))), "{returned:?}");
    let changed: Vec<&str> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::FileChanged(changed) => Some(changed.path.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(changed, ["new.txt"]);
    let committed = events.iter().find_map(|event| match event {
        RunEvent::CodeCommitted(committed) => Some(committed.work.clone()),
        _ => None,
    });
    let work = committed.expect("a commit");
    let git = |args: &[&str]| {
        let output = std::process::Command::new("git").args(args).current_dir(rig.repository()).output().expect("git");
        String::from_utf8(output.stdout).expect("text")
    };
    assert_eq!(git(&["show", &format!("{}:new.txt", work.branch)]), "made here");
    assert_eq!(git(&["log", "-1", "--format=%(trailers:key=Run-Id,valueonly)", &work.branch]).trim(), run.to_string());
}

const HANDOFF: &str = "
name: handoff
rules:
  - name: hands-off
    when: {agent: lead, step: 1}
    reply:
      tools: [{name: handoff, arguments: {agent: scout, task: find it}}]
  - name: tells
    when: {agent: lead, tool_result: {tool: handoff, content: '(?<what>found .*)'}}
    reply: {text: 'scout {{capture.what}}'}
  - name: finds
    when: {agent: scout}
    reply: {text: found the thing}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_handoff_comes_back_to_the_one_who_answers() {
    let rig = Rig::start(HANDOFF).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("lead", "Find it.").await.expect("a run");
    let RunEvent::Finished(finished) = rig.end(run).await.expect("an end") else { panic!("it should finish") };
    assert_eq!(finished.answer.preview(), "scout found the thing");
    assert_eq!(finished.totals.model_calls, 3, "a child's calls count with its parent's");
    let handed = rig.wait(run, |event| matches!(event, RunEvent::HandedOff(_))).await.expect("a handoff");
    let RunEvent::HandedOff(handed) = handed else { unreachable!("it was matched") };
    let child = rig.events(handed.child_run_id).await.expect("the child's events");
    let RunEvent::Requested(requested) = &child[0] else { panic!("a run begins with requested") };
    assert_eq!((requested.parent_run_id, requested.root_run_id, requested.depth), (Some(run), run, 1));
    assert!(requested.reply_to.is_none(), "the root answers");
    let texts = child.iter().any(|event| matches!(event, RunEvent::ModelReplied(r) if matches!(&r.content[0], Block::Text { text } if text == "found the thing")));
    assert!(texts);
}

//! A model's answer ends at its limit: its last call is not made, the model is told why, and what it says to people says
//! that the rest is missing.

use nightcrew_tests::rig::Rig;
use schemas::{RunEvent, event::ToolOutcome};

/// A call that was cut is one without arguments: the rehearsal model leaves such a call out.
const SCENARIO: &str = "
name: cut
rules:
  - name: is-cut-in-a-call
    when: {step: 1}
    reply:
      tools:
        - {name: read, arguments: {path: hello.txt}}
        - {name: list, arguments: {}}
      stop: max_tokens
  - name: is-cut-in-a-text
    when: {step: 2, tool_result: {tool: list, content: 'max_output_tokens', is_error: true}}
    reply: {text: All of it is, stop: max_tokens}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_cut_is_not_made_and_an_answer_that_was_cut_says_so() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("scout", "Look at all of it.").await.expect("a run");
    let RunEvent::Finished(finished) = rig.end(run).await.expect("an end") else { panic!("it should finish") };
    let told = "All of it is\n\n(cut at the model's output limit)";
    assert_eq!(finished.answer.preview(), told, "who handed the task on");
    let events = rig.events(run).await.expect("events");
    let said = events.iter().find_map(|event| match event {
        RunEvent::MessageSent(sent) => Some(sent.text.preview()),
        _ => None,
    });
    assert_eq!(said, Some(told), "the room");
    let outcomes: Vec<ToolOutcome> = events
        .iter()
        .filter_map(|event| if let RunEvent::ToolReturned(returned) = event { Some(returned.outcome) } else { None })
        .collect();
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.contains(&ToolOutcome::Ok), "the call before it is made: {outcomes:?}");
    assert!(outcomes.contains(&ToolOutcome::Error), "{outcomes:?}");
}

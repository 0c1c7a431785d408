//! What tools did to files is in the journal: each change with its diff, and the worktree after it.

use kit::{blobs::Blobs, identity::Service};
use nightcrew_tests::rig::Rig;
use schemas::{RunEvent, event::FileChange};

const SCENARIO: &str = "
name: files
rules:
  - name: writes
    when: {agent: coder, step: 1}
    reply:
      tools: [{name: write, arguments: {path: new.txt, content: \"one\\ntwo\\n\"}}]
  - name: reads
    when: {agent: coder, step: 2}
    reply:
      tools: [{name: read, arguments: {path: new.txt}}]
  - name: edits
    when: {agent: coder, step: 3}
    reply:
      tools: [{name: edit, arguments: {path: new.txt, old: two, new: three}}]
  - name: removes
    when: {agent: coder, step: 4}
    reply:
      tools: [{name: shell, arguments: {command: 'rm hello.txt; echo \"*.log\" > .gitignore; echo x > a.log'}}]
  - name: reports
    when: {agent: coder, step: 5}
    reply: {text: done}
";

#[tokio::test(flavor = "multi_thread")]
async fn every_change_of_a_file_is_journaled_with_its_diff_and_the_worktree_saved() {
    let rig = Rig::start(SCENARIO).await.expect("a crew");
    let _runner = rig.runner("disk").await.expect("a runner");
    let run = rig.ask("coder", "Change files.").await.expect("a run");
    let end = rig.end(run).await.expect("an end");
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    let events = rig.events(run).await.expect("events");

    let changes: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            RunEvent::FileChanged(changed) => Some(changed),
            _ => None,
        })
        .collect();
    let seen: Vec<_> = changes.iter().map(|c| (c.path.as_str(), c.change, c.added, c.removed)).collect();
    let expected = [
        ("new.txt", FileChange::Added, 2, 0),
        ("new.txt", FileChange::Modified, 1, 1),
        (".gitignore", FileChange::Added, 1, 0),
        ("hello.txt", FileChange::Deleted, 0, 1),
    ];
    assert_eq!(seen, expected, "what is ignored is left out");
    for (change, line) in changes.iter().zip(["+two\n", "-two\n+three\n", "+*.log\n", "-hello\n"]) {
        assert!(change.diff.preview().contains(line), "{change:?}");
    }

    // In one decision: the changes, the worktree after them, and only then what the tool returned.
    let kinds: Vec<_> = events.iter().map(RunEvent::kind).collect();
    let saved = ["file_changed", "worktree_saved", "tool_returned"];
    assert_eq!(kinds.windows(3).filter(|kinds| *kinds == saved).count(), 3, "{kinds:?}");
    let blobs = Blobs::new(&rig.bus.bus(Service::Nightcrew).await);
    let mut bundles = 0;
    for event in &events {
        if let RunEvent::WorktreeSaved(saved) = event {
            assert_eq!((saved.repository.as_str(), saved.branch.as_str()), ("nightcrew", &*format!("nightcrew/{run}")));
            blobs.get(&saved.bundle).await.expect("a bundle");
            bundles += 1;
        }
    }
    assert_eq!(bundles, 3, "a call that changed nothing saves nothing");
}

//! `runs`, `timeline` and `cancel`.

use std::io::Read as _;

use schemas::{
    AgentName, RunEvent, Signal,
    cli::{FollowedEntry, RunList, Told},
    event::{Cancelled, HandedOff, ToolCalled},
    signal::Delivered,
    timeline::Timeline,
};

use crate::fixture::{Crew, Story, run};

/// Text that would colour a terminal, move its cursor and turn its writing around.
const HOSTILE: &str = "look\u{1b}[31m\u{1b}[2J\u{202e} here\u{9b}1A";

fn delivered(story: &Story) -> Signal {
    Signal::Delivered(Delivered {
        decision_id: story.last_id(),
        channel: "terminal".to_owned(),
        room: "terminal-1".to_owned(),
        external_id: "1".to_owned(),
    })
}

fn harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !c.is_control()) && !text.contains('\u{202e}')
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    let crew = Crew::start().await;
    assert_eq!(crew.run(&["runs"]).await.well(), "no runs\n");
    crew.write(&Story::asked(1, "lead", "find the failing test").started().finished("found")).await;
    crew.write(&Story::asked(2, "scout", "look at it").started()).await;
    crew.write(&Story::asked(3, "lead", HOSTILE)).await;
    crew.summarise().await;

    let text = crew.run(&["runs"]).await.well();
    assert!(harmless(&text), "{text:?}");
    let lines: Vec<_> = text.lines().collect();
    assert!(lines[0].starts_with("RUN") && lines[0].ends_with("TASK"), "{text}");
    assert!(lines[1].starts_with(&run(3).to_string()) && lines[1].contains("requested"), "{text}");
    assert!(lines[2].contains("running"), "{text}");
    assert!(lines[3].contains("finished") && lines[3].ends_with("find the failing test"), "{text}");

    let list = async |args: &[&str]| {
        let list: RunList = crew.run(&[&["runs", "--json"], args].concat()).await.json();
        (list.runs.iter().map(|run| run.run_id).collect::<Vec<_>>(), list.more)
    };
    assert_eq!(list(&[]).await, (vec![run(3), run(2), run(1)], false));
    assert_eq!(list(&["--limit", "2"]).await, (vec![run(3), run(2)], true));
    assert_eq!(list(&["--agent", "scout"]).await, (vec![run(2)], false));
    assert_eq!(list(&["--state", "finished"]).await, (vec![run(1)], false));
    assert_eq!(list(&["--state", "open", "--agent", "lead"]).await, (vec![run(3)], false));
    assert_eq!(list(&["--state", "failed"]).await, (vec![], false));

    let unknown = crew.run(&["runs", "--agent", "nobody"]).await;
    assert_eq!(unknown.code, 2);
    assert!(unknown.err.contains("there is no agent nobody in team.yaml; there are lead, scout"), "{unknown:?}");
}

#[tokio::test]
async fn a_timeline_tells_a_run_that_any_part_of_its_id_names() {
    let crew = Crew::start().await;
    let story = Story::asked(1, "lead", HOSTILE).started().answered("all \u{1b}]0;title\u{7} done");
    crew.write(&story).await;
    crew.summarise().await;
    crew.signal(run(1), &delivered(&story)).await;

    let text = crew.run(&["timeline", &run(1).to_string()]).await.well();
    assert!(harmless(&text), "{text:?}");
    assert!(text.starts_with(&format!("run {}  lead  finished\n", run(1))), "{text}");
    for wanted in
        ["woken by  ada on terminal", "requested", "started", "message_sent", "signal delivered", "nothing is missing"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let prefix = &run(1).to_string()[..6];
    assert_eq!(crew.run(&["timeline", prefix]).await.well(), text);

    let json = crew.run(&["timeline", prefix, "--json", "--tree"]).await;
    assert!(harmless(&json.out), "{json:?}");
    let timeline: Timeline = json.json();
    assert!(timeline.is_complete());
    assert!(serde_json::to_string(&timeline).unwrap().contains("\\u001b]0;title"), "what was said is told as it was");

    let nothing = crew.run(&["timeline", "ffff"]).await;
    assert_eq!((nothing.code, nothing.out.as_str()), (1, ""));
    assert!(nothing.err.contains("no run"), "{nothing:?}");
    assert_eq!(crew.run(&["timeline", "not-an-id"]).await.code, 2);
}

#[tokio::test]
async fn what_is_missing_is_marked_and_counted() {
    let crew = Crew::start().await;
    let called = ToolCalled {
        call_id: "c1".to_owned(),
        step: 1,
        tool: "shell".to_owned(),
        arguments: serde_json::json!({}),
        idempotent: false,
    };
    crew.write(&Story::asked(1, "lead", "find it").started().then(RunEvent::ToolCalled(called)).finished("well")).await;
    crew.write(&Story::asked(2, "lead", "other")).await;
    crew.summarise().await;
    let text = crew.run(&["timeline", &run(1).to_string()]).await.well();
    assert!(text.contains("GAP") && text.contains("1 gap: what is marked GAP"), "{text}");
    let ambiguous = crew.run(&["timeline", "1"]).await;
    assert_eq!(ambiguous.code, 1);
    assert!(
        ambiguous.err.contains(&run(1).to_string()) && ambiguous.err.contains(&run(2).to_string()),
        "{ambiguous:?}"
    );
}

#[tokio::test]
async fn where_no_log_lines_are_kept_a_timeline_says_so() {
    let crew = Crew::start().await;
    let story = Story::asked(1, "lead", "look").started().answered("done");
    crew.write(&story).await;
    crew.summarise().await;
    crew.signal(run(1), &delivered(&story)).await;
    std::fs::remove_dir_all(crew.folder.logs()).unwrap();

    let id = run(1).to_string();
    for args in [&["timeline", &id][..], &["timeline", &id, "--follow"]] {
        let text = crew.run(args).await.well();
        assert!(text.contains("log lines are not stored here") && text.contains("1 gap"), "{text}");
    }
    assert!(!crew.folder.logs().exists(), "who reads makes no store");
}

#[tokio::test]
async fn a_tree_shows_each_child_where_it_was_given_its_task() {
    let crew = Crew::start().await;
    let handed = HandedOff {
        call_id: "c1".to_owned(),
        child_run_id: run(2),
        agent: AgentName::try_new("scout").unwrap(),
        task: "look".into(),
    };
    let story = Story::asked(1, "lead", "find it").started().then(RunEvent::HandedOff(handed)).finished("found");
    crew.write(&story).await;
    crew.write(&Story::asked(2, "scout", "look").started().finished("seen")).await;
    let (parent, child) = (run(1).to_string(), run(2).to_string());
    let text = crew.run(&["timeline", &parent, "--tree"]).await.well();
    let place = |wanted: &str| {
        text.lines().position(|line| line.contains(wanted)).unwrap_or_else(|| panic!("{wanted}: {text}"))
    };
    assert_eq!(place("handed_off") + 1, place(&format!("  │ run {child}  scout  finished")), "{text}");
    assert!(!crew.run(&["timeline", &parent]).await.well().contains('│'));
    let timeline: Timeline = crew.run(&["timeline", &parent, "--tree", "--json"]).await.json();
    assert_eq!(timeline.children.iter().map(|child| child.summary.run_id).collect::<Vec<_>>(), [run(2)]);
}

#[tokio::test]
async fn a_followed_timeline_ends_with_its_run_and_tells_each_thing_once() {
    let crew = Crew::start().await;
    let story = Story::asked(1, "lead", "find it").started();
    crew.write(&story).await;
    let mut following = crew.folder.command(&["timeline", &run(1).to_string(), "--follow", "--json"]);
    let mut following = following.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = following.stdout.take().unwrap();
    // It prints before the run has ended.
    let first = tokio::task::spawn_blocking(move || {
        let mut first = [0; 1];
        out.read_exact(&mut first).unwrap();
        (first, out)
    });
    let (first, mut out) = first.await.unwrap();
    let story = story.answered("found");
    crew.write(&story).await;
    crew.signal(run(1), &delivered(&story)).await;
    let rest = tokio::task::spawn_blocking(move || {
        let mut rest = String::new();
        out.read_to_string(&mut rest).unwrap();
        (rest, following.wait().unwrap())
    });
    let (rest, status) = rest.await.unwrap();
    assert!(status.success());
    let all = format!("{}{rest}", char::from(first[0]));
    let entries: Vec<FollowedEntry> = all.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = entries.iter().map(|followed| followed.entry.kind.as_str()).collect();
    assert_eq!(kinds, ["requested", "started", "message_sent", "finished", "delivered"], "{all}");
}

#[tokio::test]
async fn a_run_is_called_off_by_a_signal_unless_it_has_ended() {
    let crew = Crew::start().await;
    crew.write(&Story::asked(1, "lead", "find it").started()).await;
    let told: Told = crew.run(&["cancel", &run(1).to_string(), "--reason", "wrong room", "--json"]).await.json();
    assert_eq!((told.told[0].what.as_str(), told.told[0].to.as_str()), ("cancel", run(1).to_string().as_str()));
    let signals = kit::journal::Journal::new(&crew.runner).signals(run(1), 1).await.unwrap();
    let [signal] = signals.as_slice() else { panic!("{signals:?}") };
    assert_eq!(signal.envelope.id, told.told[0].id);
    let Signal::Cancel(by) = signal.decode().unwrap() else { panic!("{signal:?}") };
    assert_eq!((by.by.as_str(), by.reason.as_str()), ("ada", "wrong room"));

    let cancelled =
        Cancelled { by: "ada".to_owned(), reason: "no".to_owned(), totals: schemas::event::Totals::default() };
    crew.write(&Story::asked(2, "lead", "find it").started().then(RunEvent::Cancelled(cancelled))).await;
    let again = crew.run(&["cancel", &run(2).to_string()]).await;
    assert_eq!(again.code, 1);
    assert!(again.err.contains("has already ended"), "{again:?}");
    let unknown = crew.run(&["cancel", &run(9).to_string()]).await;
    assert_eq!(unknown.code, 1);
    assert!(unknown.err.contains("is not in the log"), "{unknown:?}");
}

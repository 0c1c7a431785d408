//! Bad input, through every service as `nightcrew up` runs them: what is no message of this version is parked by whoever
//! was to handle it, with the reason; `dead list` shows it, and `dead replay` has it handled once its cause is gone. What
//! can be understood and not be done ends its run with a typed reason instead.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
    time::Duration,
};

use async_nats::HeaderMap;
use kit::{bus::PublishError, class::Classified as _, clock, message::Outgoing};
use rustix::process::{Pid, Signal as Unix, kill_process};
use schemas::{
    AgentName, Class, Decision, Envelope, EventId, RunEvent, RunId, Signal, Subject,
    cli::{DeadList, DeadOutcome, DeadResults, ParkedLetter, Spoken},
    event::{FailReason, Outcome},
    ids::Token,
    signal::Message,
};

use crate::fixture::{Crew, Story, run};

/// What anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Between two looks at what is parked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// More than a message may have.
const TOO_LARGE: usize = 2 << 20;

const SCENARIO: &str = "
name: bad
rules:
  - name: garbage
    when: {last_user: 'case garbage'}
    fault: {kind: garbage}
  - name: cuts
    when: {last_user: 'case malformed'}
    fault: {kind: malformed_frame}
    reply: {text: No.}
  - name: answers
    reply: {text: Understood.}
";

/// `nightcrew up` on the bus of a [`Crew`]; killed when dropped.
struct Up(Child);

impl Up {
    /// Returns once the crew is up. Only `lead` may be woken at the terminal.
    async fn start(crew: &Crew) -> Self {
        let folder = crew.folder.path();
        let team = std::fs::read_to_string(folder.join("team.yaml")).unwrap();
        std::fs::write(folder.join("team.yaml"), team.replace("agents: [lead, scout]", "agents: [lead]")).unwrap();
        std::fs::write(folder.join("scenario.yaml"), SCENARIO).unwrap();
        std::fs::create_dir_all(folder.join(".nightcrew")).unwrap();
        std::os::unix::fs::symlink(crew.bus.identity().dir(), folder.join(".nightcrew/identity")).unwrap();
        let mut command = crew.folder.command(&["up", "--scenario", "scenario.yaml"]);
        let log = std::fs::File::create(folder.join("up.log")).unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let up = Self(child);
        // What it says later goes nowhere, but must not fill the pipe.
        let (said, ready) = tokio::sync::oneshot::channel();
        let reading = tokio::task::spawn_blocking(move || {
            let is_up = lines.by_ref().map_while(Result::ok).any(|line| line.starts_with("the crew of test is up"));
            let _ = said.send(is_up);
            lines.map_while(Result::ok).for_each(drop);
        });
        drop(reading);
        let ready = tokio::time::timeout(PATIENCE, ready).await.expect("it is up in time");
        let log = || std::fs::read_to_string(folder.join("up.log")).unwrap_or_default();
        assert!(ready.unwrap(), "it ended early: {}", log());
        up
    }

    /// Ends it in order.
    fn stop(mut self) {
        let pid = Pid::from_raw(i32::try_from(self.0.id()).unwrap()).unwrap();
        kill_process(pid, Unix::TERM).unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        // One that ended already is no error.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Something that is put on the bus as it is.
struct Bad {
    subject: String,
    headers: Vec<(&'static str, String)>,
    body: String,
    /// Why it is parked.
    code: &'static str,
    /// Who parks it.
    by: &'static [&'static str],
}

/// Whoever reads requests: the runner, and the correlator for its summaries.
const READERS: &[&str] = &["agent-runner", "run-correlator"];

fn request(run: RunId) -> String {
    Subject::Requested(run, Class::Resident, AgentName::try_new("lead").unwrap()).to_string()
}

fn envelope(kind: &str) -> Envelope {
    Envelope::new(EventId::new(clock::uuid7().to_string()), kind, "test", clock::now())
}

fn with(envelope: &Envelope, header: &str, value: &str) -> Vec<(&'static str, String)> {
    let change = |(name, old): (&'static str, String)| (name, if name == header { value.to_owned() } else { old });
    envelope.headers().into_iter().map(change).collect()
}

fn table() -> Vec<Bad> {
    let nothing = r#"{"events":[]}"#;
    let bad =
        |n, headers, body: &str, code, by| Bad { subject: request(run(n)), headers, body: body.to_owned(), code, by };
    let elsewhere = Envelope { run_id: Some(run(99)), ..envelope("decision") };
    let future = with(&envelope("decision"), "ce-dataschema", "urn:nightcrew:schema:decision:7");
    vec![
        bad(11, Vec::new(), "rubbish", "bad_envelope", READERS),
        bad(12, with(&envelope("decision"), "ce-time", "tomorrow"), nothing, "bad_envelope", READERS),
        bad(13, envelope("surprise").headers(), nothing, "unknown_type", READERS),
        bad(14, future, nothing, "future_version", READERS),
        bad(15, elsewhere.headers(), nothing, "other_run", READERS),
        Bad {
            subject: Subject::Signal(run(16), Token::try_new("message").unwrap()).to_string(),
            headers: envelope("message").headers(),
            body: "{".to_owned(),
            code: "unreadable",
            by: &["agent-runner"],
        },
    ]
}

/// What is parked, once it is so many.
async fn parked(crew: &Crew, wanted: usize) -> Vec<ParkedLetter> {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let list: DeadList = crew.run(&["dead", "list", "--json"]).await.json();
        if list.parked.len() >= wanted {
            assert_eq!(list.parked.len(), wanted, "{:#?}", list.parked);
            return list.parked;
        }
        assert!(tokio::time::Instant::now() < deadline, "{wanted} are not parked in time: {:#?}", list.parked);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn replayed(crew: &Crew, number: u64) -> DeadResults {
    crew.run(&["dead", "replay", &number.to_string(), "--json"]).await.json()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_parked_listed_and_still_broken_when_replayed() {
    let crew = Crew::start().await;
    let up = Up::start(&crew).await;
    let table = table();
    let mut expected = BTreeSet::new();
    for Bad { subject, headers, body, code, by } in &table {
        let mut wire = HeaderMap::new();
        for (name, value) in headers {
            wire.insert(*name, value.as_str());
        }
        let sent = crew.runner.jetstream().publish_with_headers(subject.clone(), wire, body.clone().into());
        sent.await.unwrap().await.unwrap();
        expected.extend(by.iter().map(|service| (subject.clone(), (*service).to_owned(), (*code).to_owned())));
    }
    let letters = parked(&crew, expected.len()).await;
    let found = letters.iter().map(|parked| {
        let letter = &parked.letter;
        (letter.subject.clone(), letter.service.clone(), letter.code.clone())
    });
    assert_eq!(found.collect::<BTreeSet<_>>(), expected);
    let text = crew.run(&["dead", "list"]).await.well();
    for Bad { code, .. } in &table {
        assert!(text.contains(code), "{code}: {text}");
    }
    for ParkedLetter { number, letter, .. } in &letters {
        let results = replayed(&crew, *number).await;
        let [result] = results.results.as_slice() else { panic!("{results:?}") };
        assert_eq!(result.result, DeadOutcome::StillParked, "{letter:?}");
        assert!(result.reason.as_ref().is_some_and(|reason| reason.contains(&letter.code)), "{result:?}");
    }
    parked(&crew, letters.len()).await;
    crew.run(&["dead", "drop", "--all"]).await.well();
    parked(&crew, 0).await;
    // The crew works as before.
    let said = crew.run(&["say", "hello"]).await.well();
    assert!(said.contains("Understood."), "{said}");
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_parked_is_handled_once_its_cause_is_gone() {
    let crew = Crew::start().await;
    let up = Up::start(&crew).await;
    // A signal for a run that the log does not have yet.
    let story = Story::asked(1, "lead", "hello");
    crew.signal(story.run, &Signal::Message(Message { from: "ada".to_owned(), text: "faster".into() })).await;
    let letter = parked(&crew, 1).await.remove(0);
    assert_eq!((letter.letter.service.as_str(), letter.letter.code.as_str()), ("agent-runner", "unknown_run"));
    crew.write(&story).await;
    ended(&crew, story.run).await;
    let results = replayed(&crew, letter.number).await;
    assert_eq!(results.results[0].result, DeadOutcome::Handled, "{results:?}");
    parked(&crew, 0).await;
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_can_not_be_routed_is_said_back_and_replayed() {
    let crew = Crew::start().await;
    let up = Up::start(&crew).await;
    let said = crew.run(&["say", "--json", "@scout hello"]).await;
    assert!(said.out.contains("may not be woken in this room"), "{said:?}");
    let letter = parked(&crew, 1).await.remove(0);
    assert_eq!((letter.letter.service.as_str(), letter.letter.code.as_str()), ("chat-bridge", "agent_not_in_room"));
    let subject: Subject = letter.letter.subject.parse().unwrap();
    let results = replayed(&crew, letter.number).await;
    assert_eq!(results.results[0].result, DeadOutcome::Published, "{results:?}");
    let end = ended(&crew, subject.run_id().unwrap()).await;
    assert!(matches!(end, RunEvent::Finished(_)), "{end:?}");
    parked(&crew, 0).await;
    up.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_done_ends_its_run_with_a_typed_reason() {
    let crew = Crew::start().await;
    let up = Up::start(&crew).await;
    crew.write(&Story::asked(1, "nobody", "hello")).await;
    let end = ended(&crew, run(1)).await;
    assert!(matches!(&end, RunEvent::Failed(failed) if failed.reason == FailReason::Unknown), "{end:?}");
    for case in ["garbage", "malformed"] {
        let said = crew.run(&["say", "--json", &format!("The case {case}.")]).await;
        assert_eq!(said.code, 1, "{said:?}");
        let spoken: Vec<Spoken> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let [Spoken::Woken { run_id, .. }, Spoken::Said { text, .. }, Spoken::Ended { outcome: Outcome::Failed, .. }] =
            spoken.as_slice()
        else {
            panic!("{spoken:?}")
        };
        assert!(text.contains("I could not go on"), "{text}");
        let end = ended(&crew, *run_id).await;
        assert!(matches!(&end, RunEvent::Failed(failed) if failed.reason == FailReason::Model), "{end:?}");
    }
    let large = Signal::Message(Message { from: "ada".to_owned(), text: "x".repeat(TOO_LARGE).into() });
    let subject = Subject::Signal(run(1), Token::try_new("message").unwrap());
    let refused = crew.chat.publish(&Outgoing::json(subject, envelope("message"), &large).unwrap()).await.unwrap_err();
    assert!(matches!(refused, PublishError::TooLarge { .. }), "{refused:?}");
    assert_eq!(refused.code(), "message_too_large");
    parked(&crew, 0).await;
    up.stop();
}

/// Waits for the end of a run.
async fn ended(crew: &Crew, run: RunId) -> RunEvent {
    let journal = kit::journal::Journal::new(&crew.runner);
    let look = async {
        loop {
            let messages = journal.read(run, 1).await.unwrap_or_default();
            let decisions = messages.iter().map(|message| message.decode::<Decision>().unwrap());
            let end = decisions.flat_map(|decision| decision.events).find(RunEvent::is_end);
            if let Some(end) = end {
                return end;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, look).await.expect("an end in time")
}

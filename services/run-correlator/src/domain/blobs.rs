//! Which blobs a message names.

use data_encoding::BASE64;
use schemas::dead::DeadLetter;

/// Length of a blob's name: SHA-256 in hex.
const NAME_CHARS: usize = 64;

/// The field of a reference.
const FIELD: &[u8] = b"\"blob\"";

/// The names in the references of a JSON text. It is searched and not decoded, so that references in kinds that this version
/// does not know are found too. A name too many only keeps a blob longer.
pub fn named_in(body: &[u8]) -> impl Iterator<Item = String> {
    body.windows(FIELD.len())
        .enumerate()
        .filter(|(_, window)| *window == FIELD)
        .filter_map(|(at, _)| name(body.get(at + FIELD.len()..)?))
}

/// The names in a parked message. It is kept whole in its letter, and is published again as it is when it is replayed.
pub fn named_in_letter(letter: &[u8]) -> Vec<String> {
    let letter: Option<DeadLetter> = serde_json::from_slice(letter).ok();
    let body = letter.and_then(|letter| BASE64.decode(letter.body.as_bytes()).ok());
    named_in(&body.unwrap_or_default()).collect()
}

fn name(value: &[u8]) -> Option<String> {
    let value = value.trim_ascii_start().strip_prefix(b":")?;
    let value = value.trim_ascii_start().strip_prefix(b"\"")?;
    let (name, rest) = value.split_at_checked(NAME_CHARS)?;
    let is_name = name.iter().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte));
    let name = std::str::from_utf8(name).ok()?;
    (is_name && rest.first() == Some(&b'"')).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use jiff::Timestamp;
    use schemas::{
        AgentName, BlobRef, Class, Decision, EventId, ProjectId, RunEvent, RunId, Text, Trigger, event,
        trigger::ReplyTo,
    };

    use super::*;

    /// Makes references, each to a blob of its own.
    #[derive(Default)]
    struct References(BTreeSet<String>);

    impl References {
        fn blob(&mut self) -> BlobRef {
            let blob = format!("{:064x}", self.0.len() + 1);
            self.0.insert(blob.clone());
            BlobRef { blob, bytes: 1, preview: None }
        }

        fn text(&mut self) -> Text {
            Text::Blob(BlobRef { preview: Some("it says \"blob\": no".into()), ..self.blob() })
        }
    }

    /// Every event that can name a blob, with every blob that it can name.
    fn naming(refs: &mut References) -> Vec<RunEvent> {
        let (run, agent) = (RunId::from_uuid(uuid::Uuid::nil()), AgentName::try_new("coder").unwrap());
        let totals = event::Totals::default();
        let to = ReplyTo { channel: "terminal".into(), room: "r".into(), thread: None };
        let footer = event::Footer { agent: agent.clone(), run_id: run, totals, rehearsal: false };
        vec![
            RunEvent::Requested(Box::new(event::Requested {
                project: ProjectId::try_new("test").unwrap(),
                agent: agent.clone(),
                class: Class::Resident,
                trigger: Trigger::Event { event_id: EventId::new("e") },
                rule: "r".into(),
                prompt: refs.text(),
                context: Some(refs.text()),
                reply_to: Some(to.clone()),
                parent_run_id: None,
                root_run_id: run,
                depth: 0,
                deadline: Timestamp::UNIX_EPOCH,
                work: None,
                state: Some(refs.blob()),
            })),
            RunEvent::ContextLoaded(event::ContextLoaded {
                model: "m".into(),
                context_window: 1,
                system: refs.text(),
                tools: vec![],
            }),
            RunEvent::ToolReturned(event::ToolReturned {
                call_id: "c".into(),
                outcome: event::ToolOutcome::Ok,
                output: refs.text(),
                millis: 1,
            }),
            RunEvent::FileChanged(event::FileChanged {
                call_id: "c".into(),
                path: "p".into(),
                change: event::FileChange::Added,
                added: 1,
                removed: 0,
                diff: refs.text(),
            }),
            RunEvent::WorktreeSaved(event::WorktreeSaved {
                call_id: "c".into(),
                repository: "r".into(),
                branch: "b".into(),
                base: "1".into(),
                head: "2".into(),
                snapshot: "3".into(),
                bundle: refs.blob(),
            }),
            RunEvent::HandedOff(event::HandedOff { call_id: "c".into(), child_run_id: run, agent, task: refs.text() }),
            RunEvent::ChildEnded(event::ChildEnded {
                call_id: "c".into(),
                child_run_id: run,
                outcome: event::Outcome::Finished,
                answer: refs.text(),
                totals,
                work: None,
            }),
            RunEvent::MessageReceived(event::MessageReceived { from: "ada".into(), text: refs.text() }),
            RunEvent::MessageSent(event::MessageSent { to, text: refs.text(), footer }),
            RunEvent::Finished(event::Finished { answer: refs.text(), totals }),
            RunEvent::Archived(event::Archived {
                archive: refs.blob(),
                digest: "d".into(),
                messages: BTreeMap::new(),
                first_sequence: 1,
                last_sequence: 2,
                blobs: None,
            }),
        ]
    }

    /// A kind that is added does not compile here until somebody has looked whether it names a blob.
    const fn names_blobs(event: &RunEvent) -> bool {
        match event {
            RunEvent::Requested(_)
            | RunEvent::ContextLoaded(_)
            | RunEvent::ToolReturned(_)
            | RunEvent::FileChanged(_)
            | RunEvent::WorktreeSaved(_)
            | RunEvent::HandedOff(_)
            | RunEvent::ChildEnded(_)
            | RunEvent::MessageReceived(_)
            | RunEvent::MessageSent(_)
            | RunEvent::Finished(_)
            | RunEvent::Archived(_) => true,
            RunEvent::Started(_)
            | RunEvent::Resumed(_)
            | RunEvent::ModelCalled(_)
            | RunEvent::ModelReplied(_)
            | RunEvent::ModelFailed(_)
            | RunEvent::ToolCalled(_)
            | RunEvent::CodeCommitted(_)
            | RunEvent::ApprovalRequested(_)
            | RunEvent::ApprovalDecided(_)
            | RunEvent::Waiting(_)
            | RunEvent::SignalTaken(_)
            | RunEvent::Failed(_)
            | RunEvent::Killed(_)
            | RunEvent::Cancelled(_)
            | RunEvent::Unknown(_) => false,
        }
    }

    #[test]
    fn every_blob_that_an_event_names_is_found() {
        let mut refs = References::default();
        let events = naming(&mut refs);
        assert!(events.iter().all(names_blobs));
        let body = serde_json::to_vec(&Decision { events }).unwrap();
        assert_eq!(named_in(&body).collect::<BTreeSet<_>>(), refs.0);
    }

    #[test]
    fn what_a_parked_message_names_is_found_in_its_letter() {
        let name = "c".repeat(NAME_CHARS);
        let body = format!(r#"{{"prompt":{{"blob":"{name}","bytes":1}}}}"#);
        let letter = DeadLetter {
            service: "chat-bridge".into(),
            consumer: None,
            code: "c".into(),
            reason: "r".into(),
            subject: "s".into(),
            stream: None,
            sequence: None,
            headers: BTreeMap::new(),
            body: BASE64.encode(body.as_bytes()),
            body_bytes: body.len() as u64,
        };
        assert_eq!(named_in_letter(&serde_json::to_vec(&letter).unwrap()), [name]);
        assert!(named_in_letter(b"no letter").is_empty());
    }

    #[test]
    fn references_are_found_wherever_they_stand() {
        let [a, b] = ["a", "b"].map(|digit| digit.repeat(NAME_CHARS));
        let body = format!(r#"{{"x":[{{"blob":"{a}","bytes":1}}],"kind":"new","y":{{"bytes":2, "blob" : "{b}"}}}}"#);
        assert_eq!(named_in(body.as_bytes()).collect::<Vec<_>>(), [a, b]);
    }

    #[test]
    fn what_is_no_name_is_none() {
        for body in [
            "",
            "\"blob\"",
            "{\"blob\":\"short\"}",
            &format!("{{\"blob\":\"{}\"}}", "z".repeat(NAME_CHARS)),
            &format!("{{\"blob\":\"{}\"}}", "a".repeat(NAME_CHARS + 1)),
        ] {
            assert_eq!(named_in(body.as_bytes()).count(), 0, "{body}");
        }
    }
}

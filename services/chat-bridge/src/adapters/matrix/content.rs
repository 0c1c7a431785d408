//! What the bridge writes into an event.

use matrix_sdk::ruma::{OwnedEventId, events::room::message::TextMessageEventContent};
use schemas::RunId;
use serde_json::{Value, json};

/// The field of an event's content that holds what is said by which run, so that a reader can tell a repeat.
pub const MARKER: &str = "dev.nightcrew.message";

/// Who an event speaks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark<'a> {
    /// The id of what is said.
    pub(super) id: &'a str,
    /// The run that says it.
    pub(super) run_id: Option<RunId>,
}

/// Markdown as a message. `notice` is what bots say that nobody need be called for.
pub(super) fn text(markdown: &str, notice: bool, thread: Option<&OwnedEventId>, mark: Mark<'_>) -> Value {
    let mut content = json!({ "msgtype": if notice { "m.notice" } else { "m.text" }, "body": markdown });
    if let Some(html) = TextMessageEventContent::markdown(markdown).formatted {
        content["format"] = json!("org.matrix.custom.html");
        content["formatted_body"] = json!(html.body);
    }
    finish(content, thread, mark)
}

/// An uploaded text file as a message; `source` is the field that says where it lies.
pub(super) fn file(
    name: &str,
    size: usize,
    source: (&str, Value),
    thread: Option<&OwnedEventId>,
    mark: Mark<'_>,
) -> Value {
    let mut content = json!({
        "msgtype": "m.file", "body": name, "filename": name,
        "info": { "mimetype": "text/markdown", "size": size },
    });
    content[source.0] = source.1;
    finish(content, thread, mark)
}

/// The id of what an event of ours says.
pub(super) fn id_of(content: &Value) -> Option<&str> {
    content[MARKER]["id"].as_str()
}

fn finish(mut content: Value, thread: Option<&OwnedEventId>, mark: Mark<'_>) -> Value {
    // Named in full and empty: names in the text call nobody.
    content["m.mentions"] = json!({});
    content[MARKER] = json!({ "id": mark.id, "run_id": mark.run_id });
    if let Some(root) = thread {
        content["m.relates_to"] = json!({
            "rel_type": "m.thread", "event_id": root,
            "is_falling_back": true, "m.in_reply_to": { "event_id": root },
        });
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_stands_in_its_thread_calls_nobody_and_is_marked() {
        let root = OwnedEventId::try_from("$root").unwrap();
        let content = text("**hi** @room", false, Some(&root), Mark { id: "e/0", run_id: None });
        assert_eq!(content["m.relates_to"]["rel_type"], "m.thread");
        assert_eq!(content["m.relates_to"]["event_id"], "$root");
        assert_eq!(content["m.mentions"], json!({}));
        assert_eq!(content["formatted_body"].as_str().map(str::trim), Some("<strong>hi</strong> @room"));
        assert_eq!(id_of(&content), Some("e/0"));
    }
}

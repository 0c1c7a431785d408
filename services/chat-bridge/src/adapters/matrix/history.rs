//! Events that a sync response left out.

use matrix_sdk::{
    Room,
    deserialized_responses::TimelineEvent,
    room::{IncludeRelations, MessagesOptions, RelationsOptions},
    ruma::{OwnedEventId, UInt, api::Direction, events::relation::RelationType},
};

use super::translate;
use crate::{
    domain::catch_up::{self, Origin},
    ports::ThreadLine,
};

/// Events of one request; Synapse gives no more than a thousand and a hundred is its usual page.
const PAGE: u32 = 100;

/// Events of one gap. More than this in one room while the bridge was away is a flood, and is told as such.
pub(super) const MAX_GAP: usize = 10_000;

/// Events that are looked through in a room without a position.
const MAX_CATCH_UP: usize = 1_000;

/// Messages of a thread that an agent is shown.
const MAX_THREAD: usize = 30;

/// Pages of a thread that are looked through for its beginning or for a message of ours.
const MAX_THREAD_PAGES: usize = 10;

/// Events that are looked through for a message of ours outside any thread.
const MAX_LOOK_BACK: usize = 500;

/// What lies between two points, oldest first.
#[derive(Debug, Default)]
pub(super) struct Gap {
    pub(super) events: Vec<TimelineEvent>,
    /// Whether there was more than [`MAX_GAP`].
    pub(super) cut: bool,
}

/// The events between `since` and `prev_batch`.
pub(super) async fn gap(room: &Room, since: &str, prev_batch: &str) -> matrix_sdk::Result<Gap> {
    let mut walk = Walk::new(room, Some(prev_batch), Some(since));
    let mut events = Vec::new();
    while let Some(page) = walk.page().await? {
        events.extend(page);
        if events.len() >= MAX_GAP {
            events.reverse();
            return Ok(Gap { events, cut: true });
        }
    }
    events.reverse();
    Ok(Gap { events, cut: false })
}

/// Of `newest` and what came before them, the events to take in a room without a position, oldest first.
pub(super) async fn catch_up(
    room: &Room,
    newest: &[TimelineEvent],
    prev_batch: Option<&str>,
    origin: Origin,
) -> matrix_sdk::Result<Vec<TimelineEvent>> {
    let begins = |event: &TimelineEvent| {
        let (mark, at) = translate::mark(event, room.own_user_id());
        catch_up::begins_after(mark, at, origin)
    };
    if let Some(at) = newest.iter().rposition(begins) {
        return Ok(newest[at + 1..].to_vec());
    }
    let mut taken: Vec<TimelineEvent> = newest.iter().rev().cloned().collect();
    if let Some(prev_batch) = prev_batch {
        let mut walk = Walk::new(room, Some(prev_batch), None);
        'pages: while let Some(page) = walk.page().await? {
            for event in page {
                if begins(&event) || taken.len() >= MAX_CATCH_UP {
                    break 'pages;
                }
                taken.push(event);
            }
        }
    }
    taken.reverse();
    Ok(taken)
}

/// What was said in a thread: its root, then its newest messages, oldest first.
pub(super) async fn thread(room: &Room, root: OwnedEventId) -> matrix_sdk::Result<Vec<ThreadLine>> {
    let mut events = Vec::new();
    let mut from = None;
    for _ in 0..MAX_THREAD_PAGES {
        let page = room.relations(root.clone(), in_thread(from)).await?;
        events.extend(page.chunk);
        from = page.next_batch_token;
        if from.is_none() || events.len() >= MAX_THREAD {
            break;
        }
    }
    events.truncate(MAX_THREAD);
    events.push(room.event(&root, None).await?);
    events.reverse();
    Ok(events.iter().filter_map(line).collect())
}

/// The event of ours that carries `id`, in `thread` or else among the newest of the room.
pub(super) async fn find(
    room: &Room,
    thread: Option<&OwnedEventId>,
    id: &str,
) -> matrix_sdk::Result<Option<OwnedEventId>> {
    let is_it = |event: &TimelineEvent| {
        let content: Option<serde_json::Value> = event.raw().get_field("content").ok().flatten();
        content.as_ref().and_then(super::content::id_of) == Some(id)
            && event.sender().as_deref() == Some(room.own_user_id())
    };
    if let Some(root) = thread {
        let mut from = None;
        for _ in 0..MAX_THREAD_PAGES {
            let page = room.relations(root.clone(), in_thread(from)).await?;
            if let Some(found) = page.chunk.iter().find(|event| is_it(event)) {
                return Ok(found.event_id());
            }
            from = page.next_batch_token;
            if from.is_none() {
                break;
            }
        }
        return Ok(None);
    }
    let mut walk = Walk::new(room, None, None);
    let mut seen = 0;
    while let Some(page) = walk.page().await? {
        if let Some(found) = page.iter().find(|event| is_it(event)) {
            return Ok(found.event_id());
        }
        seen += page.len();
        if seen >= MAX_LOOK_BACK {
            break;
        }
    }
    Ok(None)
}

fn in_thread(from: Option<String>) -> RelationsOptions {
    RelationsOptions {
        from,
        dir: Direction::Backward,
        limit: Some(UInt::from(PAGE)),
        include_relations: IncludeRelations::RelationsOfType(RelationType::Thread),
        recurse: false,
    }
}

fn line(event: &TimelineEvent) -> Option<ThreadLine> {
    Some(ThreadLine {
        event_id: event.event_id()?.to_string(),
        sender: event.sender()?.to_string(),
        text: translate::text(event)?,
    })
}

/// Walks a room from new to old.
struct Walk<'a> {
    room: &'a Room,
    from: Option<String>,
    to: Option<String>,
    done: bool,
}

impl<'a> Walk<'a> {
    fn new(room: &'a Room, from: Option<&str>, to: Option<&str>) -> Self {
        Self { room, from: from.map(ToOwned::to_owned), to: to.map(ToOwned::to_owned), done: false }
    }

    /// The next events, newest first; nothing at the end.
    async fn page(&mut self) -> matrix_sdk::Result<Option<Vec<TimelineEvent>>> {
        if self.done {
            return Ok(None);
        }
        let mut options = MessagesOptions::backward().from(self.from.as_deref());
        options.to.clone_from(&self.to);
        options.limit = UInt::from(PAGE);
        let page = self.room.messages(options).await?;
        self.done = page.end.is_none() || page.end == self.from;
        self.from = page.end;
        Ok(Some(page.chunk))
    }
}

//! Events that a sync response left out.

use std::time::Duration;

use matrix_sdk::{
    Error, Room,
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

/// How long one page may take. The SDK goes on for a quarter of an hour where a homeserver answers that it is ill, and what
/// other rooms have would wait meanwhile.
pub(super) const PAGE_WITHIN: Duration = Duration::from_secs(30);

/// The same where it is likely that it is not to be had. A homeserver that is well mostly takes less.
pub(super) const DOUBTFUL_PAGE_WITHIN: Duration = Duration::from_secs(5);

/// Events of one gap. More than this in one room while the bridge was away is a flood, and is told as such.
const MAX_GAP: usize = 10_000;

/// Events that are looked through in a room without a position.
const MAX_CATCH_UP: usize = 1_000;

/// Messages of a thread that an agent is shown.
const MAX_THREAD: usize = 30;

/// Pages of a thread that are looked through for its beginning or for a message of ours.
const MAX_THREAD_PAGES: usize = 10;

/// Events that are looked through for a message of ours outside any thread.
const MAX_LOOK_BACK: usize = 500;

/// The newest events of a room, oldest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Newest<'a> {
    pub(super) events: &'a [TimelineEvent],
    /// Where what came before them ends, when something is left out.
    pub(super) before: Option<&'a str>,
}

/// The events to take, oldest first.
#[derive(Debug)]
pub(super) struct Events {
    pub(super) events: Vec<TimelineEvent>,
    /// How many were looked at, when there are older ones that were not.
    pub(super) cut_at: Option<usize>,
}

impl Events {
    fn of(mut newest_first: Vec<TimelineEvent>, cut_at: Option<usize>) -> Self {
        newest_first.reverse();
        Self { events: newest_first, cut_at }
    }
}

/// `newest`, and what came before them since a position, each page `within` a time.
pub(super) async fn gap(room: &Room, since: &str, newest: Newest<'_>, within: Duration) -> matrix_sdk::Result<Events> {
    let mut taken: Vec<TimelineEvent> = newest.events.iter().rev().cloned().collect();
    if let Some(before) = newest.before {
        let mut walk = Walk::new(room, Some(before), Some(since), within);
        let bound = taken.len() + MAX_GAP;
        while let Some(page) = walk.page().await? {
            taken.extend(page);
            if taken.len() >= bound {
                return Ok(Events::of(taken, Some(MAX_GAP)));
            }
        }
    }
    Ok(Events::of(taken, None))
}

/// Of `newest` and what came before them, the events to take in a room without a position, each page `within` a time.
pub(super) async fn catch_up(
    room: &Room,
    newest: Newest<'_>,
    origin: Origin,
    within: Duration,
) -> matrix_sdk::Result<Events> {
    let begins = |event: &TimelineEvent| {
        let (mark, at) = translate::mark(event, room.own_user_id());
        catch_up::begins_after(mark, at, origin)
    };
    if let Some(at) = newest.events.iter().rposition(begins) {
        return Ok(Events { events: newest.events[at + 1..].to_vec(), cut_at: None });
    }
    let mut taken: Vec<TimelineEvent> = newest.events.iter().rev().cloned().collect();
    if let Some(before) = newest.before {
        let mut walk = Walk::new(room, Some(before), None, within);
        while let Some(page) = walk.page().await? {
            for event in page {
                if begins(&event) {
                    return Ok(Events::of(taken, None));
                }
                if taken.len() >= MAX_CATCH_UP {
                    return Ok(Events::of(taken, Some(MAX_CATCH_UP)));
                }
                taken.push(event);
            }
        }
    }
    Ok(Events::of(taken, None))
}

/// What was said in a thread: its root, then its newest messages, oldest first.
pub(super) async fn thread(room: &Room, root: OwnedEventId) -> matrix_sdk::Result<Vec<ThreadLine>> {
    let mut events = Vec::new();
    let mut from = None;
    for _ in 0..MAX_THREAD_PAGES {
        let page = in_time(room.relations(root.clone(), in_thread(from))).await?;
        events.extend(page.chunk);
        from = page.next_batch_token;
        if from.is_none() || events.len() >= MAX_THREAD {
            break;
        }
    }
    events.truncate(MAX_THREAD);
    events.push(in_time(room.event(&root, None)).await?);
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
            let page = in_time(room.relations(root.clone(), in_thread(from))).await?;
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
    let mut walk = Walk::new(room, None, None, PAGE_WITHIN);
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

/// The outcome of a request, as long as it does not take longer than a page may.
pub(super) fn in_time<T>(
    request: impl Future<Output = matrix_sdk::Result<T>>,
) -> impl Future<Output = matrix_sdk::Result<T>> {
    within(PAGE_WITHIN, request)
}

/// The outcome of a request, as long as it comes within a time.
pub(super) async fn within<T>(
    limit: Duration,
    request: impl Future<Output = matrix_sdk::Result<T>>,
) -> matrix_sdk::Result<T> {
    tokio::time::timeout(limit, request).await.unwrap_or(Err(Error::Timeout))
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
    /// How long a page may take.
    within: Duration,
    done: bool,
}

impl<'a> Walk<'a> {
    fn new(room: &'a Room, from: Option<&str>, to: Option<&str>, within: Duration) -> Self {
        Self { room, from: from.map(ToOwned::to_owned), to: to.map(ToOwned::to_owned), within, done: false }
    }

    /// The next events, newest first; nothing at the end.
    async fn page(&mut self) -> matrix_sdk::Result<Option<Vec<TimelineEvent>>> {
        if self.done {
            return Ok(None);
        }
        let mut options = MessagesOptions::backward().from(self.from.as_deref());
        options.to.clone_from(&self.to);
        options.limit = UInt::from(PAGE);
        let page = within(self.within, self.room.messages(options)).await?;
        self.done = page.end.is_none() || page.end == self.from;
        self.from = page.end;
        Ok(Some(page.chunk))
    }
}

//! The Matrix channel alone, against a real Synapse.

mod behind;
mod receiving;
mod sending;
mod trouble;

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use chat_bridge::{
    adapters::matrix::{self, MARKER, Receiver, Sender, Settings},
    domain::{
        inbound::{Content, IncomingMessage, Kind},
        rules::{Listen, RoomRules, Rules, Senders},
    },
    health::Health,
    ports::{Body, Deliver as _, Outgoing, Receive as _, ReceiveError},
};
use kit::crew::{Login, Matrix, Mode, Room, RoomAddress, SecretRef, UserPattern};
use schemas::AgentName;

use crate::{
    person::{NewRoom, Person},
    synapse::{RateLimits, Synapse},
};

/// Generous: the machine may build something else at the same time.
const WITHIN: Duration = Duration::from_mins(1);

/// A homeserver with the crew's account, a person who is allowed and a room of theirs.
struct World {
    synapse: Synapse,
    folder: tempfile::TempDir,
    password: String,
    ada: Person,
    room: String,
    limit: u32,
    stalled_after: Duration,
}

impl World {
    async fn new(limits: RateLimits, encrypted: bool) -> Self {
        let synapse = Synapse::start_with(limits).await.unwrap();
        let password = synapse.register("crew").await.unwrap();
        let ada = person(&synapse, "ada").await;
        let crew = synapse.user_id("crew");
        let room = NewRoom { name: "work", encrypted, invite: &[&crew], ..NewRoom::default() };
        let room = ada.create_room(room).await.unwrap();
        Self {
            synapse,
            folder: tempfile::tempdir().unwrap(),
            password,
            ada,
            room,
            limit: matrix::TIMELINE_LIMIT,
            stalled_after: matrix::STALLED_AFTER,
        }
    }

    fn crew_id(&self) -> String {
        self.synapse.user_id("crew")
    }

    fn settings(&self) -> Settings {
        let lead = AgentName::try_new("lead").unwrap();
        let password = self.password.clone();
        let rules = RoomRules {
            listen: Listen::All,
            agents: BTreeSet::from([lead.clone()]),
            default_agent: Some(lead.clone()),
        };
        let allow = vec![UserPattern::new("@ada:nightcrew.test"), UserPattern::new("@ben:nightcrew.test")];
        Settings {
            matrix: Matrix {
                homeserver: self.synapse.url(),
                user: self.crew_id(),
                login: Login::Password(SecretRef::Env("PASSWORD".to_owned())),
                rooms: vec![Room {
                    name: "work".to_owned(),
                    address: RoomAddress::Id(self.room.clone()),
                    mode: Mode::All,
                    agents: vec![lead.clone()],
                    default: Some(lead.clone()),
                }],
                allow: allow.clone(),
                audit_room: None,
            },
            rules: Arc::new(Rules {
                senders: Senders::Listed(allow),
                crew: BTreeSet::from([lead]),
                rooms: [("work".to_owned(), rules)].into(),
                account: Vec::new(),
            }),
            folder: self.folder.path().to_owned(),
            env: Arc::new(move |name| (name == "PASSWORD").then(|| password.clone())),
            timeline_limit: self.limit,
            stalled_after: self.stalled_after,
        }
    }

    fn open(&self) -> Bridge {
        Bridge::open(self.settings())
    }
}

struct Bridge {
    receiver: Receiver,
    sender: Sender,
    checks: kit::service::Health,
}

impl Bridge {
    fn open(settings: Settings) -> Self {
        let checks = kit::service::Health::new("chat-bridge");
        let (receiver, sender) = matrix::open(settings, Health::new(checks.clone())).unwrap();
        Self { receiver, sender, checks }
    }

    /// Reads, committing, until a batch meets `done`; gives all messages, the last batch not committed.
    async fn read_until(&mut self, done: impl Fn(&[IncomingMessage]) -> bool) -> Vec<IncomingMessage> {
        let mut all = Vec::new();
        let work = async {
            loop {
                let Ok(batch) = self.receiver.next().await else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                all.extend(batch.messages);
                if done(&all) {
                    return;
                }
                self.receiver.commit(&[]).await.unwrap();
            }
        };
        tokio::time::timeout(WITHIN, work).await.unwrap_or_else(|_| panic!("not read in time"));
        all
    }

    async fn read_texts(&mut self, wanted: &str) -> Vec<String> {
        let messages = self.read_until(|all| texts(all).iter().any(|text| text == wanted)).await;
        texts(&messages)
    }

    async fn commit(&mut self) {
        self.receiver.commit(&[]).await.unwrap();
    }

    /// Sends, as often as it takes until the room is known.
    async fn deliver(&mut self, message: &Outgoing) -> String {
        let deadline = tokio::time::Instant::now() + WITHIN;
        loop {
            match self.sender.deliver(message).await {
                Ok(id) => return id,
                Err(error) if tokio::time::Instant::now() > deadline => panic!("{error:?}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn person(synapse: &Synapse, name: &str) -> Person {
    let password = synapse.register(name).await.unwrap();
    Person::log_in(&synapse.url(), name, &password).await.unwrap()
}

fn texts(messages: &[IncomingMessage]) -> Vec<String> {
    let text = |message: &IncomingMessage| match &message.content {
        Content::Text(text) => Some(text.clone()),
        Content::Other(_) | Content::Nothing => None,
    };
    messages.iter().filter_map(text).collect()
}

fn outgoing(room: &str, thread: Option<&str>, id: &str, text: &str) -> Outgoing {
    Outgoing {
        id: id.to_owned(),
        room: room.to_owned(),
        thread: thread.map(ToOwned::to_owned),
        body: Body::Text(text.to_owned()),
        run_id: None,
        notice: false,
        maybe_sent: false,
    }
}

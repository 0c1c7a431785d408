//! chat-bridge: brings people's rooms and the crew's runs together.
//!
//! Owns the Matrix account and what people may do with it: allow-list, mention rules, threads, footers, the audit room.
//!
//! In: messages of a channel become `swarm.run.<id>.requested.<class>.<agent>`, or the signals `message` and `cancel` for
//! a run that is under way. A channel's position is kept only once that is in the log, and a run's id derives from its
//! message, so a crash at any point replays into the same runs. Out: `swarm.run.*.say.<channel>` becomes a message under
//! an id that derives from the decision, and the signal `delivered` says which one. The end of each run becomes a line
//! in the audit room.
//!
//! # Who is woken
//!
//! The crew speaks with one account. In a room with mode `mention` an agent is woken by its name, `@lead` anywhere or
//! `lead:` at the beginning, and the room's default agent by a mention of the account. With mode `all` every message
//! wakes somebody. With mode `listen` nothing does. A follow-up in a thread that names nobody goes to the agents that the
//! thread's first message named; the agent is given what was said there. An edit wakes whom the original did not, and is
//! otherwise told to the run; taking a message back calls its runs off. Whoever is not on the allow-list is ignored.
//!
//! # What it must never do
//!
//! Acknowledge a channel's message before its consequences are in the log; send twice what was said once; let a channel's
//! name or library into the core: [`ports`] is all that the handlers know of one. Two adapters, Matrix and the terminal,
//! keep that honest.

pub mod adapters;
pub mod config;
pub mod domain;
mod handle;
pub mod health;
pub mod ports;

use std::{sync::Arc, time::Duration};

use kit::{
    bus::Bus,
    consume::{self, Options},
    consumer,
    crew::Crew,
    requester::Requester,
    service::Context,
};

use adapters::{matrix, terminal};
pub use config::Config;
use domain::rules::Rules;
use handle::{Project, audit::Audit, inbound::Inbound, outbound::Outbound};
use health::Health;
use ports::{Deliver, Receive, ReceiveError};

/// Messages to one channel that are sent at once. Rooms are independent, and one homeserver has work for about as many.
const SENDS: usize = 32;

/// Ends that are looked at, at once. Most messages of runs are none and cost nothing.
const AUDITS: usize = 64;

/// How often a message in hand is extended: a third of its consumer's ack wait, because a rate-limited homeserver may take
/// minutes.
const PROGRESS: Duration = Duration::from_secs(10);

/// What the service needs from its surroundings.
#[derive(Debug, Clone)]
pub struct Deps {
    /// The bus, connected as `chat-bridge`.
    pub bus: Bus,
    /// The crew.
    pub crew: Arc<Crew>,
}

/// The service can not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A channel can not be opened.
    #[error("a channel can not be opened")]
    Channel(#[source] ReceiveError),
}

/// Runs the service until `context` ends: every channel that `team.yaml` has.
///
/// It is ready once it has started to listen; whether a channel works is among its checks, and a homeserver that is away
/// does not keep it from starting.
pub async fn run(config: Config, deps: Deps, context: Context) -> Result<(), StartError> {
    let project = Project::new(Arc::clone(&deps.crew), &deps.bus);
    let requester = Requester::start(&deps.bus, &context);
    let start = Start { context: &context, project: &project, requester: &requester };
    let health = Health::new(context.health.clone());
    let env = config.env.clone();
    let lookup: matrix::Lookup = Arc::new(move |name| env.get(name).map(ToOwned::to_owned));
    if let Some(settings) = matrix::Settings::of(&deps.crew, config.folder.join(matrix::CHANNEL), lookup) {
        let rules = Arc::clone(&settings.rules);
        let audit_room = settings.matrix.audit_room.clone();
        let (receiver, sender) = matrix::open(settings, health.clone()).map_err(StartError::Channel)?;
        if let Some(room) = audit_room {
            start.audit(Audit::new(project.clone(), sender.clone(), room));
        }
        start.channel(receiver, sender, rules, &health);
    }
    if deps.crew.channels.terminal.is_some() {
        let rules = Arc::new(Rules::terminal(&deps.crew));
        let (receiver, sender) = (terminal::Receiver::new(&deps.bus), terminal::Sender::new(&deps.bus));
        start.channel(receiver, sender, rules, &health);
    }
    context.ready();
    context.shutdown.cancelled().await;
    Ok(())
}

/// Starts the tasks of the service.
struct Start<'a> {
    context: &'a Context,
    project: &'a Project,
    requester: &'a Requester,
}

impl Start<'_> {
    /// Both directions of a channel.
    fn channel<R, D>(&self, receiver: R, sender: D, rules: Arc<Rules>, health: &Health)
    where
        R: Receive + 'static,
        D: Deliver + Clone + 'static,
    {
        let channel = receiver.name();
        let outbound = Outbound { project: self.project.clone(), sender: sender.clone() };
        if let Some(said) = consumer::chat(channel) {
            let options = Options { max_in_flight: SENDS, progress_every: Some(PROGRESS) };
            consume::spawn(self.context, &self.project.bus, said, options, move |delivery| {
                let outbound = outbound.clone();
                async move { outbound.handle(delivery).await }
            });
        }
        let inbound = Inbound {
            project: self.project.clone(),
            requester: self.requester.clone(),
            rules,
            receiver,
            sender,
            health: health.clone(),
            context: self.context.clone(),
        };
        self.context.spawn_vital(channel, inbound.run());
    }

    /// The audit room.
    fn audit<D: Deliver + Clone + 'static>(&self, audit: Audit<D>) {
        let options = Options { max_in_flight: AUDITS, progress_every: Some(PROGRESS) };
        consume::spawn(self.context, &self.project.bus, consumer::CHAT_AUDIT, options, move |delivery| {
            let audit = audit.clone();
            async move { audit.handle(delivery).await }
        });
    }
}

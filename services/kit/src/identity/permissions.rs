//! Who may say and hear what on the bus: the one table behind every user's permissions.
//!
//! It restates design.md section 3 as NATS subjects, a line a right. A subject that is not in the table
//! is refused by the server. What it can not say: whoever may publish into a stream's account can have a
//! stored message forged by naming a foreign reply subject for the stream's ack, and may let a push
//! consumer deliver to any subject. Services are trusted that far; agents therefore have no user at all.
//!
//! NATS has no pattern inside a token, so "consumers whose name starts with mine" can not be said. Instead
//! `consumer::ALL` lists the durable ones with their owners: an owner may ack what they deliver, and all
//! others are denied them by name. Consumers of any other name are for reading without acks.

use std::time::Duration;

use schemas::subject::filter;

use super::service::Service;
use crate::consumer::{self, Durable};

/// How long after a request a reply may be published by who got it: ten times what any ask may take.
const RESPONSE_WINDOW: Duration = Duration::from_mins(1);

/// Replies to one request: the answer, and room for one that is repeated.
const RESPONSES_PER_REQUEST: u32 = 2;

/// Subjects allowed and denied; a denial wins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Allowed subjects, wildcards included. Empty means all, which no user here has.
    pub allow: Vec<String>,
    /// Exceptions from `allow`.
    pub deny: Vec<String>,
}

/// Leave to answer a request at whatever inbox it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Responses {
    /// Messages per request.
    pub max_messages: u32,
    /// Time after the request.
    pub within: Duration,
}

/// All that a user may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// What it may publish or ask.
    pub publish: Rule,
    /// What it may subscribe to.
    pub subscribe: Rule,
    /// Whether it may answer requests.
    pub responses: Option<Responses>,
}

/// The names of a service's durable consumers. Nobody else may create, read, change, delete or ack them.
pub fn durables(service: Service) -> Vec<&'static str> {
    owned(service).map(|durable| durable.name).collect()
}

fn owned(service: Service) -> impl Iterator<Item = Durable> {
    consumer::ALL.into_iter().filter(move |durable| durable.owner == service)
}

/// What `service` may do on the bus.
pub fn permissions(service: Service) -> Permissions {
    let mut grant = Grant::of(service);
    match service {
        Service::AgentRunner => agent_runner(&mut grant),
        Service::BudgetProxy => budget_proxy(&mut grant),
        Service::ChatBridge => chat_bridge(&mut grant),
        Service::Issuer => issuer(&mut grant),
        Service::RunCorrelator => run_correlator(&mut grant),
        Service::Nightcrew => nightcrew(&mut grant),
        Service::Setup => setup(&mut grant),
    }
    grant.finish(service)
}

fn agent_runner(grant: &mut Grant) {
    grant
        // The journal of what it holds, and the first message of children and woken agents.
        .publish("swarm.run.>")
        // `child_ended` to a parent, `retry`, `deadline` and its like.
        .publish("swarm.signal.>")
        // Public facts: `task_done`, `code_committed`, ...
        .publish("swarm.events.>")
        // Deadlines and expiries that it asserts from `waiting` events.
        .publish("swarm.schedule.at.*")
        // What it could not handle.
        .publish("swarm.dead.>")
        // The bearer of a run, which only it may have minted.
        .publish("swarm.ask.issuer.mint")
        // Takeover: ask the holder, and answer as the holder (same user, same inbox).
        .publish("swarm.hold.*")
        .publish("_INBOX.agent-runner.>")
        .subscribe("swarm.hold.*")
        // Nudges for what is held; the log decides.
        .subscribe("swarm.signal.>")
        .subscribe("swarm.control.>")
        .serves("agent-runner")
        // Wakes, signals, commands of people, due ticks, and budgets' and credentials' facts.
        .reads("SWARM")
        .reads("CONTROL")
        .reads("SCHEDULES")
        .reads("MEMORY")
        // Who serves which agent; the first sequence of a run.
        .writes_bucket("agents")
        .reads_bucket("runs")
        .reads_bucket("memory")
        .reads_bucket("budgets")
        // Contexts, diffs and worktree snapshots.
        .writes_objects("blobs");
}

fn budget_proxy(grant: &mut Grant) {
    grant
        // Each call as seen on the wire.
        .publish("swarm.call.*")
        // Reservations and settlements.
        .publish("swarm.ledger.>")
        // Counters for display.
        .publish("swarm.usage.>")
        .publish("swarm.dead.>")
        // Whose signature a bearer carries.
        .publish("swarm.ask.issuer.keys")
        .serves("budget-proxy")
        // Live epochs are folded from the log.
        .reads("SWARM")
        .reads("CONTROL")
        .reads("LEDGER")
        .reads("USAGE")
        // Kept replies, by idempotency key.
        .writes_bucket("replies")
        // It lives in memory: after a restart of the server it has to be made anew.
        .publish("$JS.API.STREAM.CREATE.KV_replies")
        .writes_bucket("budgets")
        // Replies too large for a bucket.
        .writes_objects("blobs");
}

fn chat_bridge(grant: &mut Grant) {
    grant
        // A message that wakes an agent.
        .publish("swarm.run.*.requested.>")
        // What people say to a run that goes on, and whether the room has its answer.
        .publish("swarm.signal.*.delivered")
        .publish("swarm.signal.*.undelivered")
        .publish("swarm.signal.*.message")
        .publish("swarm.signal.*.approval_decided")
        .publish("swarm.signal.*.cancel")
        .publish("swarm.signal.*.retry")
        .publish("swarm.dead.>")
        // What is said at a terminal, to whoever sits there.
        .publish("swarm.ask.nightcrew.*")
        .serves("chat-bridge")
        // What to say, and run ends for the audit room.
        .reads("SWARM")
        .reads("AUDIT")
        // Names for mentions; figures for footers.
        .reads_bucket("agents")
        .reads_bucket("runs")
        // Attachments in, long answers out.
        .writes_objects("blobs");
}

fn issuer(grant: &mut Grant) {
    grant
        // Mint and publish keys.
        .serves("issuer");
}

fn run_correlator(grant: &mut Grant) {
    grant
        // `archived`, appended last to an ended run.
        .publish("swarm.run.*.event")
        // The purge below it, which the archive precedes.
        .publish("$JS.API.STREAM.PURGE.SWARM")
        // Blobs that nothing names are swept.
        .publish("$JS.API.STREAM.PURGE.OBJ_blobs")
        .publish("swarm.dead.>")
        .serves("run-correlator")
        // The whole story.
        .reads("SWARM")
        .reads("CONTROL")
        .reads("SCHEDULES")
        .reads("MEMORY")
        .reads("USAGE")
        .reads("AUDIT")
        .reads("DEAD")
        // Summaries, and the archives and contents they lead to.
        .writes_bucket("runs")
        .reads_bucket("agents")
        .writes_objects("blobs");
}

fn nightcrew(grant: &mut Grant) {
    grant
        // `say` and `retry` start runs, also by replaying what was parked.
        .publish("swarm.run.*.requested.>")
        .publish("swarm.signal.*.cancel")
        // What a person said to a run and was parked, replayed.
        .publish("swarm.signal.*.message")
        // `pause`, `resume`, `stop`.
        .publish("swarm.control.>")
        .publish("swarm.dead.>")
        // Questions to services; never `issuer.mint`.
        .publish("swarm.ask.issuer.keys")
        .publish("swarm.ask.issuer.health")
        .publish("swarm.ask.agent-runner.*")
        .publish("swarm.ask.budget-proxy.*")
        .publish("swarm.ask.chat-bridge.*")
        .publish("swarm.ask.run-correlator.*")
        .serves("nightcrew")
        // Watch what happens, live.
        .subscribe("swarm.run.>")
        .reads("SWARM")
        .reads("CONTROL")
        .reads("LEDGER")
        .reads("SCHEDULES")
        .reads("MEMORY")
        .reads("USAGE")
        .reads("AUDIT")
        .reads("DEAD")
        // `dead drop`, and `dead replay` after it has published again.
        .publish("$JS.API.STREAM.MSG.DELETE.DEAD")
        // `doctor` and `rebuild`: what there is, and projections emptied to be folded anew.
        .publish("$JS.API.STREAM.NAMES")
        .publish("$JS.API.STREAM.LIST")
        .publish("$JS.API.STREAM.INFO.*")
        .publish("$JS.API.CONSUMER.NAMES.*")
        .publish("$JS.API.CONSUMER.LIST.*")
        .publish("$JS.API.STREAM.PURGE.KV_runs")
        .publish("$JS.API.STREAM.PURGE.KV_agents")
        .publish("$JS.API.STREAM.PURGE.KV_memory")
        .publish("$JS.API.STREAM.PURGE.KV_budgets")
        // `rebuild` folds the log into it.
        .writes_bucket("runs")
        .reads_bucket("agents")
        .reads_bucket("memory")
        .reads_bucket("budgets")
        .writes_objects("blobs");
}

fn setup(grant: &mut Grant) {
    grant
        // Streams and buckets, made and upgraded. Not deleted: no code of ours ever needs to.
        .publish("$JS.API.STREAM.CREATE.*")
        .publish("$JS.API.STREAM.UPDATE.*")
        .publish("$JS.API.STREAM.INFO.*")
        .publish("$JS.API.STREAM.NAMES")
        .publish("$JS.API.STREAM.LIST")
        // Durable consumers, declared at the same place.
        .publish("$JS.API.CONSUMER.CREATE.>")
        .publish("$JS.API.CONSUMER.DURABLE.CREATE.>")
        .publish("$JS.API.CONSUMER.INFO.*.*")
        .publish("$JS.API.CONSUMER.NAMES.*")
        .publish("$JS.API.CONSUMER.LIST.*");
}

/// Collects the rights of one user.
struct Grant {
    permissions: Permissions,
}

impl Grant {
    /// What everybody has: replies of its own, the limits of its account, and to say what it decided.
    fn of(service: Service) -> Self {
        let mut grant = Self { permissions: Permissions::default() };
        grant
            .subscribe(&format!("{}.>", service.inbox_prefix()))
            .publish("$JS.API.INFO")
            .publish(&format!("swarm.audit.{service}"));
        grant
    }

    fn publish(&mut self, subject: &str) -> &mut Self {
        self.permissions.publish.allow.push(subject.to_owned());
        self
    }

    fn subscribe(&mut self, subject: &str) -> &mut Self {
        self.permissions.subscribe.allow.push(subject.to_owned());
        self
    }

    /// Answers `swarm.ask.<name>.<operation>`.
    fn serves(&mut self, name: &str) -> &mut Self {
        self.permissions.responses = Some(Responses { max_messages: RESPONSES_PER_REQUEST, within: RESPONSE_WINDOW });
        self.subscribe(&filter::asks(name))
    }

    /// Reads a stream by consumers and by direct get.
    ///
    /// A consumer without a name is asked for on a subject without one, and the request's body may then name, and
    /// so take over, anybody's (tried). Streams that have durable consumers therefore want a name: `reader_name`.
    fn reads(&mut self, stream: &str) -> &mut Self {
        if !consumer::ALL.iter().any(|durable| durable.stream == stream) {
            self.publish(&format!("$JS.API.CONSUMER.CREATE.{stream}"));
        }
        self.publish(&format!("$JS.API.STREAM.INFO.{stream}"))
            .publish(&format!("$JS.API.STREAM.MSG.GET.{stream}"))
            .publish(&format!("$JS.API.DIRECT.GET.{stream}"))
            .publish(&format!("$JS.API.DIRECT.GET.{stream}.>"))
            .publish(&format!("$JS.API.CONSUMER.CREATE.{stream}.>"))
            .publish(&format!("$JS.API.CONSUMER.INFO.{stream}.*"))
            .publish(&format!("$JS.API.CONSUMER.DELETE.{stream}.*"))
            .publish(&format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"))
            .publish(&format!("$JS.FC.{stream}.>"))
    }

    fn reads_bucket(&mut self, bucket: &str) -> &mut Self {
        self.reads(&format!("KV_{bucket}"))
    }

    fn writes_bucket(&mut self, bucket: &str) -> &mut Self {
        self.reads_bucket(bucket).publish(&format!("$KV.{bucket}.>"))
    }

    fn writes_objects(&mut self, bucket: &str) -> &mut Self {
        self.reads(&format!("OBJ_{bucket}")).publish(&format!("$O.{bucket}.>"))
    }

    /// Adds the acks of its own durable consumers, and denies those of all others.
    fn finish(mut self, service: Service) -> Permissions {
        for durable in owned(service) {
            self.publish(&format!("$JS.ACK.{}.{}.>", durable.stream, durable.name));
        }
        if service == Service::Setup {
            return self.permissions;
        }
        let foreign = consumer::ALL.into_iter().filter(|durable| durable.owner != service);
        for Durable { name, stream, .. } in foreign {
            // CREATE, INFO, DELETE, PAUSE, ...
            self.deny(format!("$JS.API.CONSUMER.*.{stream}.{name}"));
            self.deny(format!("$JS.API.CONSUMER.CREATE.{stream}.{name}.>"));
            self.deny(format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{name}"));
        }
        self.permissions
    }

    fn deny(&mut self, subject: String) {
        self.permissions.publish.deny.push(subject);
    }
}

/// The user of the system account: pushes account JWTs, as revocations need, and reads the answers.
pub(super) fn system_user() -> Permissions {
    Permissions {
        publish: Rule { allow: vec!["$SYS.REQ.CLAIMS.UPDATE".to_owned()], deny: Vec::new() },
        subscribe: Rule { allow: vec!["_INBOX.system.>".to_owned()], deny: Vec::new() },
        responses: None,
    }
}

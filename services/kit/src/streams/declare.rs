//! What each stream and bucket is.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use schemas::subject::filter;

/// How long a kept model reply answers a repeat: a runner that was lost during a call is replaced within seconds.
pub const REPLIES_TTL: Duration = Duration::from_mins(10);

/// Window within which a stream knows a message id again. A journal does not need it, for it expects sequences;
/// signals and parked messages do, over a restart of their writer.
const DUPLICATE_WINDOW: Duration = Duration::from_mins(5);

/// How long the registry of agents shows that an entry has expired: whoever watches it sees that within a second.
const MARKER_TTL: Duration = Duration::from_mins(1);

const MIB: i64 = 1024 * 1024;

/// People's commands must find room when everything else is full.
const CONTROL_BYTES: i64 = 64 * MIB;

/// Commands to one target that are kept. Only the last one counts; some before it tell a person how it came to that. Without
/// this bound a crew that is paused and resumed for years would at last refuse a stop.
const CONTROLS_OF_A_TARGET: i64 = 64;

/// Money must be bookable when everything else is full.
const LEDGER_BYTES: i64 = 256 * MIB;

/// Some hundred parked messages of the largest size.
const DEAD_BYTES: i64 = 256 * MIB;

/// Kept replies, in memory: some hundred large ones, which is more calls than are under way at once.
const REPLIES_BYTES: i64 = 64 * MIB;

/// Sizes that depend on where the bus stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamOptions {
    /// How many servers hold each message.
    pub replicas: usize,
    /// Room of the log. At 60 % ended runs are archived, at 80 % new runs are refused.
    pub swarm_max_bytes: u64,
    /// Room for blobs and archives.
    pub blobs_max_bytes: u64,
}

impl StreamOptions {
    /// One server on a person's machine: what a laptop's disk can spare, and some million events.
    pub const fn single_node() -> Self {
        Self { replicas: 1, swarm_max_bytes: 2 << 30, blobs_max_bytes: 4 << 30 }
    }
}

/// All streams and buckets.
pub(super) fn streams(options: &StreamOptions) -> Vec<Config> {
    let mut streams = logs(options);
    streams.extend(buckets());
    streams.push(blobs(options));
    for stream in &mut streams {
        stream.num_replicas = options.replicas;
    }
    streams
}

fn logs(options: &StreamOptions) -> Vec<Config> {
    let discard_new = |config| Config { discard: DiscardPolicy::New, ..config };
    vec![
        discard_new(Config {
            max_bytes: bytes(options.swarm_max_bytes),
            allow_atomic_publish: true,
            allow_message_ttl: true,
            ..log("SWARM", &[filter::RUNS, filter::SIGNALS, filter::EVENTS, filter::CALLS])
        }),
        discard_new(Config {
            max_bytes: CONTROL_BYTES,
            max_messages_per_subject: CONTROLS_OF_A_TARGET,
            ..log("CONTROL", &[filter::CONTROLS])
        }),
        discard_new(Config { max_bytes: LEDGER_BYTES, allow_atomic_publish: true, ..log("LEDGER", &[filter::LEDGER]) }),
        // A stream that discards new messages can not hold schedules.
        Config {
            allow_message_schedules: true,
            allow_message_ttl: true,
            // A definition that is asserted again replaces the one before.
            allow_rollup: true,
            ..log("SCHEDULES", &[filter::SCHEDULES])
        },
        discard_new(log("MEMORY", &[filter::MEMORY])),
        Config { allow_message_counter: true, ..log("USAGE", &[filter::USAGE]) },
        discard_new(Config { deny_delete: true, deny_purge: true, ..log("AUDIT", &[filter::AUDIT]) }),
        discard_new(Config { max_bytes: DEAD_BYTES, ..log("DEAD", &[filter::DEAD]) }),
    ]
}

fn buckets() -> Vec<Config> {
    let mut buckets: Vec<_> = ["memory", "runs", "budgets"].into_iter().map(bucket).collect();
    // Who is there now: what is not said again expires, and whoever watches is told.
    buckets.push(Config { allow_message_ttl: true, subject_delete_marker_ttl: Some(MARKER_TTL), ..bucket("agents") });
    // On one server until it is known on how many.
    buckets.push(replies(1));
    buckets
}

/// The bucket of kept replies. When it is full the oldest go before their time: a call that has just been made is the likeliest
/// to be asked for again.
pub(super) fn replies(replicas: usize) -> Config {
    Config {
        storage: StorageType::Memory,
        max_age: REPLIES_TTL,
        max_bytes: REPLIES_BYTES,
        discard: DiscardPolicy::Old,
        num_replicas: replicas,
        ..bucket("replies")
    }
}

/// A key-value bucket as NATS' clients know it: the last value of each key.
fn bucket(name: &str) -> Config {
    Config {
        subjects: vec![format!("$KV.{name}.>")],
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        ..plain(&format!("KV_{name}"))
    }
}

/// The object store, as NATS' clients know it.
fn blobs(options: &StreamOptions) -> Config {
    Config {
        subjects: vec!["$O.blobs.C.>".to_owned(), "$O.blobs.M.>".to_owned()],
        max_bytes: bytes(options.blobs_max_bytes),
        discard: DiscardPolicy::New,
        allow_rollup: true,
        ..plain("OBJ_blobs")
    }
}

fn log(name: &str, subjects: &[&str]) -> Config {
    Config { subjects: subjects.iter().map(|&subject| subject.to_owned()).collect(), ..plain(name) }
}

/// No limits but those that are added, and every default spelled out, so that what the server says can be compared.
fn plain(name: &str) -> Config {
    Config {
        name: name.to_owned(),
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        duplicate_window: DUPLICATE_WINDOW,
        allow_direct: true,
        ..Config::default()
    }
}

fn bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

//! What `up` and `service` are set to: the environment over the user's settings file over defaults, read at once, so that
//! every mistake is told at once.
//!
//! `NIGHTCREW_PROXY_LISTEN` is `proxy_listen`, or `listen` under `proxy`, in `$XDG_CONFIG_HOME/nightcrew/config.yaml`. What a
//! command's own options say goes first.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use kit::{
    config::{Effective, Env, FileValues, Reader},
    dirs,
    streams::StreamOptions,
    telemetry::TelemetryConfig,
};

use crate::project::Project;

/// The user's settings, below the folder of settings.
const FILE: &str = "config.yaml";

/// The settings in force.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Log lines.
    pub(crate) telemetry: TelemetryConfig,
    /// A rehearsal model.
    pub(crate) rehearsal: rehearsal::Config,
    /// Where the crew's own budget-proxy listens.
    pub(crate) proxy_listen: SocketAddr,
    /// Where one is that runs elsewhere.
    pub(crate) proxy_url: Option<String>,
    /// Where a rehearsal model is that runs elsewhere.
    pub(crate) rehearsal_url: Option<String>,
    /// Worktrees. They can be lost at any time, and two runners on one disk may share repositories.
    pub(crate) worktrees: PathBuf,
    /// Sizes of what is in the bus.
    pub(crate) streams: StreamOptions,
    /// All of it, for people.
    pub(crate) effective: Effective,
}

impl Settings {
    /// Reads them for `service` of `project`.
    pub(crate) fn read(project: &Project, service: &str) -> anyhow::Result<Self> {
        let (env, file) = (Env::from_process(), file()?);
        let mut reader = Reader::new(&env, &file);
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let small = StreamOptions::single_node();
        let settings = (
            TelemetryConfig::read(&mut reader, service, Some(project.state("logs"))),
            rehearsal::Config::read(&mut reader),
            reader.value("PROXY_LISTEN", "a socket address like 127.0.0.1:0", free),
            url(&mut reader, "PROXY_URL"),
            url(&mut reader, "REHEARSAL_URL"),
            reader.path("WORKTREES", &project.state("worktrees")),
            StreamOptions {
                replicas: reader.value(
                    "REPLICAS",
                    "the number of servers that hold each message: 1, 3 or 5",
                    small.replicas,
                ),
                swarm_max_bytes: reader.value("LOG_BYTES", "bytes for the log of runs", small.swarm_max_bytes),
                blobs_max_bytes: reader.value("BLOBS_BYTES", "bytes for blobs and archives", small.blobs_max_bytes),
            },
        );
        let (settings, effective) = reader.finish(Some(settings))?;
        let (telemetry, rehearsal, proxy_listen, proxy_url, rehearsal_url, worktrees, streams) = settings;
        Ok(Self { telemetry, rehearsal, proxy_listen, proxy_url, rehearsal_url, worktrees, streams, effective })
    }

    /// Says what is in force, once.
    pub(crate) fn tell(&self) {
        let settings = self.effective.to_string();
        tracing::info!("settings: {}", settings.replace('\n', ", "));
    }
}

fn file() -> anyhow::Result<FileValues> {
    let path = dirs::config_dir()?.join(FILE);
    if path.exists() { Ok(FileValues::load(&path)?) } else { Ok(FileValues::default()) }
}

/// An empty one is none.
fn url(reader: &mut Reader<'_>, name: &str) -> Option<String> {
    reader.optional(name, "a URL like http://127.0.0.1:8080").filter(|url: &String| !url.is_empty())
}

//! The text of `nats-server.conf`.
//!
//! All paths in it are relative, so the server's working directory is its state directory and a moved
//! project still starts. JWTs are inlined: the file is complete in itself.

use std::fmt::Write as _;
use std::path::Path;

use super::Identity;
use super::files::{self, FileError};

/// Largest message. Bodies over 64 KiB go to the object store in chunks of 128 KiB; the rest is for batches'
/// headers and bucket values.
const MAX_PAYLOAD: usize = 1024 * 1024;

/// Size at which the server starts a new log file, and how many it keeps.
const LOG_BYTES: usize = 10 * 1024 * 1024;
const LOG_FILES: usize = 3;

/// The JWTs that a server needs to know at its first start.
pub(super) struct Accounts<'a> {
    pub(super) operator: &'a str,
    pub(super) system_account: (&'a str, &'a str),
    pub(super) project_account: (&'a str, &'a str),
}

impl Accounts<'_> {
    /// Whom the server trusts.
    pub(super) fn trust(&self) -> String {
        format!("operator: \"{}\"\nsystem_account: \"{}\"\n", self.operator, self.system_account.0)
    }

    /// The accounts that it knows from the start.
    pub(super) fn preload(&self) -> String {
        let [(system_key, system_jwt), (project_key, project_jwt)] = [self.system_account, self.project_account];
        format!("resolver_preload {{\n  {system_key}: \"{system_jwt}\"\n  {project_key}: \"{project_jwt}\"\n}}\n")
    }
}

/// One of several servers that form a cluster on loopback.
#[derive(Clone, Debug)]
pub struct ClusterNode<'a> {
    /// Its name, unique in the cluster.
    pub server_name: &'a str,
    /// The cluster's name.
    pub cluster_name: &'a str,
    /// The port on which the others reach it.
    pub route_port: u16,
    /// The route ports of all of them, its own included or not.
    pub routes: &'a [u16],
}

pub(super) fn single_node(accounts: &Accounts<'_>) -> String {
    render("nightcrew", accounts, "")
}

/// The configuration of one node of a cluster on loopback, for the accounts of `identity`.
pub fn cluster_config(identity: &Identity, node: &ClusterNode<'_>) -> Result<String, FileError> {
    let read = |name: &str| files::read(&identity.dir.join(Path::new(name)));
    let operator = read("operator.jwt")?;
    let system = read("accounts/system.jwt")?;
    let project = read("accounts/project.jwt")?;
    let accounts = Accounts {
        operator: &operator,
        system_account: (&identity.manifest.system_account, &system),
        project_account: (&identity.manifest.account, &project),
    };
    let mut cluster = format!(
        "\ncluster {{\n  name: \"{}\"\n  listen: \"127.0.0.1:{}\"\n  routes: [",
        node.cluster_name, node.route_port
    );
    for port in node.routes.iter().filter(|port| **port != node.route_port) {
        let _ = write!(cluster, "\"nats://127.0.0.1:{port}\", ");
    }
    cluster.push_str("]\n}\n");
    Ok(render(node.server_name, &accounts, &cluster))
}

fn render(server_name: &str, accounts: &Accounts<'_>, cluster: &str) -> String {
    let (trust, preload) = (accounts.trust(), accounts.preload());
    format!(
        r#"# Written by `nightcrew init` and again by each later one: changes made here are lost.
# Start it by `nightcrew up`, or in a folder of its own: nats-server -c /path/to/this/file

server_name: "{server_name}"

# Loopback only, on a free port that is found in the ports file.
listen: "127.0.0.1:-1"
ports_file_dir: "."
log_file: "nats-server.log"
logfile_size_limit: {LOG_BYTES}
logfile_max_num: {LOG_FILES}
max_payload: {MAX_PAYLOAD}

jetstream {{
  store_dir: "jetstream"
  # An acknowledged append survives a power cut. The server's default syncs every two minutes.
  sync_interval: always
}}

{trust}
# A full resolver keeps what is pushed to it, so that a revocation needs no restart.
resolver {{
  type: full
  dir: "resolver"
  allow_delete: false
}}
{preload}{cluster}"#
    )
}

//! Tells when a started server answers clients, and where.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;

use super::LOOK_EVERY;
use super::child::{Child, Exit};

/// What is shown of a server's log when it fails.
const TAIL_BYTES: usize = 4 * 1024;

/// Time for one server to greet one connection.
const GREETING_WITHIN: Duration = Duration::from_secs(5);

/// Where a server listens.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) address: SocketAddr,
    pub(super) version: String,
}

/// Why a server did not get ready.
pub(super) enum Problem {
    Ended(Exit),
    Late,
}

/// The part of the server's ports file that is read.
#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

/// The part of the server's greeting that is read.
#[derive(Deserialize)]
struct Info {
    version: String,
}

/// Removes the ports files of servers that were killed.
pub(super) fn forget_ports(state_dir: &Path) {
    let Ok(entries) = fs::read_dir(state_dir) else {
        return;
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_some_and(|extension| extension == "ports") {
            let _ = fs::remove_file(path);
        }
    }
}

pub(super) async fn wait(state_dir: &Path, child: &mut Child, within: Duration) -> Result<Endpoint, Problem> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(exit) = child.ended() {
            return Err(Problem::Ended(exit));
        }
        if let Some(address) = listening(state_dir)
            && let Some(version) = greeting(address).await
        {
            return Ok(Endpoint { address, version });
        }
        if Instant::now() > deadline {
            return Err(Problem::Late);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// The client address from the ports file, once the server has written all of it.
fn listening(state_dir: &Path) -> Option<SocketAddr> {
    fs::read_dir(state_dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ports"))
        .find_map(|path| {
            let ports: Ports = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
            ports.nats.first()?.strip_prefix("nats://")?.parse().ok()
        })
}

/// Connects and reads the server's first line, which every client gets.
async fn greeting(address: SocketAddr) -> Option<String> {
    let greet = async {
        let stream = TcpStream::connect(address).await.ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.ok()?;
        let info: Info = serde_json::from_str(line.strip_prefix("INFO ")?).ok()?;
        Some(info.version)
    };
    tokio::time::timeout(GREETING_WITHIN, greet).await.ok()?
}

/// The end of what the server wrote: its errors at start, then its log.
pub(super) fn log_tail(state_dir: &Path) -> String {
    let mut said = String::new();
    for name in ["nats-server.err", "nats-server.log"] {
        let text = fs::read(state_dir.join(name)).unwrap_or_default();
        let start = text.len().saturating_sub(TAIL_BYTES);
        said.push_str(&String::from_utf8_lossy(text.get(start..).unwrap_or_default()));
    }
    said
}

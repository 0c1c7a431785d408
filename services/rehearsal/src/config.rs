//! What a rehearsal server is told.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use kit::config::Reader;
use secrecy::SecretString;

/// The largest request that is read: what the Messages API takes.
pub const MAX_REQUEST_BYTES: usize = 32 * 1024 * 1024;

/// Configuration of a rehearsal server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// The scenario files, tried in this order. None: the embedded one, which says how to configure a key.
    pub scenarios: Vec<PathBuf>,
    /// The key that requests must show, as `x-api-key` or `authorization: Bearer`. None: any or none will do.
    pub require_key: Option<SecretString>,
    /// Larger requests are refused.
    pub max_request_bytes: usize,
}

impl Config {
    /// Listens at `listen`, plays the embedded scenario, asks for no key.
    pub fn at(listen: SocketAddr) -> Self {
        Self { listen, scenarios: Vec::new(), require_key: None, max_request_bytes: MAX_REQUEST_BYTES }
    }
    /// Reads `NIGHTCREW_REHEARSAL_LISTEN` (a free port of loopback when absent), `NIGHTCREW_REHEARSAL_SCENARIOS`
    /// (files, separated by colons) and `NIGHTCREW_REHEARSAL_KEY`.
    pub fn read(reader: &mut Reader<'_>) -> Self {
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listen = reader.value("REHEARSAL_LISTEN", "a socket address like 127.0.0.1:0", loopback);
        let files: Option<String> = reader.optional("REHEARSAL_SCENARIOS", "scenario files, separated by colons");
        let scenarios =
            files.iter().flat_map(std::env::split_paths).filter(|path| !path.as_os_str().is_empty()).collect();
        Self { scenarios, require_key: reader.secret("REHEARSAL_KEY"), ..Self::at(listen) }
    }
}

//! A real Synapse homeserver of a test's own: SQLite, loopback, no federation, gone when the test is.
//!
//! It can be stopped, killed and started again on the same port and database, which is how tests show that the bridge
//! survives its homeserver. The process ends with its parent however that ends: it watches its standard input, which
//! the operating system closes. Nothing here knows Nightcrew.

use std::{
    io,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha1::Sha1;
use uuid::Uuid;

/// Names the Python interpreter that has `matrix-synapse` installed.
pub const PYTHON_VARIABLE: &str = "NIGHTCREW_SYNAPSE_PYTHON";

/// Domain of every user and room of the fixture.
pub const SERVER_NAME: &str = "nightcrew.test";

/// Synapse answers after 1.5 to 3 s on two idle cores; a machine that builds at the same time takes far longer.
const START_DEADLINE: Duration = Duration::from_mins(1);

/// Synapse finishes its requests in hand on SIGTERM; after this long it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(10);

/// How often a condition is looked at while waiting for the process.
const POLL: Duration = Duration::from_millis(20);

/// Ports below the range from which Linux takes ports for outgoing connections, so that none of those takes ours
/// while the server is down between two starts.
const PORTS: std::ops::Range<u16> = 18_000..32_000;

/// Runs Synapse, and ends it as soon as standard input is closed.
const LAUNCHER: &str = "\
import os, runpy, sys, threading
def watch():
    sys.stdin.read()
    os._exit(3)
threading.Thread(target=watch, daemon=True).start()
sys.argv[0] = 'synapse.app.homeserver'
runpy.run_module('synapse.app.homeserver', run_name='__main__')
";

/// How the homeserver limits what clients send.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RateLimits {
    /// So high that no test meets them.
    Off,
    /// Messages of one user are limited, with `M_LIMIT_EXCEEDED` beyond; nothing else is.
    Messages {
        /// Messages a second that are let through in the long run.
        per_second: f64,
        /// Messages that are let through at once.
        burst: u32,
    },
}

/// A homeserver process and the folder with its state.
#[derive(Debug)]
pub struct Synapse {
    python: PathBuf,
    folder: Folder,
    port: u16,
    secret: String,
    child: Option<Child>,
}

#[derive(Debug)]
enum Folder {
    Own(tempfile::TempDir),
    Given(PathBuf),
}

impl Folder {
    fn path(&self) -> &Path {
        match self {
            Self::Own(folder) => folder.path(),
            Self::Given(folder) => folder,
        }
    }
}

impl Synapse {
    /// Starts a homeserver without rate limits in a temporary folder and waits until it answers.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(RateLimits::Off).await
    }

    /// Starts a homeserver with `limits` in a temporary folder and waits until it answers.
    pub async fn start_with(limits: RateLimits) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for Synapse")?;
        Self::start_in_folder(Folder::Own(folder), limits).await
    }

    /// Starts a homeserver whose state and log stay in `folder`, for the demo.
    pub async fn start_in(folder: &Path) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        Self::start_in_folder(Folder::Given(folder.to_owned()), RateLimits::Off).await
    }

    async fn start_in_folder(folder: Folder, limits: RateLimits) -> anyhow::Result<Self> {
        let mut synapse = Self {
            python: std::env::var_os(PYTHON_VARIABLE).map_or_else(|| PathBuf::from("python3"), PathBuf::from),
            folder,
            port: free_port()?,
            secret: Uuid::new_v4().to_string(),
            child: None,
        };
        synapse.write_configuration(limits)?;
        synapse.launch().await?;
        Ok(synapse)
    }

    /// The homeserver's base URL.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The full id of the user `name`.
    pub fn user_id(&self, name: &str) -> String {
        format!("@{name}:{SERVER_NAME}")
    }

    /// The folder with configuration, database and log.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's log.
    pub fn log(&self) -> PathBuf {
        self.folder().join("synapse.log")
    }

    /// Registers `name` with the shared secret and gives back a new password.
    pub async fn register(&self, name: &str) -> anyhow::Result<String> {
        let password = Uuid::new_v4().simple().to_string();
        let url = format!("{}/_synapse/admin/v1/register", self.url());
        let client = reqwest::Client::new();
        let nonce: serde_json::Value = client.get(&url).send().await?.error_for_status()?.json().await?;
        let nonce = nonce["nonce"].as_str().context("Synapse gave no nonce")?;
        let mut mac = <Hmac<Sha1>>::new_from_slice(self.secret.as_bytes())?;
        mac.update([nonce, name, &password, "notadmin"].join("\0").as_bytes());
        let mac = data_encoding::HEXLOWER.encode(&mac.finalize().into_bytes());
        let body = serde_json::json!({
            "nonce": nonce, "username": name, "password": password, "admin": false, "mac": mac,
        });
        let answer = client.post(&url).json(&body).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "Synapse refused to register {name}: {status} {}", answer.text().await?);
        Ok(password)
    }

    /// Ends the server as an operator would, and waits until it is gone.
    pub async fn stop(&mut self) -> anyhow::Result<()> {
        let Some(child) = self.child.as_mut() else {
            return Ok(());
        };
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).context("send SIGTERM to Synapse")?;
        let deadline = Instant::now() + STOP_DEADLINE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return self.kill();
            }
            tokio::time::sleep(POLL).await;
        }
        self.child = None;
        Ok(())
    }

    /// Ends the server with SIGKILL.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        child.kill().context("send SIGKILL to Synapse")?;
        child.wait().context("wait for Synapse")?;
        Ok(())
    }

    /// Starts the server again on the same port and database and waits until it answers.
    pub async fn launch(&mut self) -> anyhow::Result<()> {
        ensure!(self.child.is_none(), "Synapse is running already");
        let console = std::fs::File::create(self.folder().join("console.log"))?;
        let child = Command::new(&self.python)
            .args(["-c", LAUNCHER, "-c"])
            .arg(self.folder().join("homeserver.yaml"))
            .current_dir(self.folder())
            .stdin(Stdio::piped())
            .stdout(console.try_clone()?)
            .stderr(console)
            .spawn()
            .with_context(|| format!("start {}; {PYTHON_VARIABLE} names the interpreter", self.python.display()))?;
        self.child = Some(child);
        self.wait_until_ready().await
    }

    /// Stops the server and starts it again.
    pub async fn restart(&mut self) -> anyhow::Result<()> {
        self.stop().await?;
        self.launch().await
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = reqwest::Client::new();
        let health = format!("{}/health", self.url());
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if let Some(child) = self.child.as_mut()
                && let Some(status) = child.try_wait()?
            {
                self.child = None;
                let console = std::fs::read_to_string(self.folder().join("console.log")).unwrap_or_default();
                bail!(
                    "Synapse ended with {status} while starting; {PYTHON_VARIABLE} must name a Python with matrix-synapse\n{console}"
                );
            }
            if let Ok(answer) = client.get(&health).send().await
                && answer.status().is_success()
            {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "Synapse did not answer; see {}", self.log().display());
            tokio::time::sleep(POLL).await;
        }
    }

    fn write_configuration(&self, limits: RateLimits) -> anyhow::Result<()> {
        let folder = self.folder();
        let write = |name: &str, text: String| {
            std::fs::write(folder.join(name), text).with_context(|| format!("write {name} of Synapse"))
        };
        let configuration = configuration(folder, self.port, &self.secret, limits);
        write("homeserver.yaml", serde_json::to_string_pretty(&configuration)?)?;
        write("log.yaml", serde_json::to_string_pretty(&logging(&self.log()))?)?;
        // A seed of 32 bytes in unpadded base64: hex digits are valid base64, and 43 characters are 32 bytes.
        let seed = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        write("signing.key", format!("ed25519 a_test {}A\n", &seed[..42]))
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if let Some(child) = self.child.as_mut() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// JSON is YAML, so the configuration needs no templating.
fn configuration(folder: &Path, port: u16, secret: &str, limits: RateLimits) -> serde_json::Value {
    let open = serde_json::json!({ "per_second": 100_000, "burst_count": 100_000 });
    let messages = match limits {
        RateLimits::Off => open.clone(),
        RateLimits::Messages { per_second, burst } => {
            serde_json::json!({ "per_second": per_second, "burst_count": burst })
        }
    };
    serde_json::json!({
        "server_name": SERVER_NAME,
        "listeners": [{
            "port": port, "bind_addresses": ["127.0.0.1"], "type": "http", "x_forwarded": false,
            "resources": [{ "names": ["client"], "compress": false }],
        }],
        "database": { "name": "sqlite3", "args": { "database": folder.join("homeserver.db") } },
        "log_config": folder.join("log.yaml"),
        "pid_file": folder.join("synapse.pid"),
        "media_store_path": folder.join("media"),
        "signing_key_path": folder.join("signing.key"),
        "registration_shared_secret": secret,
        "macaroon_secret_key": secret,
        "form_secret": secret,
        "report_stats": false,
        "trusted_key_servers": [],
        "federation_domain_whitelist": [],
        "bcrypt_rounds": 4,
        "presence": { "enabled": false },
        "push": { "enabled": false },
        "url_preview_enabled": false,
        "rc_message": messages,
        "rc_registration": open,
        "rc_login": { "address": open, "account": open, "failed_attempts": open },
        "rc_joins": { "local": open, "remote": open },
        "rc_joins_per_room": open,
        "rc_invites": { "per_room": open, "per_user": open, "per_issuer": open },
        "rc_room_creation": open,
        "rc_key_requests": open,
        "rc_media_create": open,
    })
}

fn logging(file: &Path) -> serde_json::Value {
    serde_json::json!({
        "version": 1,
        "formatters": { "line": { "format": "%(asctime)s %(levelname)s %(name)s %(message)s" } },
        "handlers": { "file": { "class": "logging.FileHandler", "formatter": "line", "filename": file } },
        "root": { "level": "INFO", "handlers": ["file"] },
        "disable_existing_loggers": false,
    })
}

fn free_port() -> anyhow::Result<u16> {
    let span = u128::from(PORTS.end - PORTS.start);
    let mut last = None;
    for _ in 0..100 {
        let port = PORTS.start + u16::try_from(Uuid::new_v4().as_u128() % span)?;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => return Ok(port),
            Err(error) => last = Some(error),
        }
    }
    Err(last.unwrap_or_else(|| io::Error::from(io::ErrorKind::AddrInUse))).context("find a free port for Synapse")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn users_survive_a_killed_server() {
        let mut synapse = Synapse::start().await.unwrap();
        let password = synapse.register("ada").await.unwrap();
        synapse.kill().unwrap();
        synapse.launch().await.unwrap();
        synapse.restart().await.unwrap();
        let body = serde_json::json!({
            "type": "m.login.password", "password": password, "identifier": { "type": "m.id.user", "user": "ada" },
        });
        let url = format!("{}/_matrix/client/v3/login", synapse.url());
        let answer = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
}

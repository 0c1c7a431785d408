//! An HTTP proxy in front of a homeserver, which answers some requests itself.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Forwards every request, but for those that it is told to refuse.
pub(crate) struct Proxy {
    address: SocketAddr,
    faults: Arc<Mutex<Vec<Fault>>>,
    // Ends with the proxy.
    _serving: JoinSet<()>,
}

#[derive(Clone)]
struct Fault {
    /// What the request's target has in it.
    parts: Vec<String>,
    status: u16,
    code: &'static str,
}

impl Proxy {
    /// Stands in front of `homeserver`, a URL with an address.
    pub(crate) async fn start(homeserver: &str) -> Self {
        let upstream: SocketAddr = homeserver.strip_prefix("http://").unwrap().parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let faults: Arc<Mutex<Vec<Fault>>> = Arc::default();
        let known = Arc::clone(&faults);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let faults = Arc::clone(&known);
                // A connection that breaks is the client's to notice.
                connections.spawn(async move { drop(serve(client, upstream, &faults).await) });
                while connections.try_join_next().is_some() {}
            }
        });
        Self { address, faults, _serving: serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Answers requests whose target has all `parts` in it with this error from now on.
    pub(crate) fn refuse(&self, parts: &[&str], status: u16, code: &'static str) {
        let parts = parts.iter().map(|part| (*part).to_owned()).collect();
        self.faults.lock().unwrap().push(Fault { parts, status, code });
    }

    /// Forwards everything again.
    pub(crate) fn mend(&self) {
        self.faults.lock().unwrap().clear();
    }
}

/// The part of a room's or an event's id that stands in a request's target as it is.
pub(crate) fn plain(id: &str) -> &str {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let start = id.find(is_plain).unwrap();
    let end = id[start..].find(|c| !is_plain(c)).map_or(id.len(), |end| start + end);
    &id[start..end]
}

/// One request of a connection, which ends with it.
async fn serve(client: TcpStream, upstream: SocketAddr, faults: &Mutex<Vec<Fault>>) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if client.read_line(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let target = head.split(' ').nth(1).unwrap_or_default();
    let meant = |fault: &&Fault| fault.parts.iter().all(|part| target.contains(part.as_str()));
    let fault = faults.lock().unwrap().iter().find(meant).cloned();
    if let Some(Fault { status, code, .. }) = fault {
        let body = serde_json::json!({ "errcode": code, "error": "refused by the test" }).to_string();
        let answer = format!(
            "HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        return client.write_all(answer.as_bytes()).await;
    }
    let kept = head.trim_end().lines().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let head: Vec<&str> = kept.chain(["connection: close", "", ""]).collect();
    let mut server = TcpStream::connect(upstream).await?;
    server.write_all(head.join("\r\n").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

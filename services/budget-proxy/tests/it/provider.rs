//! A provider that answers byte for byte what a test says, and remembers what it was sent.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

/// What it does once it has read a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Sends.
    Send(Vec<u8>),
    /// Says nothing any more.
    Hang,
    /// Throws the connection away, with all that has not arrived.
    Reset,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Sent {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

pub(crate) struct Provider {
    pub(crate) url: String,
    sent: Arc<Mutex<Vec<Sent>>>,
    _serving: AbortOnDropHandle<()>,
}

impl Provider {
    /// Answers every request so, each on a connection of its own that it then closes.
    pub(crate) async fn answering(acts: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let sent: Arc<Mutex<Vec<Sent>>> = Arc::default();
        let seen = Arc::clone(&sent);
        let serving = async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, acts.clone(), Arc::clone(&seen)));
            }
        };
        #[expect(clippy::disallowed_methods, reason = "its handle is the owner")]
        let serving = AbortOnDropHandle::new(tokio::spawn(serving));
        Self { url, sent, _serving: serving }
    }

    /// Answers every request with this status, these header lines and this body.
    pub(crate) async fn saying(status: &str, headers: &str, body: &str) -> Self {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        Self::answering(vec![Act::Send(answer.into_bytes())]).await
    }

    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A route that leads here, in the words of `models.yaml`.
    pub(crate) fn route(&self, name: &str, provider: &str, key: &str) -> String {
        route_to(&self.url, name, provider, key)
    }
}

/// A route that leads to `base_url`, in the words of `models.yaml`.
pub(crate) fn route_to(base_url: &str, name: &str, provider: &str, key: &str) -> String {
    format!(
        "  {name}: {{provider: {provider}, base_url: '{base_url}', model: upstream-model, context_window: 1000, \
         max_output_tokens: 500, unpriced: true{key}}}\n"
    )
}

/// The head of a streamed answer, whose end is the connection's.
pub(crate) fn stream_head() -> Vec<u8> {
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        .to_vec()
}

/// A chunk of a streamed answer; an empty one ends it.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, seen: Arc<Mutex<Vec<Sent>>>) {
    let Some(sent) = read(&mut stream).await else {
        return;
    };
    seen.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
    for act in acts {
        match act {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Act::Hang => std::future::pending::<()>().await,
            Act::Reset => return drop(stream.set_zero_linger()),
        }
    }
    let _ = stream.shutdown().await;
}

async fn read(stream: &mut TcpStream) -> Option<Sent> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(at) = bytes.windows(4).position(|end| end == b"\r\n\r\n") {
            break at;
        }
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..head_end].to_vec()).ok()?;
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = bytes.split_off(head_end + 4);
    while body.len() < length {
        if stream.read_buf(&mut body).await.ok()? == 0 {
            return None;
        }
    }
    Some(Sent { line, headers, body })
}

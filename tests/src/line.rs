//! A line between a service and its server that can be cut, or held so that nothing passes and nobody is told.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf, tcp::OwnedWriteHalf},
    sync::watch,
    task::JoinSet,
};

/// Bytes that are passed on at once.
const BUFFER: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    Held,
    Cut,
}

/// A proxy on loopback; gone when dropped.
#[derive(Debug)]
pub struct Line {
    address: SocketAddr,
    state: watch::Sender<State>,
    _tasks: JoinSet<()>,
}

impl Line {
    /// A line to the server at `url`, such as `nats://127.0.0.1:4222`.
    pub async fn to(url: &str) -> std::io::Result<Self> {
        let server = url.rsplit('/').next().unwrap_or(url).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, seen) = watch::channel(State::Open);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                lines.spawn(carry(client, server.clone(), seen.clone()));
                while lines.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, state, _tasks: tasks })
    }

    /// Where its other end is.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where its other end is, for a client of NATS.
    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// From now on nothing passes, and nobody is told: what is sent waits.
    pub fn hold(&self) {
        self.state.send_replace(State::Held);
    }

    /// Ends what is connected, and whatever connects.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// Everything passes again, what waited first.
    pub fn open(&self) {
        self.state.send_replace(State::Open);
    }
}

async fn carry(client: TcpStream, server: String, mut state: watch::Receiver<State>) {
    let (mut up, down) = (state.clone(), state.clone());
    let through = async {
        until_open(&mut up).await?;
        let server = TcpStream::connect(server).await.ok()?;
        // A line must not add the delays of Nagle's algorithm to what it carries.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        // Whoever ends first ends the line.
        tokio::select! {
            () = pass(from_client, to_server, up) => {}
            () = pass(from_server, to_client, down) => {}
        }
        Some(())
    };
    tokio::select! {
        _ = through => {}
        _ = state.wait_for(|state| *state == State::Cut) => {}
    }
}

async fn until_open(state: &mut watch::Receiver<State>) -> Option<()> {
    state.wait_for(|state| *state == State::Open).await.ok().map(drop)
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let mut buffer = vec![0; BUFFER];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if until_open(&mut state).await.is_none() || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

//! A line between a client and the server that loses or holds back a word of the server, when told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const NOTHING: u8 = 0;
const CUT: u8 = 1;
const SWALLOW: u8 = 2;
const HOLD: u8 = 3;

/// A proxy on loopback; gone when dropped.
pub(crate) struct Line {
    address: SocketAddr,
    orders: Arc<Orders>,
    _tasks: JoinSet<()>,
}

/// What is to be done with the server's next answer.
#[derive(Default)]
struct Orders {
    next: AtomicU8,
    held: Notify,
    go_on: Notify,
}

impl Line {
    /// A line to the server at `url`.
    pub(crate) async fn to(url: &str) -> Self {
        let server = url.strip_prefix("nats://").expect("an address").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let orders = Arc::new(Orders::default());
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&orders);
        tasks.spawn(async move {
            let mut lines = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&server).await.expect("the server");
                lines.spawn(carry(client, server, Arc::clone(&shared)));
            }
        });
        Self { address, orders, _tasks: tasks }
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    /// The line is cut at the server's next answer, which does not arrive.
    pub(crate) fn cut_at_next_answer(&self) {
        self.orders.next.store(CUT, Ordering::SeqCst);
    }

    /// The server's next answer does not arrive; the line stays.
    pub(crate) fn swallow_next_answer(&self) {
        self.orders.next.store(SWALLOW, Ordering::SeqCst);
    }

    /// The server's next answer, and all after it, arrive when the line is released.
    pub(crate) fn hold_next_answer(&self) {
        self.orders.next.store(HOLD, Ordering::SeqCst);
    }

    /// Returns once an answer is held back.
    pub(crate) async fn until_held(&self) {
        self.orders.held.notified().await;
    }

    pub(crate) fn release(&self) {
        self.orders.go_on.notify_one();
    }
}

async fn carry(client: TcpStream, server: TcpStream, orders: Arc<Orders>) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let up = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_client.read(&mut buffer).await {
            if to_server.write_all(&buffer[..read]).await.is_err() {
                return;
            }
        }
    };
    let down = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(read @ 1..) = from_server.read(&mut buffer).await {
            let said = &buffer[..read];
            let answer = said.starts_with(b"MSG") || said.starts_with(b"HMSG");
            match answer.then(|| orders.next.swap(NOTHING, Ordering::SeqCst)) {
                Some(CUT) => return,
                Some(SWALLOW) => continue,
                Some(HOLD) => {
                    orders.held.notify_one();
                    orders.go_on.notified().await;
                }
                _ => {}
            }
            if to_client.write_all(said).await.is_err() {
                return;
            }
        }
    };
    // Whoever ends first cuts the line.
    tokio::select! { () = up => {}, () = down => {} }
}

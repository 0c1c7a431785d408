//! The HTTP server: a free port, an orderly end, a bound on the disorderly one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, routing::get};
use kit::{
    http,
    service::{self, Check, Health},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// Long enough that only something stuck takes it.
const SOON: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: AbortOnDropHandle<()>,
}

async fn serve(router: Router, grace: Duration) -> Server {
    let (listener, address) = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let shutdown = CancellationToken::new();
    let serving = own(http::serve_with_grace(listener, router, shutdown.clone(), grace));
    Server { address, shutdown, serving }
}

#[expect(clippy::disallowed_methods, reason = "the handle that aborts on drop owns the task")]
fn own<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> AbortOnDropHandle<T> {
    let handle: JoinHandle<T> = tokio::spawn(future);
    AbortOnDropHandle::new(handle)
}

/// The status and body of a GET on a connection of its own.
async fn get_once(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    (status, body.to_owned())
}

#[tokio::test]
async fn health_is_served_on_a_free_port() {
    let health = Health::new("budget-proxy");
    health.set("bus", Check::Starting);
    let server = serve(service::router(health.clone()), SOON).await;
    assert_ne!(server.address.port(), 0);

    assert_eq!(get_once(server.address, "/healthz").await.0, 200);
    assert_eq!(get_once(server.address, "/readyz").await.0, 503);
    health.set("bus", Check::Green);
    let (status, body) = get_once(server.address, "/readyz").await;
    assert_eq!(status, 200);
    let report: service::HealthReport = serde_json::from_str(&body).unwrap();
    assert_eq!(report, health.report());
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let (_listener, address) = http::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
    let error = http::bind(address).await.unwrap_err();
    assert_eq!(error.to_string(), format!("can not listen on {address}"));
}

/// A router whose one path says when it was reached and answers when it is let.
fn gated() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (reached, gate) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (reach, wait) = (Arc::clone(&reached), Arc::clone(&gate));
    let handler = async move || {
        reach.notify_one();
        wait.notified().await;
        "served"
    };
    (Router::new().route("/", get(handler)), reached, gate)
}

#[tokio::test]
async fn a_request_in_hand_is_answered_and_no_new_one_taken() {
    let (router, reached, gate) = gated();
    let server = serve(router, SOON).await;
    let address = server.address;
    let answer = own(async move { get_once(address, "/").await });
    // A connection without a request must not hold the end up.
    let _idle = TcpStream::connect(address).await.unwrap();
    reached.notified().await;

    server.shutdown.cancel();
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(SOON, refused).await.expect("the listener is closed");
    gate.notify_one();
    assert_eq!(answer.await.unwrap(), (200, "served".to_owned()));
    tokio::time::timeout(SOON, server.serving).await.expect("the end comes when all is answered").unwrap();
}

#[tokio::test]
async fn what_is_stuck_is_dropped_after_the_grace_period() {
    let (router, reached, _gate) = gated();
    let server = serve(router, Duration::from_millis(1)).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: test\r\n\r\n").await.unwrap();
    reached.notified().await;

    server.shutdown.cancel();
    server.serving.await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(read.is_err() || rest.is_empty());
}

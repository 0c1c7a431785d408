//! Serves an axum router over TCP: without Nagle's delay, with bounds, and with an end.
//!
//! `axum::serve` has neither a bound on connections nor a way to drop them after a grace period, and leaves
//! `TCP_NODELAY` off, which costs small answers 40 ms. So connections are accepted here and given to hyper.

use std::{io, net::SocketAddr, time::Duration};

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::service::GRACE;

/// Connections at once; further ones wait in the kernel's queue. A thousand runs with a model call each still fit.
pub const MAX_CONNECTIONS: usize = 4096;

/// A connection without a request for this long is closed. Longer than the 90 s after which reqwest gives up idle
/// connections of its pool, so that a client never sends on one that is being closed here.
const IDLE_TIMEOUT: Duration = Duration::from_mins(2);

/// Wait after a failed accept, such as when there are no file descriptors left: a busy loop would not free any.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An address can not be listened on.
#[derive(Debug, thiserror::Error)]
#[error("can not listen on {address}")]
pub struct BindError {
    /// The address.
    pub address: SocketAddr,
    /// Why.
    #[source]
    pub source: io::Error,
}

/// Listens on `address`; port 0 takes a free one. Also gives the address that was bound.
pub async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), BindError> {
    let failed = |source| BindError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

/// Serves until `shutdown`, then lets requests in hand end within [`GRACE`] and drops the rest.
pub async fn serve(listener: TcpListener, router: Router, shutdown: CancellationToken) {
    serve_with_grace(listener, router, shutdown, GRACE).await;
}

/// As [`serve`], with a grace period of its own.
pub async fn serve_with_grace(listener: TcpListener, router: Router, shutdown: CancellationToken, grace: Duration) {
    let mut connections = JoinSet::new();
    loop {
        let room = connections.len() < MAX_CONNECTIONS;
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if room => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection(stream, router.clone(), shutdown.clone()));
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "can not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, all).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "dropped connections that were still in use after the grace period"
        );
    }
}

async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(error = &error as &dyn std::error::Error, "the peer is gone already");
        return;
    }
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(IDLE_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router))
        .with_upgrades();
    let mut serving = std::pin::pin!(serving);
    let result = tokio::select! {
        result = &mut serving => result,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended early");
    }
}

//! Accepting connections, and letting them go in order.
//!
//! Owns: the connection cap, the head timeout, graceful shutdown of sockets.
//! Must not know: routes.
//! Invariant: after `stop` nothing new is accepted, and `serve` returns within the grace time.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use prometheus::IntGauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// How long to rest after the kernel refused a socket (too many open files).
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Who is at the other end.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// What a listener needs to know besides its routes.
#[derive(Debug, Clone)]
pub struct Door {
    /// Open connections at once.
    pub connections: usize,
    /// Time to send a request head.
    pub header: Duration,
    /// Time that running requests get after `stop`.
    pub grace: Duration,
    /// Counts open connections.
    pub open: IntGauge,
}

/// Serves until `stop`, then finishes running requests for at most the grace time.
pub async fn serve(listener: TcpListener, router: Router, door: Door, stop: CancellationToken) {
    let slots = Arc::new(Semaphore::new(door.connections));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let _cut_at_end = cut.clone().drop_guard();
    loop {
        let Ok(slot) = slots.clone().acquire_owned().await else {
            break;
        };
        let (socket, peer) = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                    continue;
                }
            },
        };
        let connection = graceful.watch(connection(socket, peer, router.clone(), door.header));
        let open = door.open.clone();
        let cut = cut.clone();
        tokio::spawn(async move {
            open.inc();
            tokio::select! {
                ended = connection => {
                    if let Err(error) = ended {
                        tracing::debug!(%peer, %error, "connection ended early");
                    }
                }
                () = cut.cancelled() => tracing::info!(%peer, "connection cut at the end of the grace time"),
            }
            open.dec();
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(door.grace, graceful.shutdown())
        .await
        .is_err()
    {
        tracing::warn!(
            grace_seconds = door.grace.as_secs(),
            "requests were still running at the end of the grace time"
        );
    }
}

type HyperRequest = hyper::Request<hyper::body::Incoming>;

fn connection(
    socket: TcpStream,
    peer: SocketAddr,
    router: Router,
    header: Duration,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> {
    // Small answers should not wait for more bytes.
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let service = router
        .map_request(move |mut request: HyperRequest| {
            request.extensions_mut().insert(Peer(peer));
            request
        })
        .map_err(|never: Infallible| match never {});
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(header);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_secs(30))
        .max_concurrent_streams(100);
    builder
        .serve_connection(TokioIo::new(socket), TowerToHyperService::new(service))
        .into_owned()
}

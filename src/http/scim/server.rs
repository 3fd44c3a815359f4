//! The listener: connections, their limits, and the tasks of SCIM.

use std::convert::Infallible;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::dispatch::respond;
use super::service::{ScimOptions, Service};
use super::tokens::Tokens;
use crate::store::Store;

const MAX_CONNECTIONS: usize = 256;
/// How long the next head of a request may take. Longer than a proxy keeps an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);
/// After a failed accept, such as without free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Time between attempts to listen for finished writes.
const LISTEN_PAUSE: Duration = Duration::from_secs(10);

/// SCIM on a separate listener.
pub(crate) struct ScimServer {
    listener: TcpListener,
    service: Arc<Service>,
}

impl ScimServer {
    pub(crate) fn new(listener: TcpListener, store: Store, options: ScimOptions, tokens: Tokens) -> Self {
        Self { listener, service: Arc::new(Service::new(store, options, tokens)) }
    }

    /// Runs until the future is dropped.
    ///
    /// # Errors
    /// If the process cannot listen for SIGHUP.
    pub(crate) fn run(self) -> io::Result<impl Future<Output = ()> + Send + 'static> {
        let hangups = signal(SignalKind::hangup())?;
        Ok(async move {
            tokio::join!(
                accept(&self.listener, &self.service),
                reload(hangups, &self.service),
                forward_written(&self.service),
            );
        })
    }
}

async fn accept(listener: &TcpListener, service: &Arc<Service>) {
    let (slots, mut connections) = (Arc::new(Semaphore::new(MAX_CONNECTIONS)), JoinSet::new());
    while let Ok(slot) = slots.clone().acquire_owned().await {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, peer)) => {
                let serving = serve(stream, peer.ip(), service.clone());
                connections.spawn(async move {
                    serving.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "cannot accept a SCIM connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: IpAddr, service: Arc<Service>) {
    let respond = service_fn(move |request: hyper::Request<Incoming>| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(respond(service, peer, request.map(Body::new)).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), respond);
    // A client that disconnects is no failure of rosterd.
    if let Err(error) = connection.await {
        tracing::trace!(%error, "a SCIM connection ended");
    }
}

async fn reload(mut hangups: Signal, service: &Service) {
    while hangups.recv().await.is_some() {
        service.reload_tokens();
    }
}

/// Passes on the ids of finished writes. Without a listener, such as behind a pooler in transaction mode, the requests that
/// wait ask the journal at intervals.
async fn forward_written(service: &Service) {
    loop {
        if let Ok(Some(mut listener)) = service.store.listen_for_written().await {
            while let Ok(written) = listener.written().await {
                // No request waits if there is no receiver.
                let _ = written.map(|id| service.written.send(id));
            }
        }
        sleep(LISTEN_PAUSE).await;
    }
}

//! Connections to the observer, each with limits.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::limits::{
    KE_ACCEPT_PAUSE, OBSERVER_CONNECTION_LIFE, OBSERVER_CONNECTIONS_MAX, OBSERVER_DRAIN_WAIT,
    OBSERVER_REQUEST_BYTES_MAX, OBSERVER_REQUEST_FIELDS_MAX, OBSERVER_REQUEST_WAIT,
};

/// Serves `router` until `over` ends, then finishes the answers under way.
pub async fn serve(listener: TcpListener, router: Router, over: impl Future<Output = ()>) {
    let places = Arc::new(Semaphore::new(OBSERVER_CONNECTIONS_MAX));
    let (stop, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    let mut over = pin!(over);
    loop {
        // Those beyond the limit wait in the kernel's queue.
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = &mut over => break,
            next = next => next,
        };
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = accepted else {
            sleep(KE_ACCEPT_PAUSE).await;
            continue;
        };
        let (router, stopped) = (router.clone(), stopped.clone());
        connections.spawn(async move {
            converse(stream, router, stopped).await;
            drop(place);
        });
    }
    drop((listener, stop));
    while connections.join_next().await.is_some() {}
}

/// One connection, for a time.
async fn converse(stream: TcpStream, router: Router, mut stopped: watch::Receiver<()>) {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(OBSERVER_REQUEST_WAIT)
        .max_headers(OBSERVER_REQUEST_FIELDS_MAX)
        .max_buf_size(OBSERVER_REQUEST_BYTES_MAX);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        // What a client does wrong is its own matter.
        _ = connection.as_mut() => return,
        () = sleep(OBSERVER_CONNECTION_LIFE) => {}
        // The other end is dropped, which is how it speaks.
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(OBSERVER_DRAIN_WAIT, connection).await;
}

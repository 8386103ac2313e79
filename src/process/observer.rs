//! The observer role: shows how the server fares, over HTTP.

use std::io;
use std::net::TcpListener as StdListener;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Barrier};
use std::thread;

use tokio::net::TcpListener;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::channel::Link;
use super::handover::{Descriptors, Purpose, StartMessage};
use super::pages::ObserverPages;
use super::sandbox::Filter;
use super::signals::stop_on_signals;
use super::start::{ObserverStart, Order, Report, RoleError};
use crate::observe::facts::Facts;
use crate::observe::routes::routes;
use crate::observe::server::serve;

/// Serves until SIGTERM, then finishes the answers under way. In this order:
///
/// 1. the pages are mapped,
/// 2. signals are caught, orders are listened to, and an event loop takes the listener,
/// 3. the filter of system calls holds,
/// 4. the supervisor is told, and the loop runs.
pub fn run(
    start: StartMessage,
    mut descriptors: Descriptors,
    link: &Link,
    filter: Filter,
) -> Result<(), RoleError> {
    let start: ObserverStart = start.decode()?;
    let pages = ObserverPages::take(descriptors.take(Purpose::Page), start.workers)?;
    let listener = descriptors.take(Purpose::HttpListener).pop().map(StdListener::from);
    let listener =
        listener.ok_or_else(|| RoleError("the HTTP listener was not handed over".to_owned()))?;
    let stop = stop_on_signals(&Arc::new(AtomicBool::new(false)))
        .map_err(|error| RoleError::new("cannot catch signals", error))?;
    let no_loop = |error: io::Error| RoleError::new("cannot wait for connections", error);
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_loop)?;
    let facts = Arc::new(Facts::new(pages));
    // Starting a thread takes more calls than running it: it has to have started.
    let started = Arc::new(Barrier::new(2));
    let orphaned = listen(link.clone(), Arc::clone(&facts), Arc::clone(&started));
    started.wait();
    runtime.block_on(async {
        let is_loopback = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let router = routes(facts, is_loopback);
        let listener = TcpListener::from_std(listener).map_err(no_loop)?;
        let stop = pipe::Receiver::from_owned_fd(stop).map_err(no_loop)?;
        filter.apply()?;
        link.report(&Report::Ready);
        let over = async {
            tokio::select! {
                _ = stop.readable() => {}
                // Without a supervisor nothing that is shown would be true for long.
                _ = orphaned => {}
            }
        };
        serve(listener, router, over).await;
        Ok(())
    })
}

/// Takes what the supervisor says, in a thread: its channel is no stream that an event loop knows.
/// The returned end is dropped when the supervisor has ended.
fn listen(link: Link, facts: Arc<Facts>, started: Arc<Barrier>) -> oneshot::Receiver<()> {
    let (end, ended) = oneshot::channel();
    thread::spawn(move || {
        let _end = end;
        started.wait();
        while let Ok(Some(order)) = link.next_order() {
            match order {
                Order::Inform(status) => {
                    facts.adopt(*status);
                    link.report(&Report::Pong);
                }
                Order::Ping => link.report(&Report::Pong),
                _ => {}
            }
        }
    });
    ended
}

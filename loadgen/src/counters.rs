//! What a timeball on this host counts itself during a run, asked down its control socket.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use timeball::process::control::{AskError, Request, ask};
use timeball::process::status::ServerStats;

use crate::limits::INTERVAL;

/// What was counted since the watch began.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When, in seconds since then.
    pub seconds: f64,
    /// The counters that have changed, by the names of `timeball serverstats`; those of key
    /// establishment begin with `ke_`.
    pub counts: BTreeMap<String, u64>,
}

impl Sample {
    /// Requests that the server took for valid, which it answers.
    pub fn answers(&self) -> u64 {
        let of = |name: &&str| self.counts.get(*name).copied().unwrap_or_default();
        ["answered_plain", "answered_nts", "nts_nak"].iter().map(of).sum()
    }
}

/// Asks once an interval, until it is finished.
pub struct Watch {
    control_socket: PathBuf,
    begin: Instant,
    before: Counts,
    finish: Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

type Counts = BTreeMap<String, u64>;

impl Watch {
    /// Of the server that has this control socket.
    pub fn begin(control_socket: &Path) -> Result<Self, AskError> {
        let before = counts(control_socket)?;
        let begin = Instant::now();
        let (finish, finished) = channel();
        let (path, first) = (control_socket.to_owned(), before.clone());
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            while finished.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                // A server that is silent for a while is met again a second later.
                samples.extend(sample(&path, begin, &first).ok());
            }
            samples
        });
        Ok(Self { control_socket: control_socket.to_owned(), begin, before, finish, thread })
    }

    /// Asks a last time. The samples are in order; there are none of the time in which the server
    /// did not answer.
    pub fn finish(self) -> Vec<Sample> {
        drop(self.finish);
        let mut samples = self.thread.join().expect("no panic");
        samples.extend(sample(&self.control_socket, self.begin, &self.before).ok());
        samples
    }
}

fn sample(control_socket: &Path, begin: Instant, before: &Counts) -> Result<Sample, AskError> {
    let mut counts = counts(control_socket)?;
    counts.retain(|name, count| {
        // A server that was started anew counts from nothing.
        *count = count.saturating_sub(before.get(name).copied().unwrap_or_default());
        *count > 0
    });
    Ok(Sample { seconds: begin.elapsed().as_secs_f64(), counts })
}

fn counts(control_socket: &Path) -> Result<Counts, AskError> {
    let ServerStats { responder, key_establishment, .. } =
        ask(control_socket, Request::Serverstats)?;
    let mut counts = responder;
    counts.extend(key_establishment.into_iter().map(|(name, count)| (format!("ke_{name}"), count)));
    Ok(counts)
}

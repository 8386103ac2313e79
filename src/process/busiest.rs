//! The networks that ask most, as a running server tells them: those of all workers together.

use std::collections::BTreeMap;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::control::{Answer, to_json};
use crate::limits::clients::BUSIEST_TOLD;
use crate::page::busiest::{BusiestPage, Counted};

/// What a question for them is answered.
pub(super) fn answer(pages: &[BusiestPage], since_boot: Duration) -> Answer {
    if pages.is_empty() {
        let off =
            "this server does not count networks; set ntp.count_networks = true and restart it";
        return Err(off.to_owned());
    }
    to_json(&BusiestStatus::new(pages, since_boot))
}

/// The networks that ask most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusiestStatus {
    /// For how long requests were counted.
    pub seconds: f64,
    /// All of them.
    pub requests: u64,
    /// Those with the most requests, first of all the one that has most.
    pub networks: Vec<BusyNetwork>,
}

/// A network that asks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BusyNetwork {
    /// An IPv4 /24 or an IPv6 /48.
    pub network: IpNet,
    /// Its requests, never too few.
    pub requests: u64,
    /// What they may be too high by.
    pub excess: u64,
}

impl BusiestStatus {
    /// Of all workers.
    pub(super) fn new(pages: &[BusiestPage], since_boot: Duration) -> Self {
        let begun = pages.iter().filter_map(BusiestPage::begun_since_boot).min();
        let mut sums: BTreeMap<IpNet, (u64, u64)> = BTreeMap::new();
        for Counted { network, requests, excess } in pages.iter().flat_map(BusiestPage::networks) {
            let sum = sums.entry(network).or_default();
            // Saturating: the responder writes what it likes, and nothing of it ends us.
            *sum = (sum.0.saturating_add(requests), sum.1.saturating_add(excess));
        }
        let mut networks: Vec<BusyNetwork> = sums
            .into_iter()
            .map(|(network, (requests, excess))| BusyNetwork { network, requests, excess })
            .collect();
        networks.sort_by_key(|found| std::cmp::Reverse(found.requests));
        networks.truncate(BUSIEST_TOLD);
        Self {
            seconds: begun.map_or(0.0, |begun| since_boot.saturating_sub(begun).as_secs_f64()),
            requests: pages.iter().map(BusiestPage::requests).fold(0, u64::saturating_add),
            networks,
        }
    }
}

//! `timeball-load mix`.

use std::sync::atomic::AtomicBool;
use std::thread;

use clap::Args;
use timeball::limits::NTS_KE_PORT;

use super::arguments::{LoadArguments, NtsArguments};
use super::load::{Prepared, check_outputs, offer, prepare_nts, probe, write};
use super::target::resolve;
use super::watch::Watched;
use super::{CommandError, EXIT_FINE, EXIT_INVALID};
use crate::limits::{CLIENTS_MINTED_DEFAULT, KE_CONCURRENCY};
use crate::network;
use crate::plan::{Ask, Plan, Twist};
use crate::report::RunReport;
use crate::report::terminal::{counters, quantiles, text};
use crate::request::Clients;
use crate::slow::{Borne, Manner, hold};

#[derive(Debug, Args)]
pub(super) struct MixArguments {
    #[command(flatten)]
    nts: NtsArguments,
    /// Parts of the rate, each with a thread of its own: `nts=80,ntp=15,bad-cookie=5`; also
    /// interleaved, nts-interleaved, bad-tag, replay, junk
    #[arg(long, value_delimiter = ',', value_parser = share, required = true)]
    shares: Vec<Share>,
    /// NTS-KE server for --silent and --slow-loris
    #[arg(long, value_name = "HOST:PORT")]
    ke_server: Option<String>,
    /// NTS-KE connections that say nothing
    #[arg(long, default_value_t = 0, requires = "ke_server")]
    silent: usize,
    /// NTS-KE connections that say a byte a second
    #[arg(long, default_value_t = 0, requires = "ke_server")]
    slow_loris: usize,
    /// Hostile requests may leave this host
    #[arg(long)]
    i_own_this_network: bool,
}

/// A kind of requests and its part of the rate.
#[derive(Clone, Debug)]
struct Share {
    name: String,
    is_nts: bool,
    interleaved: bool,
    twist: Twist,
    weight: f64,
}

pub(super) fn run(arguments: &MixArguments, stop: &AtomicBool) -> Result<u8, CommandError> {
    let load = &arguments.nts.load;
    check_outputs(&[&load.json])?;
    if load.threads != 1 || load.cpus.is_some() {
        return Err(CommandError::usage("mix has a thread for each share: leave out --threads"));
    }
    if [arguments.silent, arguments.slow_loris].iter().any(|count| count > KE_CONCURRENCY.end()) {
        return Err(CommandError::usage("--silent and --slow-loris: 4096 connections at the most"));
    }
    let ke_server = match &arguments.ke_server {
        Some(server) => Some(resolve(server, NTS_KE_PORT)?),
        None => None,
    };
    let Prepared { plan, mut clients, .. } = prepare_nts(&arguments.nts, stop)?;
    let is_hostile = arguments.shares.iter().any(|share| share.twist != Twist::None);
    let targets = is_hostile.then_some(plan.target.ip()).into_iter();
    for target in targets.chain(ke_server.map(|server| server.ip())) {
        network::check(target, arguments.i_own_this_network)?;
    }
    if !load.no_probe {
        clients = probe(&plan, clients, stop)?;
    }
    let parts = parts(&arguments.shares, &plan, clients)?;
    // The server is looked at once, for all shares together.
    let watch = load.watch()?;
    let load = &LoadArguments { server_pid: None, server_control: None, ..load.clone() };
    let (mut reports, mut borne) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let offers: Vec<_> = parts
            .into_iter()
            .map(|(plan, clients)| scope.spawn(move || offer(load, &plan, clients, None, stop)))
            .collect();
        let manners =
            [(Manner::Silent, arguments.silent), (Manner::SlowLoris, arguments.slow_loris)];
        let holds: Vec<_> = ke_server
            .into_iter()
            .flat_map(|target| manners.map(|(manner, count)| (target, manner, count)))
            .filter(|(.., count)| *count > 0)
            .map(|(target, manner, count)| {
                let duration = plan.duration;
                (manner, scope.spawn(move || hold(target, manner, count, duration, stop)))
            })
            .collect();
        for offer in offers {
            reports.push(offer.join().expect("no panic")?.0);
        }
        for (manner, hold) in holds {
            borne.push((manner, hold.join().expect("no panic")));
        }
        Ok::<_, CommandError>(())
    })?;
    finish(arguments, &reports, &borne, &watch.finish())
}

fn finish(
    arguments: &MixArguments,
    reports: &[RunReport],
    borne: &[(Manner, Borne)],
    watched: &Watched,
) -> Result<u8, CommandError> {
    for (share, report) in arguments.shares.iter().zip(reports) {
        println!("-- {}", share.name);
        print!("{}", text(report));
    }
    for (manner, borne) in borne {
        println!("-- {manner:?} NTS-KE connections");
        println!("connected     {}, {} refused", borne.connected, borne.refused);
        println!("closed        {} by the server", borne.closed);
        if borne.closed > 0 {
            println!("lasted        {}", quantiles(&borne.lasted));
        }
    }
    if let Some(server) = watched.process {
        let seconds = server.cpu_ns as f64 / 1e9;
        println!("-- the server");
        println!("server CPU    {seconds:.2} s; {} socket drops", server.socket_drops);
    }
    if let Some(sample) = watched.counters.last() {
        println!("server counts {}", counters(sample));
    }
    if let Some(path) = &arguments.nts.load.json {
        write(path, &serde_json::to_string(reports)?)?;
    }
    let is_fine = reports.iter().all(|report| report.faults.is_empty());
    Ok(if is_fine { EXIT_FINE } else { EXIT_INVALID })
}

/// A plan and clients for each share.
fn parts(
    shares: &[Share],
    plan: &Plan,
    clients: Vec<Clients>,
) -> Result<Vec<(Plan, Vec<Clients>)>, CommandError> {
    let total: f64 = shares.iter().map(|share| share.weight).sum();
    let nts_parts = shares.iter().filter(|share| share.is_nts).count();
    let Some(Clients::Nts(associations, placeholders, cookie_use)) = clients.into_iter().next()
    else {
        unreachable!("they were prepared for NTS, with one thread")
    };
    if associations.len() < nts_parts {
        return Err(CommandError::usage("there are fewer clients than shares: ask for more"));
    }
    let mut split = associations.split(nts_parts.max(1)).into_iter();
    let parts = shares.iter().map(|share| {
        let rate_per_second = plan.rate_per_second * share.weight / total;
        let interleaved = plan.interleaved || share.interleaved;
        let plan = Plan { rate_per_second, interleaved, twist: share.twist, ..plan.clone() };
        if share.is_nts {
            let part = split.next().expect("as many as shares with NTS");
            (plan, vec![Clients::Nts(part, placeholders, cookie_use)])
        } else {
            (Plan { ask: Ask::Ntp, ..plan }, vec![Clients::Plain(CLIENTS_MINTED_DEFAULT)])
        }
    });
    Ok(parts.collect())
}

fn share(text: &str) -> Result<Share, String> {
    let wrong = || {
        "write nts=80,ntp=15,bad-cookie=5; also interleaved, nts-interleaved, \
                          bad-tag, replay, junk"
            .to_owned()
    };
    let (name, weight) = text.split_once('=').ok_or_else(wrong)?;
    let weight: f64 = weight.parse().map_err(|_| wrong())?;
    let (is_nts, twist) = match name {
        "nts" | "nts-interleaved" => (true, Twist::None),
        "ntp" | "interleaved" => (false, Twist::None),
        "bad-cookie" => (true, Twist::BadCookie),
        "bad-tag" => (true, Twist::BadTag),
        "replay" => (true, Twist::Replay),
        "junk" => (false, Twist::Junk),
        _ => return Err(wrong()),
    };
    if weight.is_finite() && weight > 0.0 {
        let interleaved = name.ends_with("interleaved");
        Ok(Share { name: name.to_owned(), is_nts, interleaved, twist, weight })
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kinds_with_weights() {
        let parsed = share("bad-tag=2.5").expect("a share");
        assert_eq!((parsed.is_nts, parsed.twist, parsed.weight), (true, Twist::BadTag, 2.5));
        let parsed = share("nts-interleaved=1").expect("a share");
        assert_eq!((parsed.is_nts, parsed.interleaved, parsed.twist), (true, true, Twist::None));
        for wrong in ["", "nts", "nts=", "nts=0", "nts=-1", "nts=inf", "nts=NaN", "sntp=1"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }
}

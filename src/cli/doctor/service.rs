//! The server itself: its health, its ports, and the clock that it serves.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;

use super::{Findings, Patient};
use crate::cli::remote::{PlainNtp, Sampler};
use crate::clock::source::Source;
use crate::config::clock::ChronydAddress;
use crate::host::facts::Host;
use crate::host::network::{Holder, Protocol, holders};
use crate::limits::commands::DOCTOR_ANSWER_WAIT;
use crate::process::control::{AskError, Request, ask};
use crate::process::status::Status;

/// What the running server says of itself. Returns whether there is one.
pub(super) fn server(patient: &Patient<'_>, findings: &mut Findings) -> bool {
    let check = "server";
    match ask::<Status>(&patient.settings.control_socket(), Request::Status) {
        Ok(status) if status.health.ready => {
            findings.ok(check, format!("timeball {} runs and is ready", status.release));
            true
        }
        Ok(status) => {
            for reason in status.health.reasons {
                findings.fail(check, reason, "`timeball status` and the server's log say more");
            }
            true
        }
        Err(AskError::NoServer(_)) => {
            findings.ok(check, "none runs with this configuration");
            false
        }
        Err(error @ AskError::Forbidden(_)) => {
            findings.hidden(check, error.to_string(), "look as root");
            false
        }
        Err(error) => {
            findings.fail(check, error.to_string(), "`systemctl restart timeball`");
            true
        }
    }
}

/// Each address: free, or the server's, which answers there.
pub(super) fn ports(patient: &Patient<'_>, is_running: bool, findings: &mut Findings) {
    let settings = patient.settings;
    let udp = settings.ntp_listen.iter().map(|address| (Protocol::Udp, *address));
    let ke = settings.ke.iter().flat_map(|ke| &ke.listen);
    let tcp = ke.chain(&settings.observe_listen).map(|address| (Protocol::Tcp, *address));
    for (protocol, address) in udp.chain(tcp) {
        let what = format!("{} {address}", protocol.name());
        let holders = holders(patient.host, protocol, address);
        let other = holders.iter().find(|holder| !is_ours(holder));
        match other {
            None if holders.is_empty() && is_running => {
                let text = format!("{what} is configured, and the running server is not there");
                findings.fail("port", text, "`systemctl restart timeball`");
            }
            None if holders.is_empty() => findings.ok("port", format!("{what} is free")),
            None => {
                findings.ok("port", format!("{what} is timeball's"));
                if protocol == Protocol::Udp && !is_allowed(patient, nearest(address.ip())) {
                    let text = format!("{what} is not answered by access.allow; not asked");
                    findings.ok("answer", text);
                } else {
                    answer(protocol, address, findings);
                }
            }
            Some(Holder { process: Some((pid, name)) }) => {
                let text = format!("{what} is taken by {name}, process {pid}");
                findings.fail("port", text, way_out(name));
            }
            Some(Holder { process: None }) => {
                let text = format!("{what} is taken by a program that this user may not see");
                findings.hidden("port", text, "look as root");
            }
        }
    }
}

/// Whether this host is answered when it asks `ip`, which is then its own address. If the lists
/// cannot be read, asking tells.
fn is_allowed(patient: &Patient<'_>, ip: IpAddr) -> bool {
    patient.settings.access.read().map_or(true, |answered| answered.contains(ip))
}

fn is_ours(holder: &Holder) -> bool {
    holder.process.as_ref().is_some_and(|(_, name)| name == "timeball")
}

/// How another program lets go of a port.
fn way_out(name: &str) -> String {
    let known = match name {
        "chronyd" => {
            "`port 0` in chrony.conf, then `systemctl restart chrony`; it goes on keeping the clock"
        }
        "systemd-timesyncd" | "systemd-timesyn" => "systemctl disable --now systemd-timesyncd",
        "ntpd" => {
            "systemctl disable --now ntpsec (or ntp, openntpd), and let chrony with `port 0` keep \
             the clock"
        }
        "ntp-daemon" => "take [[server]] out of ntp.toml, then `systemctl restart ntpd-rs`",
        name => return format!("stop {name}, or choose another address in the configuration"),
    };
    known.to_owned()
}

/// Whether what listens answers, asked from this host.
fn answer(protocol: Protocol, address: SocketAddr, findings: &mut Findings) {
    let near = SocketAddr::new(nearest(address.ip()), address.port());
    let answered = match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&near, DOCTOR_ANSWER_WAIT)
            .map(drop)
            .map_err(|error| error.to_string()),
        Protocol::Udp => Sampler::new(PlainNtp, near, DOCTOR_ANSWER_WAIT)
            .and_then(|mut sampler| sampler.sample())
            .map(drop)
            .map_err(|error| error.to_string()),
    };
    let what = format!("{} {near}", protocol.name());
    match answered {
        Ok(()) => findings.ok("answer", format!("{what} answers this host")),
        Err(why) => {
            let text = format!("{what} does not answer this host: {why}");
            let fix = "`timeball status`; a rule on the interface lo, or a server that hangs";
            findings.fail("answer", text, fix);
        }
    }
}

/// By which address this host reaches its own wildcard.
fn nearest(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// Programs that keep a clock, by the names of their processes, which the kernel cuts at fifteen
/// letters.
const DAEMONS: [&str; 5] = ["chronyd", "ntpd", "ntp-daemon", "systemd-timesyn", "ptp4l"];

/// Whether somebody keeps the clock, and whether clients will be told so.
pub(super) fn clock(patient: &Patient<'_>, findings: &mut Findings) {
    let daemons = daemons(patient.host);
    let source = patient.settings.clock.source;
    let check = "time daemon";
    match daemons.as_slice() {
        [] if source == Source::Local => {
            findings.ok(check, "none runs, and clock.source = \"local\" needs none");
        }
        [] => {
            let text = "none runs, so nobody keeps the clock of this host";
            findings.fail(check, text, "apt install chrony (dnf install chrony), with `port 0`");
        }
        [daemon] => findings.ok(check, format!("{daemon} runs")),
        several => {
            let text = format!("{} set the clock against each other", several.join(" and "));
            findings.warn(check, text, "systemctl disable --now all but one of them");
        }
    }
    let is_kept_by = |name: &str| daemons.iter().any(|daemon| daemon == name);
    match source {
        Source::Local => {
            let text = "served as it is: nobody vouches for it (clock.source = \"local\")";
            findings.ok("clock", text);
        }
        Source::Kernel => kernel(patient, is_kept_by("chronyd"), findings),
        Source::Follow => followed(patient, findings),
    }
}

fn daemons(host: &Host) -> Vec<String> {
    let pids = host.names("/proc").into_iter().filter(|name| name.parse::<u32>().is_ok());
    let names = pids.filter_map(|pid| host.read(&format!("/proc/{pid}/comm")).ok());
    let mut daemons: Vec<String> = names.filter(|name| DAEMONS.contains(&name.as_str())).collect();
    daemons.sort();
    daemons.dedup();
    daemons
}

fn kernel(patient: &Patient<'_>, is_chronyd: bool, findings: &mut Findings) {
    let check = "clock";
    match patient.host.kernel().clock() {
        Err(error) => {
            let text = format!("the kernel does not say how it fares (adjtimex): {error}");
            findings.hidden(check, text, "allow the call, or clock.source = \"follow\"");
        }
        Ok(clock) if clock.synchronised => {
            let bound = clock.error_bound.as_secs_f64();
            findings.ok(check, format!("the kernel says synchronised, within {bound:.6} s"));
        }
        Ok(_) => {
            let fix = match is_chronyd {
                true => {
                    "`rtcsync` in chrony.conf and a restart of it, or clock.source = \"follow\""
                }
                false => "let a time daemon keep the clock; `chronyc waitsync` waits for it",
            };
            let text = "the kernel calls its clock unsynchronised, and so are clients told (leap \
                        3, stratum 0)";
            findings.fail(check, text, fix);
        }
    }
}

/// Whether somebody listens where the followed daemon is asked.
fn followed(patient: &Patient<'_>, findings: &mut Findings) {
    let check = "clock";
    let clock = &patient.settings.clock;
    let is_udp_there = |address| !holders(patient.host, Protocol::Udp, address).is_empty();
    match &clock.chronyd {
        Some(ChronydAddress::Udp(address)) if is_udp_there(*address) => {
            findings.ok(check, format!("somebody listens at {address}, where chronyd is asked"));
        }
        Some(ChronydAddress::Udp(address)) => {
            let text = format!("nobody listens at {address}, where chronyd is asked");
            let fix = format!("`cmdport {}` in chrony.conf, and a restart of it", address.port());
            findings.fail(check, text, fix);
        }
        Some(ChronydAddress::Unix(path)) if Path::exists(path) => {
            findings.ok(check, format!("chronyd's socket {} is there", path.display()));
        }
        Some(ChronydAddress::Unix(path)) => {
            let text = format!("chronyd's socket {} is not there", path.display());
            findings.fail(check, text, "systemctl start chrony");
        }
        None => {}
    }
    match clock.follow {
        Some(address) if is_udp_there(address) => {
            findings.ok(check, format!("somebody listens at {address}, where the time is asked"));
        }
        Some(address) => {
            let text = format!("nobody listens at {address}, where the time is asked");
            let fix = format!("`port {}` in chrony.conf, and a restart of it", address.port());
            findings.fail(check, text, fix);
        }
        None => {}
    }
}

//! Packet filters: whether requests come through, and whether they cost states.

use std::net::SocketAddr;

use super::{Findings, Patient};
use crate::host::facts::{Host, ToolError};
use crate::host::network::Protocol;
use crate::limits::NTP_PORT;

/// What the packet filter's own tool lists.
pub(super) enum Rules {
    /// `nft list ruleset`.
    Nft(String),
    /// `iptables-save`.
    Iptables(String),
    /// Neither, and why.
    Hidden(String),
}

impl Rules {
    pub(super) fn read(host: &Host) -> Self {
        match host.run("nft", &["list", "ruleset"]) {
            Ok(text) => return Self::Nft(text),
            Err(error @ ToolError::Failed { .. }) => return Self::Hidden(error.to_string()),
            Err(ToolError::Absent(_)) => {}
        }
        match host.run("iptables-save", &[]) {
            Ok(text) => Self::Iptables(text),
            Err(ToolError::Absent(_)) => {
                Self::Hidden("neither nft nor iptables-save is installed".to_owned())
            }
            Err(error) => Self::Hidden(error.to_string()),
        }
    }

    fn lines(&self) -> impl Iterator<Item = &str> {
        let text = match self {
            Self::Nft(text) | Self::Iptables(text) => text.as_str(),
            Self::Hidden(_) => "",
        };
        text.lines().map(str::trim)
    }

    /// Whether what no rule accepts is thrown away: by the policy of a chain, or by a last rule
    /// without a condition.
    fn refuses_by_default(&self) -> bool {
        match self {
            Self::Nft(_) => {
                let mut is_input = false;
                self.lines().any(|line| {
                    if line.starts_with("chain ") {
                        is_input = false;
                    }
                    is_input |= line.contains("hook input");
                    is_input && (line.contains("policy drop") || is_refusal(line))
                })
            }
            Self::Iptables(_) => self.lines().any(|line| {
                line.starts_with(":INPUT DROP")
                    || line == "-A INPUT -j DROP"
                    || line.starts_with("-A INPUT -j REJECT")
            }),
            Self::Hidden(_) => false,
        }
    }

    /// Rules about what goes to `port`.
    fn about(&self, protocol: Protocol, port: u16) -> impl Iterator<Item = &str> {
        self.of_port("dport", protocol, port)
    }

    /// Rules about datagrams or connections whose `end`, `dport` or `sport`, is `port`.
    fn of_port(
        &self,
        end: &'static str,
        protocol: Protocol,
        port: u16,
    ) -> impl Iterator<Item = &str> {
        let name = protocol.name();
        let service = if port == NTP_PORT { "ntp" } else { "" };
        self.lines().filter(move |line| {
            let Some((before, after)) = line.split_once(end) else { return false };
            let divides = |c: char| c == ',' || c == '{' || c == '}' || c.is_whitespace();
            // A set of ports stands in braces; iptables has it behind `--dports`.
            let ports = after.trim_start_matches('s').trim_start();
            let ports = match ports.strip_prefix('{') {
                Some(set) => set.split('}').next().unwrap_or_default(),
                None => ports.split_whitespace().next().unwrap_or_default(),
            };
            let mut words = ports.split(divides).filter(|word| !word.is_empty());
            words.any(|word| word == service || has_port(word, port))
                && (before.contains(name) || before.contains("th "))
        })
    }

    /// Whether the kernel keeps no state for what goes to `port`, nor for what comes from it: an
    /// answer to a request that it did not track is a new connection to it.
    fn leaves_out(&self, port: u16) -> bool {
        ["dport", "sport"].iter().all(|end| {
            let mut rules = self.of_port(end, Protocol::Udp, port);
            rules.any(|line| ["notrack", "NOTRACK"].iter().any(|word| line.contains(word)))
        })
    }

    fn accepts(&self, protocol: Protocol, port: u16) -> bool {
        self.about(protocol, port).any(|line| line.contains("accept") || line.contains("ACCEPT"))
    }

    /// Whether a rule throws away whatever comes to `port`: one that asks for more, such as a
    /// source or a rate, is its author's business.
    fn refuses(&self, protocol: Protocol, port: u16) -> bool {
        let refusals = ["drop", "reject", "DROP", "REJECT"];
        self.about(protocol, port).any(|line| {
            refusals.iter().any(|word| line.contains(word))
                && !CONDITIONS.iter().any(|word| line.contains(word))
        })
    }
}

/// Words of a rule that holds for some packets only, or for none that are for this host: of nft,
/// then of iptables.
const CONDITIONS: [&str; 18] = [
    "addr ",
    "limit ",
    "meter ",
    "quota ",
    "ct ",
    "iif",
    "oif",
    "mark ",
    "@",
    "-s ",
    "-d ",
    "-i ",
    "-o ",
    "--mark",
    "--limit",
    "--hashlimit",
    "--ctstate",
    "-A FORWARD",
];

/// Whether a port, or a range of them (`120-130`, of iptables `120:130`), has `port` in it.
fn has_port(word: &str, port: u16) -> bool {
    let (first, last) = word.split_once(['-', ':']).unwrap_or((word, word));
    match (first.parse::<u16>(), last.parse()) {
        (Ok(first), Ok(last)) => (first..=last).contains(&port),
        _ => false,
    }
}

/// A rule of nft without a condition: `drop`, `reject with …`, or these behind a counter.
fn is_refusal(line: &str) -> bool {
    let verdict = match line.strip_prefix("counter packets ") {
        Some(counted) => counted.splitn(4, ' ').nth(3).unwrap_or_default(),
        None => line,
    };
    verdict == "drop" || verdict.split(' ').next() == Some("reject")
}

/// Whether strangers reach the ports. Chains that are jumped to are not followed, so a rule that
/// names the port is believed wherever it stands.
pub(super) fn openings(patient: &Patient<'_>, rules: &Rules, findings: &mut Findings) {
    if let Rules::Hidden(why) = rules {
        let text = format!("rules cannot be seen: {why}");
        return findings.hidden("firewall", text, "look as root with nft installed");
    }
    let settings = patient.settings;
    let udp = settings.ntp_listen.iter().map(|address| (Protocol::Udp, *address));
    let ke = settings.ke.iter().flat_map(|ke| &ke.listen);
    let tcp = ke.map(|address| (Protocol::Tcp, *address));
    let mut ports: Vec<(Protocol, u16)> = udp
        .chain(tcp)
        .filter(|(_, address)| !address.ip().is_loopback())
        .map(|(protocol, address)| (protocol, address.port()))
        .collect();
    ports.dedup();
    if ports.is_empty() {
        findings.ok("firewall", "only this host is served, so there is nothing to open");
    }
    for (protocol, port) in ports {
        let what = format!("{} {port}", protocol.name());
        if rules.refuses(protocol, port) {
            let text = format!("a rule throws away what comes to {what}");
            findings.fail("firewall", text, "`nft -a list ruleset` shows it; delete it");
        } else if rules.refuses_by_default() && !rules.accepts(protocol, port) {
            let text = format!("what no rule accepts is thrown away, and none accepts {what}");
            findings.fail("firewall", text, opening(patient.host, protocol, port));
        } else {
            findings.ok("firewall", format!("no rule of this host keeps {what} out"));
        }
    }
}

/// The command of whoever manages the rules.
fn opening(host: &Host, protocol: Protocol, port: u16) -> String {
    let protocol = protocol.name();
    if host.tool("ufw").is_some() {
        format!("ufw allow {port}/{protocol}")
    } else if host.tool("firewall-cmd").is_some() {
        format!("firewall-cmd --permanent --add-port={port}/{protocol} && firewall-cmd --reload")
    } else if host.tool("nft").is_some() {
        format!("nft insert rule inet filter input {protocol} dport {port} accept")
    } else {
        format!("iptables -I INPUT -p {protocol} --dport {port} -j ACCEPT")
    }
}

/// The command that makes the kernel keep no state for `port`, both ways.
fn untrack(rules: &Rules, port: u16) -> String {
    match rules {
        Rules::Iptables(_) => format!(
            "for tool in iptables ip6tables; do $tool -t raw -A PREROUTING -p udp --dport {port} \
             -j CT --notrack; $tool -t raw -A OUTPUT -p udp --sport {port} -j CT --notrack; done"
        ),
        Rules::Nft(_) | Rules::Hidden(_) => format!(
            "nft add table inet timeball; nft 'add chain inet timeball in {{ type filter hook \
             prerouting priority raw; }}'; nft 'add chain inet timeball out {{ type filter hook \
             output priority raw; }}'; nft add rule inet timeball in udp dport {port} notrack; nft \
             add rule inet timeball out udp sport {port} notrack"
        ),
    }
}

/// A state of the kernel for every client of a service that keeps none.
pub(super) fn connection_tracking(patient: &Patient<'_>, rules: &Rules, findings: &mut Findings) {
    let check = "connection tracking";
    let host = patient.host;
    let Some(count) = host.number("/proc/sys/net/netfilter/nf_conntrack_count") else {
        return findings.ok(check, "the kernel tracks no connections");
    };
    let max = host.number("/proc/sys/net/netfilter/nf_conntrack_max").unwrap_or(u64::MAX);
    let port = patient.settings.ntp_listen.first().map_or(NTP_PORT, SocketAddr::port);
    let fix = untrack(rules, port);
    if rules.leaves_out(port) {
        findings.ok(check, format!("udp {port} is left out"));
    } else if count >= max / 5 * 4 {
        let text = format!(
            "the table is nearly full ({count} of {max}); then the kernel drops whoever is new, \
             and each client of udp {port} takes a place in it"
        );
        findings.fail(check, text, fix);
    } else if let Rules::Hidden(why) = rules {
        let text = format!(
            "the kernel tracks connections ({count} of {max}); whether udp {port} is left out \
             cannot be seen: {why}"
        );
        findings.hidden(check, text, fix);
    } else {
        let text = format!(
            "the kernel keeps a state for each client of udp {port} ({count} of {max} are taken), \
             which costs time and fills the table"
        );
        findings.warn(check, text, fix);
    }
}

//! chrony.conf(5) as of chrony 4.8.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::directives::Directive;
use super::{
    Access, Fate, Finding, Import, Verdict, changed, ignored, kept, listen, missing,
    set_certificates,
};
use crate::aead::Algorithm;
use crate::config::address::parse_network;
use crate::ke::negotiate::NtpServer;
use crate::limits::commands::IMPORT_FOLLOWED_PORT;
use crate::limits::{KE_CONNECTIONS_MAX, KE_PROCESSES_MAX, KEY_ROTATION, NTP_PORT, NTS_KE_PORT};

/// Turns the directives of a chronyd that serves time into timeball's, which serves beside it.
/// chronyd goes on keeping the clock.
pub fn import(directives: &[Directive]) -> Import {
    let mut import = Import::default();
    let mut server = Server::default();
    for directive in directives {
        let (fate, why) = server.take(directive);
        let place = directive.place.clone();
        let mut words = vec![directive.name.clone()];
        words.extend(directive.arguments.iter().cloned());
        import.findings.push(Finding { place, directive: words.join(" "), fate, why });
    }
    server.finish(&mut import);
    import
}

/// The serving half of chronyd, as far as it was read.
#[derive(Debug, Default)]
struct Server {
    port: Option<u16>,
    ke_port: Option<u16>,
    v4: Option<IpAddr>,
    v6: Option<IpAddr>,
    device: Option<String>,
    dscp: Option<u8>,
    certificates: Vec<String>,
    keys: Vec<String>,
    processes: Option<usize>,
    connections: Option<usize>,
    ntp_server: Option<String>,
    aeads: Option<Vec<i64>>,
    rotation: Option<u64>,
    key_directory: Option<String>,
    command_port: Option<u16>,
    command_socket: Option<String>,
    is_smoothed: bool,
    access: Access,
    is_allowed: bool,
}

impl Server {
    fn take(&mut self, directive: &Directive) -> Verdict {
        let first = directive.arguments.first().map_or("", String::as_str);
        match directive.name.as_str() {
            "port" if first == "0" => ignored("chronyd's port is closed already"),
            "port" => take(&mut self.port, number(first, 1..=u16::MAX), "ntp.listen"),
            "bindaddress" => self.address(first),
            "binddevice" => take(&mut self.device, text(first), "ntp.bind_device"),
            "dscp" => take(&mut self.dscp, number(first, 0..=63), "ntp.dscp"),
            "ntsport" => take(&mut self.ke_port, number(first, 1..=u16::MAX), "ke.listen"),
            "ntsservercert" => push(&mut self.certificates, first, "ke.certificate"),
            "ntsserverkey" => push(&mut self.keys, first, "ke.key"),
            "ntsprocesses" => self.processes(first),
            "maxntsconnections" => self.connections(first),
            "ntsntpserver" => self.ntp_server(first),
            "ntsaeads" => self.aeads(&directive.arguments),
            "ntsrotate" => self.rotation(first),
            "ntsdumpdir" | "ntscachedir" => {
                self.key_directory = text(first);
                changed("the keys go to timeball's state directory (below: what is left to do)")
            }
            "cmdport" => take(&mut self.command_port, number(first, 0..=u16::MAX), "clock.chronyd"),
            "bindcmdaddress" if first.starts_with('/') && first.len() > 1 => {
                take(&mut self.command_socket, text(first), "clock.chronyd, if cmdport is 0")
            }
            "local" => kept("clock.source = \"follow\": clients are told what chronyd says"),
            "smoothtime" => {
                self.is_smoothed = true;
                changed("clock.follow: the smoothed time is held against chronyd's NTP replies")
            }
            "allow" => self.access(directive, true),
            "deny" => self.access(directive, false),
            name => by_table(name),
        }
    }

    fn address(&mut self, first: &str) -> Verdict {
        let Ok(address) = first.parse::<IpAddr>() else { return no_value("ntp.listen") };
        // chronyd has one of each family; the last one holds.
        *(if address.is_ipv4() { &mut self.v4 } else { &mut self.v6 }) = Some(address);
        kept("ntp.listen and ke.listen")
    }

    fn processes(&mut self, first: &str) -> Verdict {
        let Some(count) = number(first, 0..=1000) else { return no_value("ke.processes") };
        self.processes = Some(count.clamp(1, KE_PROCESSES_MAX));
        match count {
            0 => changed("ke.processes = 1: timeball always does NTS-KE in a process of its own"),
            count if count > KE_PROCESSES_MAX => {
                changed(format!("ke.processes takes {KE_PROCESSES_MAX} at the most"))
            }
            _ => kept("ke.processes"),
        }
    }

    fn connections(&mut self, first: &str) -> Verdict {
        self.connections = number(first, 1..=usize::MAX);
        match self.connections {
            Some(_) => changed("ke.connections_max, which is for all processes together"),
            None => no_value("ke.connections_max"),
        }
    }

    fn ntp_server(&mut self, first: &str) -> Verdict {
        let server = NtpServer::from_str(first).ok().map(|server| server.to_string());
        take(&mut self.ntp_server, server, "ke.ntp_server")
    }

    fn aeads(&mut self, arguments: &[String]) -> Verdict {
        let mut known = Vec::new();
        for argument in arguments {
            let id = number(argument, 0..=u16::MAX);
            if let Some(id) = id.filter(|id| Algorithm::from_id(*id).is_some())
                && !known.contains(&i64::from(id))
            {
                known.push(i64::from(id));
            }
        }
        let all_known = known.len() == arguments.len();
        let mandatory = i64::from(Algorithm::AesSivCmac256.id());
        let has_mandatory = known.contains(&mandatory);
        if !has_mandatory {
            known.push(mandatory);
        }
        self.aeads = Some(known);
        match (all_known, has_mandatory) {
            (true, true) => kept("ke.aeads"),
            (_, false) => changed("ke.aeads, with 15, which every server has to have"),
            (false, true) => changed("ke.aeads, without what timeball does not know"),
        }
    }

    fn rotation(&mut self, first: &str) -> Verdict {
        let Some(seconds) = number(first, 0..=u64::MAX) else {
            return no_value("keys.rotate_every");
        };
        let [min, max] = [KEY_ROTATION.start().as_secs(), KEY_ROTATION.end().as_secs()];
        match seconds {
            0 => {
                self.rotation = Some(0);
                changed("keys.rotate = \"external\": a replaced ntskeys is noticed by itself")
            }
            seconds => {
                self.rotation = Some(seconds.clamp(min, max));
                match seconds.clamp(min, max) == seconds {
                    true => kept("keys.rotate_every"),
                    false => changed("keys.rotate_every takes \"1 hour\" to \"366 days\""),
                }
            }
        }
    }

    fn access(&mut self, directive: &Directive, is_allowed: bool) -> Verdict {
        let key = if is_allowed { "access.allow" } else { "access.deny" };
        let subnet = directive.arguments.iter().find(|word| word.as_str() != "all");
        let networks = match subnet.map(|subnet| network(subnet)) {
            None => everybody().to_vec(),
            Some(Some(network)) => vec![network],
            Some(None) => return missing(format!("{key} takes networks, and no names")),
        };
        self.is_allowed |= is_allowed;
        for network in networks {
            self.access.add(network, is_allowed);
        }
        match subnet.is_some() && directive.arguments.len() > 1 {
            true => changed(format!("{key}; what was said of networks within it stays")),
            false => kept(key),
        }
    }

    fn finish(self, import: &mut Import) {
        self.set_addresses(import);
        self.set_key_establishment(import);
        self.access.set(import);
        if let Some(device) = &self.device {
            import.set("ntp", "bind_device", device.as_str());
        }
        if let Some(dscp) = self.dscp {
            import.set("ntp", "dscp", i64::from(dscp));
        }
        match self.rotation {
            Some(0) => import.set("keys", "rotate", "external"),
            Some(seconds) => import.set("keys", "rotate_every", seconds as i64),
            None => {}
        }
        self.set_clock(import);
        self.add_steps(import);
    }

    fn set_addresses(&self, import: &mut Import) {
        let addresses = [
            self.v4.unwrap_or(Ipv4Addr::UNSPECIFIED.into()),
            self.v6.unwrap_or(Ipv6Addr::UNSPECIFIED.into()),
        ];
        let is_chosen = self.v4.is_some() || self.v6.is_some();
        for (section, port, usual) in
            [("ntp", self.port, NTP_PORT), ("ke", self.ke_port, NTS_KE_PORT)]
        {
            let port = port.unwrap_or(usual);
            if is_chosen || port != usual {
                import.set(
                    section,
                    "listen",
                    listen(addresses.map(|ip| SocketAddr::new(ip, port))),
                );
            }
        }
    }

    fn set_key_establishment(&self, import: &mut Import) {
        let pairs: Vec<(String, String)> =
            self.certificates.iter().cloned().zip(self.keys.iter().cloned()).collect();
        set_certificates(import, &pairs);
        if let Some(processes) = self.processes {
            import.set("ke", "processes", processes as i64);
        }
        if let Some(each) = self.connections {
            let all = each.saturating_mul(self.processes.unwrap_or(1)).min(KE_CONNECTIONS_MAX);
            import.set("ke", "connections_max", all as i64);
        }
        if let Some(server) = &self.ntp_server {
            import.set("ke", "ntp_server", server.as_str());
        }
        if let Some(aeads) = &self.aeads {
            import.set("ke", "aeads", aeads.clone());
        }
    }

    fn set_clock(&self, import: &mut Import) {
        import.set("clock", "source", "follow");
        match (self.command_port, &self.command_socket) {
            (Some(0), socket) => {
                import.set("clock", "chronyd", socket.as_deref().unwrap_or(CHRONYD_SOCKET));
            }
            (Some(port), _) => import.set("clock", "chronyd", format!("127.0.0.1:{port}")),
            (None, _) if self.is_smoothed => import.set("clock", "chronyd", "127.0.0.1:323"),
            (None, _) => {}
        }
        if self.is_smoothed {
            import.set("clock", "follow", format!("127.0.0.1:{IMPORT_FOLLOWED_PORT}"));
        }
    }

    fn add_steps(&self, import: &mut Import) {
        let steps = &mut import.steps;
        if !self.is_allowed {
            steps.push(
                "There is no \"allow\" in the file, so this chronyd has served nobody. timeball \
                 answers everybody."
                    .to_owned(),
            );
        }
        if self.certificates.len() != self.keys.len() {
            steps.push(
                "Certificates and keys are not equally many: the pairs below may be wrong."
                    .to_owned(),
            );
        }
        if let Some(directory) = &self.key_directory {
            steps.push(format!(
                "Stop chronyd and take its keys, so that no cookie becomes invalid: install -o \
                 timeball -g timeball -m 0600 {directory}/ntskeys /var/lib/timeball/ntskeys"
            ));
        }
        steps.push(match self.is_smoothed {
            false => "In chrony.conf write \"port 0\" and remove ntsservercert and ntsserverkey: \
                 chronyd goes on keeping the clock, and timeball asks it."
                .to_owned(),
            true => format!(
                "In chrony.conf write \"port {IMPORT_FOLLOWED_PORT}\", \"bindaddress 127.0.0.1\" \
                 and \"allow 127.0.0.1\", and remove ntsservercert and ntsserverkey: chronyd goes \
                 on keeping the clock, and timeball asks it."
            ),
        });
        steps.push(
            "Start chronyd, then timeball. docs/MIGRATION.md has it step by step.".to_owned(),
        );
    }
}

/// Where chronyd has its socket if it is not told, chrony.conf(5).
const CHRONYD_SOCKET: &str = "/run/chrony/chronyd.sock";

/// Remembers a value, if it is one.
fn take<T>(place: &mut Option<T>, value: Option<T>, key: &str) -> Verdict {
    match value {
        None => no_value(key),
        value => {
            *place = value;
            kept(key)
        }
    }
}

fn push(list: &mut Vec<String>, value: &str, key: &str) -> Verdict {
    match (text(value), list.is_empty()) {
        (None, _) => no_value(key),
        (Some(value), is_first) => {
            list.push(value);
            kept(if is_first { key } else { "ke.certificates" })
        }
    }
}

fn no_value(key: &str) -> Verdict {
    missing(format!("what stands there is no value for {key}"))
}

fn text(argument: &str) -> Option<String> {
    (!argument.is_empty()).then(|| argument.to_owned())
}

/// All addresses.
fn everybody() -> [IpNet; 2] {
    ["0.0.0.0/0", "::/0"].map(|all| all.parse().expect("a network"))
}

/// A network as chrony.conf(5) has it: of an IPv4 address the end may be left out.
fn network(text: &str) -> Option<IpNet> {
    let found = parse_network(text).or_else(|| {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let mut octets = [0; 4];
        let words: Vec<&str> = address.split('.').collect();
        let (given, _) = octets.split_at_mut_checked(words.len())?;
        for (octet, word) in given.iter_mut().zip(&words) {
            *octet = word.parse().ok()?;
        }
        let bits = if prefix.is_empty() { 8 * words.len() as u8 } else { prefix.parse().ok()? };
        Some(Ipv4Net::new(octets.into(), bits).ok()?.into())
    });
    found.map(|network| network.trunc())
}

fn number<T: FromStr + PartialOrd>(argument: &str, range: RangeInclusive<T>) -> Option<T> {
    argument.parse().ok().filter(|number| range.contains(number))
}

/// Directives that become no key, whatever their arguments.
fn by_table(name: &str) -> Verdict {
    let found = REASONS.iter().find(|(names, ..)| names.contains(&name));
    found.map_or_else(
        || missing("this version of timeball does not know it"),
        |(_, fate, why)| (*fate, (*why).to_owned()),
    )
}

/// Names, what becomes of them, and why.
type Reason = (&'static [&'static str], Fate, &'static str);

const REASONS: [Reason; 11] = [
    (
        &[
            "server",
            "pool",
            "peer",
            "refclock",
            "initstepslew",
            "manual",
            "sourcedir",
            "authselectmode",
            "acquisitionport",
            "bindacqaddress",
            "bindacqdevice",
            "combinelimit",
            "maxdistance",
            "maxjitter",
            "minsources",
            "reselectdist",
            "stratumweight",
            "minsamples",
            "maxsamples",
            "refresh",
            "nocerttimecheck",
            "nosystemcert",
            "ntsrefresh",
            "ntstrustedcerts",
            "clockprecision",
            "corrtimeratio",
            "driftfile",
            "fallbackdrift",
            "leapsecmode",
            "leapsectz",
            "leapseclist",
            "makestep",
            "maxchange",
            "maxclockerror",
            "maxdrift",
            "maxupdateskew",
            "maxslewrate",
            "tempcomp",
            "hwclockfile",
            "rtcautotrim",
            "rtcdevice",
            "rtcfile",
            "rtconutc",
            "rtcsync",
            "dumpdir",
            "dumponexit",
            "logchange",
            "mailonchange",
            "maxntsassociations",
        ],
        Fate::Ignored,
        "it is about keeping the clock, which chronyd goes on doing; leave it in chrony.conf",
    ),
    (&["include", "confdir"], Fate::Kept, "the files that it names follow here"),
    (
        &["cmdallow", "cmddeny", "cmdratelimit", "bindcmdaddress", "bindcmddevice", "opencommands"],
        Fate::Ignored,
        "it is about chronyc; timeball's commands use a Unix socket (control.socket, control.mode)",
    ),
    (
        &["log", "logdir", "logbanner"],
        Fate::Ignored,
        "it is about chronyd's measurements; timeball has metrics (observe.listen) and the journal",
    ),
    (
        &["clientloglimit", "noclientlog"],
        Fate::Ignored,
        "timeball keeps no list of clients; for interleaved mode it has interleaved.entries",
    ),
    (
        &["user", "pidfile", "lock_all", "sched_priority", "maxtxbuffers", "hwtstimeout"],
        Fate::Ignored,
        "it is about chronyd's own process; timeball's unit has its user and its limits",
    ),
    (
        &["keyfile"],
        Fate::Ignored,
        "timeball knows no symmetric keys; clients that use them, if there are any, get no answer",
    ),
    (
        &["ratelimit"],
        Fate::Changed,
        "rate_limit.requests_per_second and the keys beside it limit every client by default",
    ),
    (
        &["ntsratelimit"],
        Fate::Changed,
        "ke.prefix_handshakes_per_second limits each prefix of clients by default",
    ),
    (
        &["hwtimestamp"],
        Fate::Ignored,
        "timeball takes the kernel's timestamps unless ntp.hardware_timestamps names the \
         interface, for which its unit needs another capability (docs/OPERATIONS.md)",
    ),
    (
        &["broadcast", "ntpsigndsocket", "ptpport", "ptpdomain"],
        Fate::Missing,
        "timeball has nothing like it: clients that rely on it get no answer",
    ),
];

#[cfg(test)]
mod tests {
    use super::super::directives::parse;
    use super::*;
    use crate::config::checked;

    fn imported(text: &str) -> Import {
        import(&parse(text, "chrony.conf"))
    }

    /// The fate of the only directive, and what the checked file says.
    fn fate(text: &str) -> (Fate, String) {
        let import = imported(text);
        let finding = &import.findings()[0];
        let file = import.text("chrony.conf");
        if let Err(error) = checked::parse(&file) {
            panic!("{text}: {error}\n{file}");
        }
        let keys = file.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>().join(" ");
        (finding.fate, keys)
    }

    #[test]
    fn every_kind_of_directive_has_its_fate() {
        for (line, expected, key) in [
            ("port 1123", Fate::Kept, "listen = [\"0.0.0.0:1123\", \"[::]:1123\"]"),
            ("port 0", Fate::Ignored, "source = \"follow\""),
            ("port x", Fate::Missing, ""),
            ("bindaddress 192.0.2.1", Fate::Kept, "[\"192.0.2.1:4460\", \"[::]:4460\"]"),
            ("binddevice eth0", Fate::Kept, "bind_device = \"eth0\""),
            ("dscp 46", Fate::Kept, "dscp = 46"),
            ("dscp 64", Fate::Missing, ""),
            ("NTSPort 14460", Fate::Kept, "\"0.0.0.0:14460\""),
            ("ntsprocesses 0", Fate::Changed, "processes = 1"),
            ("ntsprocesses 3", Fate::Kept, "processes = 3"),
            ("maxntsconnections 500", Fate::Changed, "connections_max = 500"),
            ("ntsntpserver time.example.org", Fate::Kept, "ntp_server = \"time.example.org\""),
            ("ntsntpserver time/example", Fate::Missing, ""),
            ("ntsaeads 30 15", Fate::Kept, "aeads = [30, 15]"),
            ("ntsaeads 30", Fate::Changed, "aeads = [30, 15]"),
            ("ntsaeads 15 99", Fate::Changed, "aeads = [15]"),
            ("ntsrotate 86400", Fate::Kept, "rotate_every = 86400"),
            ("ntsrotate 60", Fate::Changed, "rotate_every = 3600"),
            ("ntsrotate 0", Fate::Changed, "rotate = \"external\""),
            ("ntsdumpdir /var/lib/chrony", Fate::Changed, ""),
            ("cmdport 1323", Fate::Kept, "chronyd = \"127.0.0.1:1323\""),
            ("cmdport 0", Fate::Kept, "chronyd = \"/run/chrony/chronyd.sock\""),
            ("smoothtime 400 0.01", Fate::Changed, "follow = \"127.0.0.1:11123\""),
            ("local stratum 8", Fate::Kept, ""),
            ("allow", Fate::Kept, ""),
            ("allow 0/0", Fate::Kept, "allow = [\"0.0.0.0/0\"]"),
            ("allow 192.168/16", Fate::Kept, "allow = [\"192.168.0.0/16\"]"),
            ("allow 10.1", Fate::Kept, "allow = [\"10.1.0.0/16\"]"),
            ("allow 2001:db8::1", Fate::Kept, "allow = [\"2001:db8::1/128\"]"),
            ("allow all 10.0.0.0/8", Fate::Changed, "allow = [\"10.0.0.0/8\"]"),
            ("allow time.example.org", Fate::Missing, ""),
            ("deny 10.0.0.1", Fate::Kept, "deny = [\"10.0.0.1/32\"]"),
            ("deny all", Fate::Kept, ""),
            ("makestep 1 3", Fate::Ignored, ""),
            ("ratelimit interval 1", Fate::Changed, ""),
            ("unheardof 1", Fate::Missing, ""),
        ] {
            let (found, keys) = fate(line);
            assert_eq!(found, expected, "{line}");
            assert!(keys.contains(key), "{line}: {keys}");
        }
    }

    #[test]
    fn pairs_of_certificates_stay_pairs() {
        let import = imported(
            "ntsservercert /a.pem\nntsserverkey /a.key\nntsservercert /b.pem\nntsserverkey /b.key\n\
             ntsprocesses 4\nmaxntsconnections 100",
        );
        let settings = checked::parse(&import.text("chrony.conf")).expect("good");
        let ke = settings.ke.expect("certificates");
        let names: Vec<_> =
            ke.certificates.iter().map(|pair| pair.key.display().to_string()).collect();
        assert_eq!(names, ["/a.key", "/b.key"]);
        assert_eq!((ke.connections_max, ke.processes), (400, Some(4)));
    }

    /// Of one network the last word holds; of several, the longest prefix, as with chrony.
    #[test]
    fn access_is_what_it_was() {
        let text = "deny\nallow 10.0.0.0/8\ndeny 10.1.0.0/16\nallow 10.2.0.0/16\ndeny 10.2/16";
        let access = checked::parse(&imported(text).text("chrony.conf")).expect("good").access;
        let networks = |list: Vec<IpNet>| list.iter().map(IpNet::to_string).collect::<Vec<_>>();
        assert_eq!(networks(access.allow), ["10.0.0.0/8"]);
        assert_eq!(networks(access.deny), ["10.1.0.0/16", "10.2.0.0/16"]);
        let access = checked::parse(&imported("allow").text("chrony.conf")).expect("good").access;
        assert_eq!(networks(access.allow), ["0.0.0.0/0", "::/0"]);
    }

    #[test]
    fn what_is_left_to_do_depends_on_the_file() {
        let text = imported("ntsdumpdir /var/lib/chrony").text("chrony.conf");
        assert!(text.contains("has served nobody"), "{text}");
        assert!(text.contains("/var/lib/chrony/ntskeys /var/lib/timeball/ntskeys"), "{text}");
        assert!(text.contains("write \"port 0\""), "{text}");
        let text = imported("allow\nsmoothtime 400 0.01").text("chrony.conf");
        assert!(!text.contains("served nobody") && text.contains("\"port 11123\""), "{text}");
    }

    #[test]
    fn every_directive_stands_once_in_the_table() {
        let mut names: Vec<&str> = REASONS.iter().flat_map(|reason| reason.0).copied().collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}

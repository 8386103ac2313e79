use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use tempfile::TempDir;

use super::*;
use crate::certificate::self_signed;
use crate::clock::leap_list::tests::text as list;
use crate::config::checked::parse;
use crate::host::facts::tests::{FakeKernel, put, root};

/// A plain machine that nobody has set up, with what /proc and /sys show of it.
const MACHINE: [(&str, &str); 17] = [
    ("/proc/sys/net/core/rmem_max", "212992\n"),
    ("/proc/sys/net/core/wmem_max", "1048576\n"),
    ("/proc/sys/net/core/somaxconn", "4096\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_count", "3\n"),
    ("/proc/sys/net/netfilter/nf_conntrack_max", "65536\n"),
    ("/proc/net/udp", "  sl\n   1: 00000000:007B 00000000:0000 07 0:0 0:0 0 0 0 11 2 0 0\n"),
    ("/proc/net/fib_trie", "Local:\n  |-- 192.0.2.2\n     /32 host LOCAL\n"),
    ("/proc/77/comm", "chronyd\n"),
    (
        "/proc/self/limits",
        "Max open files            1024   1024   files\n\
                           Max locked memory         65536  65536  bytes\n",
    ),
    ("/sys/class/net/eth0/device/vendor", ""),
    ("/sys/class/net/eth0/operstate", "up\n"),
    ("/sys/class/net/eth0/mtu", "1500\n"),
    ("/sys/class/net/eth0/gro_flush_timeout", "0\n"),
    ("/sys/class/net/eth0/queues/rx-0/rps_cpus", "0\n"),
    ("/sys/devices/system/cpu/online", "0-3\n"),
    ("/sys/devices/system/cpu/isolated", "\n"),
    ("/sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
];

const OPEN: &str = "#!/bin/sh\n";
const ETHTOOL: &str = "#!/bin/sh\necho 'large-receive-offload: off [fixed]'\n";

/// The machine, and a server that is to run there.
struct Ward {
    root: TempDir,
    kernel: FakeKernel,
    configuration: String,
    cpus: Vec<usize>,
}

impl Ward {
    fn new() -> Self {
        let root = root(&MACHINE, &[("nft", OPEN), ("ethtool", ETHTOOL)]);
        fs::create_dir_all(root.path().join("proc/77/fd")).expect("made");
        symlink("socket:[11]", root.path().join("proc/77/fd/5")).expect("made");
        let state = root.path().join("state");
        fs::create_dir(&state).expect("made");
        fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).expect("ours");
        let configuration = format!(
            "state_directory = \"{state}\"\n[ntp]\nlisten = [\"0.0.0.0:1123\"]\n\
             [ke]\nlisten = [\"0.0.0.0:4460\"]\nprocesses = 4\n\
             certificate = \"{state}/cert.pem\"\nkey = \"{state}/key.pem\"\n",
            state = state.display(),
        );
        let kernel = FakeKernel { is_synchronised: true, has_ring: true };
        let ward = Self { root, kernel, configuration, cpus: vec![0] };
        ward.certify(&["time.example.org"], 90);
        ward
    }

    fn certify(&self, names: &[&str], days: i64) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let state = self.root.path().join("state");
        self_signed(&names, time::Duration::days(days), OffsetDateTime::now_utc())
            .expect("a certificate")
            .write(&state.join("cert.pem"), &state.join("key.pem"), true)
            .expect("written");
    }

    fn put(&self, path: &str, text: &str) {
        put(self.root.path(), path, text);
    }

    fn nft(&self, rules: &str) {
        self.put("/usr/sbin/nft", &format!("#!/bin/sh\ncat <<'END'\n{rules}\nEND\n"));
    }

    fn configure(&mut self, from: &str, to: &str) {
        assert!(self.configuration.contains(from), "{from}");
        self.configuration = self.configuration.replace(from, to);
    }

    fn examine(self) -> Vec<Finding> {
        let host = Host::of(self.root.path(), Box::new(self.kernel));
        let settings = parse(&self.configuration).expect("good");
        let now = OffsetDateTime::now_utc();
        let (cpus, is_embedded) = (self.cpus, false);
        let patient = Patient { host: &host, settings: &settings, cpus, is_embedded, now };
        let mut findings = Findings::default();
        examine(&patient, false, &mut findings);
        findings.0
    }
}

/// What is wrong, `state check: fix` each.
fn faults(findings: &[Finding]) -> Vec<String> {
    findings
        .iter()
        .filter(|finding| finding.state != State::Ok)
        .map(|Finding { check, state, fix, .. }| {
            format!("{} {check}: {}", state.word(), fix.as_deref().unwrap_or("none"))
        })
        .collect()
}

/// The one finding of a check that is not good.
fn fault<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    let mut of_check =
        findings.iter().filter(|found| found.check == check && found.state != State::Ok);
    let found = of_check.next().unwrap_or_else(|| panic!("no {check}: {findings:#?}"));
    assert_eq!(of_check.next(), None);
    found
}

#[test]
fn a_plain_machine_has_its_usual_faults_and_no_others() {
    let findings = Ward::new().examine();
    let expected = [
        "warning connection tracking: nft add table inet timeball; nft 'add chain inet timeball in \
         { type filter hook prerouting priority raw; }'; nft 'add chain inet timeball out { type \
         filter hook output priority raw; }'; nft add rule inet timeball in udp dport 1123 \
         notrack; nft add rule inet timeball out udp sport 1123 notrack",
        "warning receive buffer: sysctl -w net.core.rmem_max=1048576",
    ];
    assert_eq!(faults(&findings), expected);
    let seen: Vec<&str> = findings.iter().map(|finding| finding.check).collect();
    for check in CHECKS.iter().filter(|check| !["configuration", "answer"].contains(check)) {
        assert!(seen.contains(check), "{check} was not made");
    }
}

#[test]
fn a_port_that_another_daemon_has_is_named_with_its_way_out() {
    let mut ward = Ward::new();
    ward.configure("0.0.0.0:1123", "0.0.0.0:123");
    let findings = ward.examine();
    let found = fault(&findings, "port");
    assert_eq!(found.state, State::Critical);
    assert_eq!(found.text, "udp 0.0.0.0:123 is taken by chronyd, process 77");
    assert!(found.fix.as_deref().is_some_and(|fix| fix.starts_with("`port 0` in chrony.conf")));
}

#[test]
fn rules_that_keep_clients_out_are_found() {
    let drop = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; \
                policy drop;\n\t\ttcp dport { 22, 4460 } accept\n\t}\n}";
    let ward = Ward::new();
    ward.nft(drop);
    let findings = ward.examine();
    let found = fault(&findings, "firewall");
    assert_eq!(found.state, State::Critical);
    assert!(found.text.ends_with("none accepts udp 1123"), "{found:?}");
    let fix = "nft insert rule inet filter input udp dport 1123 accept";
    assert_eq!(found.fix.as_deref(), Some(fix));

    let ward = Ward::new();
    ward.put("/usr/sbin/ufw", "");
    ward.nft(drop);
    assert_eq!(fault(&ward.examine(), "firewall").fix.as_deref(), Some("ufw allow 1123/udp"));

    let ward = Ward::new();
    ward.nft(
        "table inet a {\n\tchain b {\n\t\tudp dport 1123 counter packets 0 bytes 0 drop\n\t}\n}",
    );
    assert!(fault(&ward.examine(), "firewall").text.contains("throws away what comes to udp 1123"));

    let open = [
        "4460 accept\n\t\tudp dport 1123 accept",
        "4460 accept\n\t\tudp dport 1000-2000 accept",
        // Whom it throws away is its author's business.
        "4460 accept\n\t\tip saddr 203.0.113.0/24 udp dport 1123 drop\n\t\tudp dport 1123 accept",
    ];
    for rules in open {
        let ward = Ward::new();
        ward.nft(&drop.replace("{ 22, 4460 } accept", rules));
        let findings = ward.examine();
        let is_fine = |it: &Finding| it.check != "firewall" || it.state == State::Ok;
        assert!(findings.iter().all(is_fine), "{rules}: {:?}", faults(&findings));
    }
}

#[test]
fn rules_of_iptables_are_read_too() {
    let save = "*raw\n\
        -A PREROUTING -p udp -m udp --dport 1123 -j NOTRACK\n\
        -A OUTPUT -p udp -m udp --sport 1123 -j CT --notrack\n\
        *filter\n\
        :INPUT DROP [0:0]\n\
        -A INPUT -p udp -m udp --dport 1123 -j ACCEPT\n\
        -A INPUT -p tcp -m multiport --dports 22,80 -j ACCEPT";
    let ward = Ward::new();
    fs::remove_file(ward.root.path().join("usr/sbin/nft")).expect("removed");
    ward.put("/usr/sbin/iptables-save", &format!("#!/bin/sh\ncat <<'END'\n{save}\nEND\n"));
    let script = ward.root.path().join("usr/sbin/iptables-save");
    fs::set_permissions(script, fs::Permissions::from_mode(0o755)).expect("ours");
    let findings = ward.examine();
    let found = fault(&findings, "firewall");
    assert!(found.text.ends_with("none accepts tcp 4460"), "{found:?}");
    let fix = "iptables -I INPUT -p tcp --dport 4460 -j ACCEPT";
    assert_eq!(found.fix.as_deref(), Some(fix));
    let tracking = findings.iter().find(|found| found.check == "connection tracking");
    assert_eq!(tracking.map(|found| found.text.as_str()), Some("udp 1123 is left out"));
}

/// What cannot be seen is not passed over.
#[test]
fn what_cannot_be_seen_is_said() {
    let ward = Ward::new();
    fs::remove_file(ward.root.path().join("usr/sbin/nft")).expect("removed");
    fs::remove_file(ward.root.path().join("usr/sbin/ethtool")).expect("removed");
    fs::remove_dir_all(ward.root.path().join("sys/devices/system/clocksource")).expect("removed");
    let findings = ward.examine();
    for check in ["firewall", "connection tracking", "offloads", "clock source"] {
        assert_eq!(fault(&findings, check).state, State::Unknown, "{check}");
    }
    assert!(fault(&findings, "firewall").text.contains("neither nft nor iptables-save"));
}

/// A reply whose request was not tracked would be tracked itself.
#[test]
fn connections_are_left_out_both_ways_or_not_at_all() {
    let request = "table inet t {\n\tchain in {\n\t\tudp dport 1123 notrack\n\t}\n}";
    let reply = "table inet t {\n\tchain out {\n\t\tudp sport { 123, 1123 } notrack\n\t}\n}";
    for (rules, state) in [
        (request.to_owned(), State::Warning),
        (reply.to_owned(), State::Warning),
        (format!("{request}\n{reply}"), State::Ok),
    ] {
        let ward = Ward::new();
        ward.nft(&rules);
        let findings = ward.examine();
        let found = findings.iter().find(|found| found.check == "connection tracking");
        assert_eq!(found.map(|found| found.state), Some(state), "{rules}");
    }
}

#[test]
fn a_full_table_of_connections_is_critical() {
    let ward = Ward::new();
    ward.put("/proc/sys/net/netfilter/nf_conntrack_count", "60000\n");
    assert_eq!(fault(&ward.examine(), "connection tracking").state, State::Critical);
}

#[test]
fn certificates_and_keys_are_looked_at() {
    let ward = Ward::new();
    ward.certify(&["other.example.org", "absent.example.org"], 10);
    let key = ward.root.path().join("state/key.pem");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("ours");
    let findings = ward.examine();
    let found = fault(&findings, "certificate");
    assert_eq!(found.state, State::Warning);
    assert!(found.text.contains("it expires in 9 days"), "{found:?}");
    let found = fault(&findings, "key file");
    assert_eq!(found.fix, Some(format!("chmod 0640 {}", key.display())));
    let names: Vec<&str> = findings
        .iter()
        .filter(|found| found.check == "name")
        .map(|found| found.text.as_str())
        .collect();
    assert!(names[0].starts_with("absent.example.org of the certificate has no address"));
    assert!(names[1].contains("leads to 198.51.100.7, which is no address of this host"));

    let ward = Ward::new();
    ward.put("/state/key.pem", "no key");
    let findings = ward.examine();
    assert_eq!(fault(&findings, "certificate").state, State::Critical);

    let ward = Ward::new();
    let other = Ward::new();
    fs::copy(other.root.path().join("state/key.pem"), ward.root.path().join("state/key.pem"))
        .expect("copied");
    let findings = ward.examine();
    assert!(fault(&findings, "certificate").text.contains("do not belong together"));
}

#[test]
fn a_leap_seconds_file_that_ends_soon_is_found() {
    let today = OffsetDateTime::now_utc().unix_timestamp() / 86_400;
    // It expires on the 178th midnight behind its last entry.
    let until = |days: i64| list(&[((today + days - 178) * 86_400, 37)]);
    for (content, state, says) in [
        (None, State::Ok, "none (clock.leap_file)"),
        (Some("garbage".to_owned()), State::Warning, "no leap second is announced from it"),
        (Some(until(100)), State::Ok, "expires in "),
        (Some(until(28)), State::Warning, "expires in "),
        (Some(until(0)), State::Warning, "has expired; no leap second is announced from it"),
    ] {
        let mut ward = Ward::new();
        if let Some(content) = content {
            let path = ward.root.path().join("state/leap-seconds.list");
            ward.configure("[ke]", &format!("[clock]\nleap_file = \"{}\"\n[ke]", path.display()));
            ward.put("/state/leap-seconds.list", &content);
        }
        let findings = ward.examine();
        let found = findings.iter().find(|found| found.check == "leap file").expect("looked at");
        assert_eq!(found.state, state, "{found:?}");
        assert!(found.text.contains(says), "{found:?}");
        let names_tzdata = found.fix.as_ref().is_some_and(|fix| fix.contains("tzdata"));
        assert_eq!(names_tzdata, state == State::Warning);
    }
}

/// As packages have it: root's, readable for the group of the server.
#[test]
fn a_key_of_a_certificate_may_be_readable_for_its_group() {
    for (mode, state) in [(0o640, State::Ok), (0o660, State::Warning), (0o644, State::Warning)] {
        let ward = Ward::new();
        let key = ward.root.path().join("state/key.pem");
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("ours");
        let findings = ward.examine();
        let found = findings.iter().find(|found| found.text.contains("key.pem"));
        assert_eq!(found.map(|found| found.state), Some(state), "{mode:o}");
    }
}

/// A unit runs the server as a user of its own, which is not the one that looks.
#[test]
fn what_the_service_s_user_cannot_read_is_critical() {
    let passwd = |ward: &Ward| {
        let gid = fs::metadata(ward.root.path()).expect("there").gid();
        ward.put("/usr/lib/systemd/system/timeball.service", "[Service]\nUser=timeball\n");
        ward.put("/etc/passwd", &format!("root:x:0:0::/:\ntimeball:x:4242:{gid}::/:\n"));
        let open = fs::Permissions::from_mode(0o755);
        fs::set_permissions(ward.root.path(), open).expect("ours");
    };
    let permit = |ward: &Ward, path: &str, mode: u32| {
        let path = ward.root.path().join(path);
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    let unreadable = |ward: Ward| -> Vec<(&'static str, String, Option<String>)> {
        let is_of_user = |found: &Finding| found.text.contains("the service's user");
        let found = ward.examine().into_iter().filter(is_of_user);
        found.map(|found| (found.check, found.text, found.fix)).collect()
    };

    let ward = Ward::new();
    passwd(&ward);
    permit(&ward, "state", 0o750);
    let key = ward.root.path().join("state/key.pem").display().to_string();
    let text = format!("{key} cannot be read by timeball, the service's user");
    let fix = format!("chgrp timeball {key}; chmod 0640 {key}");
    assert_eq!(unreadable(ward), [("key file", text, Some(fix))]);

    let ward = Ward::new();
    passwd(&ward);
    permit(&ward, "state", 0o750);
    permit(&ward, "state/key.pem", 0o640);
    assert_eq!(unreadable(ward), [], "its group may read it");

    // As certbot has it: nobody may enter the folder.
    let ward = Ward::new();
    passwd(&ward);
    let found = unreadable(ward);
    let checks: Vec<&str> = found.iter().map(|(check, ..)| *check).collect();
    assert_eq!(checks, ["certificate", "key file"]);
    for (_, text, fix) in &found {
        assert!(text.contains(", who may not enter ") && text.ends_with("/state"), "{text}");
        assert!(fix.as_ref().is_some_and(|fix| fix.contains("examples/certificates")));
    }

    let ward = Ward::new();
    permit(&ward, "state", 0o700);
    assert_eq!(unreadable(ward), [], "without a unit it is started by whoever looks");
}

#[test]
fn a_clock_that_nobody_keeps_is_critical() {
    let mut ward = Ward::new();
    ward.kernel.is_synchronised = false;
    let findings = ward.examine();
    let found = fault(&findings, "clock");
    assert_eq!(found.state, State::Critical);
    assert!(found.fix.as_deref().is_some_and(|fix| fix.starts_with("`rtcsync`")), "{found:?}");

    let ward = Ward::new();
    ward.put("/proc/77/comm", "sshd\n");
    let findings = ward.examine();
    assert!(fault(&findings, "time daemon").text.starts_with("none runs"));

    let ward = Ward::new();
    ward.put("/proc/78/comm", "systemd-timesyn\n");
    let findings = ward.examine();
    let text = &fault(&findings, "time daemon").text;
    assert_eq!(text, "chronyd and systemd-timesyn set the clock against each other");

    let mut ward = Ward::new();
    ward.configuration.push_str("[clock]\nsource = \"follow\"\n");
    let findings = ward.examine();
    let found = fault(&findings, "clock");
    assert_eq!(found.text, "nobody listens at 127.0.0.1:323, where chronyd is asked");
}

#[test]
fn limits_of_processes_are_held_against_what_is_configured() {
    let mut ward = Ward::new();
    ward.kernel.has_ring = false;
    ward.configure("[ke]", "port = \"uring\"\n[ke]\nconnections_max = 65536");
    let findings = ward.examine();
    let fix = |check| fault(&findings, check).fix.clone().expect("a fix");
    assert_eq!(fix("descriptors"), "LimitNOFILE=16640 in the unit (systemctl edit timeball)");
    assert!(fix("locked memory").starts_with("LimitMEMLOCK=524288 "));
    assert_eq!(fix("io_uring"), "sysctl -w kernel.io_uring_disabled=0");
}

#[test]
fn an_appliance_wants_more_of_its_host() {
    let mut ward = Ward::new();
    ward.configuration.insert_str(0, "profile = \"appliance\"\n");
    ward.cpus = vec![0, 1];
    ward.put("/sys/class/net/eth0/napi_defer_hard_irqs", "0\n");
    ward.put("/sys/class/net/eth0/mtu", "1000\n");
    ward.put("/sys/class/net/eth0/operstate", "down\n");
    ward.put("/sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet\n");
    let findings = ward.examine();
    let faults = faults(&findings);
    for expected in [
        "warning busy polling: echo 5000000 > /sys/class/net/eth0/gro_flush_timeout",
        "warning busy polling: echo 1000000 > /sys/class/net/eth0/napi_defer_hard_irqs",
        "critical mtu: ip link set eth0 mtu 1500",
        "warning interface: ip link set eth0 up",
        "warning processors: isolcpus=domain,managed_irq,0,1 nohz_full=0,1 on the kernel's command \
         line",
    ] {
        assert!(faults.iter().any(|found| found == expected), "{expected}: {faults:#?}");
    }
    let found = fault(&findings, "queues");
    assert!(found.text.starts_with("receive queues of eth0: 1 for 2 workers"), "{found:?}");
    let fix = "ethtool -L eth0 combined 2 || echo 3 > /sys/class/net/eth0/queues/rx-0/rps_cpus";
    assert_eq!(found.fix.as_deref().map(|fix| fix.replace("0000000", "")), Some(fix.to_owned()));
    assert!(fault(&findings, "clock source").text.starts_with("hpet"));
}

#[test]
fn a_line_has_cause_and_fix_and_the_last_one_counts() {
    let mut findings = Findings::default();
    findings.ok("mtu", "fine");
    findings.warn("port", "cause", "command");
    let mut shown = Vec::new();
    print(&findings, false, &mut shown).expect("written");
    let text = String::from_utf8(shown).expect("text");
    assert_eq!(
        text,
        "ok        mtu: fine\nwarning   port: cause; fix: command\n\n\
         critical 0, unknown 0, warning 1, ok 1\n"
    );
    let mut shown = Vec::new();
    print(&findings, true, &mut shown).expect("written");
    assert!(String::from_utf8(shown).expect("text").starts_with("warning   port"));
    assert_eq!(findings.state(), State::Warning);
}

#[test]
fn interfaces_that_are_to_stamp_and_cannot_are_named() {
    let mut ward = Ward::new();
    ward.configure("[ke]\n", "hardware_timestamps = [\"eth0\", \"eth1\", \"eth2\"]\n[ke]\n");
    let findings = ward.examine();
    let texts: Vec<_> =
        findings.iter().filter(|found| found.check == "hardware timestamps").collect();
    let text = |place: usize| (texts[place].state, texts[place].text.as_str());
    let because = "so the kernel's timestamps are used";
    assert_eq!(text(0), (State::Warning, &*format!("eth0 has no clock (PHC), {because}")));
    let unreadable =
        format!("the clock of eth1, /dev/ptp1, cannot be opened (entity not found), {because}");
    assert_eq!(text(1), (State::Warning, &*unreadable));
    assert_eq!(text(2), (State::Warning, &*format!("there is no interface eth2, {because}")));
    assert_eq!(
        texts[0].fix.as_deref(),
        Some("`ethtool -T eth0` shows what it can; take it out of ntp.hardware_timestamps")
    );

    let mut ward = Ward::new();
    ward.put("/sys/class/net/eth1/operstate", "up\n");
    ward.put("/dev/ptp1", "");
    ward.configure("[ke]\n", "hardware_timestamps = [\"*\"]\n[ke]\n");
    let findings = ward.examine();
    let mut found = findings.iter().filter(|found| found.check == "hardware timestamps");
    let stamps = found.next().expect("one");
    assert_eq!(stamps.text, "eth1 stamps packets by its clock /dev/ptp1");
    assert_eq!((stamps.state, found.next()), (State::Ok, None));
}

/// The table of symptoms names every check, and none that does not exist.
#[test]
fn the_trouble_table_names_every_check() {
    let table = include_str!("../../../docs/TROUBLE.md");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut named: Vec<&str> = rows
        .flat_map(|row| {
            row.trim_end_matches(" |").rsplit(" | ").next().expect("a column").split(", ")
        })
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut checks = CHECKS.to_vec();
    checks.sort_unstable();
    assert_eq!(named, checks);
}

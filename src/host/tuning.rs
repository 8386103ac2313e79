//! Every setting of the host that timeball has an opinion on, once: where it is, what it should be,
//! and why. `timeball doctor` compares, `timeball tune` sets; `tuning/README.md` has the same
//! table, which a test holds to this one.
//!
//! Nothing here is set for a whole host because one program likes it: most settings are for
//! `profile = "appliance"` alone.

use std::fmt::Write as _;
use std::fs;

use super::facts::{Host, ToolError};
use super::network::{interfaces, interrupts};
use crate::config::checked::{Profile, Settings};
use crate::limits::commands::{
    TUNING_COALESCE_MICROSECONDS, TUNING_FLUSH_NANOSECONDS, TUNING_HARD_INTERRUPTS_DEFERRED,
};
use crate::limits::{KE_BACKLOG, RECEIVE_BUFFER_BYTES_DEFAULT, SEND_BUFFER_BYTES_DEFAULT};

/// Where packages put the document that has every setting with its effect and its undo.
pub const README: &str = "/usr/share/doc/timeball/tuning/README.md";

/// A setting, and why it matters.
#[derive(Debug, PartialEq, Eq)]
pub struct Setting {
    /// What it is called in reports and documents.
    pub name: &'static str,
    /// When it is asked for.
    pub when: &'static str,
    /// What happens without it: the second half of a sentence.
    pub reason: &'static str,
}

/// Limit of receive buffers.
pub const RECEIVE_BUFFER: Setting = Setting {
    name: "net.core.rmem_max",
    when: "always",
    reason: "requests of a burst are dropped when the buffer is full, and without CAP_NET_ADMIN \
             the kernel caps ntp.receive_buffer_bytes at this",
};
/// Limit of send buffers.
pub const SEND_BUFFER: Setting = Setting {
    name: "net.core.wmem_max",
    when: "always",
    reason: "replies are dropped when the buffer is full, and without CAP_NET_ADMIN the kernel \
             caps ntp.send_buffer_bytes at this",
};
/// Limit of accept queues.
pub const ACCEPT_QUEUE: Setting = Setting {
    name: "net.core.somaxconn",
    when: "with NTS",
    reason: "clients come all at once after an outage, and those beyond the accept queue wait a \
             second to try again",
};
/// Interrupts that are left out while somebody polls.
pub const DEFERRED_INTERRUPTS: Setting = Setting {
    name: "napi_defer_hard_irqs",
    when: "with busy polling",
    reason: "the interface interrupts workers that poll it anyway",
};
/// When an interface that nobody polls is served all the same.
pub const FLUSH_POLLED: Setting = Setting {
    name: "gro_flush_timeout",
    when: "with busy polling",
    reason: "an interface whose interrupts are deferred is served after this time when no worker \
             polls it",
};
/// The same without polling.
pub const FLUSH_UNPOLLED: Setting = Setting {
    name: "gro_flush_timeout = 0",
    when: "without busy polling",
    reason: "the interface keeps requests back for so long before it hands them over, and nobody \
             polls it",
};
/// Merging of datagrams by the interface.
pub const LARGE_RECEIVE: Setting = Setting {
    name: "large-receive-offload",
    when: "always",
    reason: "the interface merges packets and delivers them late; a time server gets nothing for \
             it",
};
/// Requests that wait for an interrupt.
pub const COALESCING: Setting = Setting {
    name: "rx-usecs",
    when: "profile appliance",
    reason: "requests wait in the interface for so many microseconds before they are stamped, \
             which clients see as an error of their clock",
};
/// The same, chosen by the interface.
pub const ADAPTIVE_COALESCING: Setting = Setting {
    name: "adaptive-rx",
    when: "profile appliance",
    reason: "the interface chooses by its load how long requests wait before they are stamped",
};
/// Receive queues.
pub const QUEUES: Setting = Setting {
    name: "combined",
    when: "profile appliance",
    reason: "the kernel takes requests in on as many processors as the interface has queues",
};
/// Where interrupts are served.
pub const INTERRUPT_AFFINITY: Setting = Setting {
    name: "smp_affinity_list",
    when: "profile appliance, two receive queues or more",
    reason: "the queues of the interface are served by few processors while others idle",
};
/// Frequency of processors.
pub const GOVERNOR: Setting = Setting {
    name: "scaling_governor",
    when: "profile appliance",
    reason: "a processor that slows down when it idles takes the first requests of a burst late",
};

/// All of them, in the order of the documents.
pub const SETTINGS: [&Setting; 12] = [
    &RECEIVE_BUFFER,
    &SEND_BUFFER,
    &ACCEPT_QUEUE,
    &LARGE_RECEIVE,
    &FLUSH_UNPOLLED,
    &FLUSH_POLLED,
    &DEFERRED_INTERRUPTS,
    &ADAPTIVE_COALESCING,
    &COALESCING,
    &QUEUES,
    &INTERRUPT_AFFINITY,
    &GOVERNOR,
];

/// What a server needs of its host.
#[derive(Clone, Debug)]
pub struct Needs {
    /// The machine serves time alone.
    pub is_appliance: bool,
    /// Workers poll their interface.
    pub polls: bool,
    /// `ntp.receive_buffer_bytes`.
    pub receive_buffer_bytes: u32,
    /// `ntp.send_buffer_bytes`.
    pub send_buffer_bytes: u32,
    /// It does key establishment.
    pub has_ke: bool,
    /// The processor of each worker.
    pub cpus: Vec<usize>,
    /// Where requests come in.
    pub interfaces: Vec<String>,
}

impl Needs {
    /// Those of a server with these settings, whose workers are on `cpus`.
    pub fn of(settings: &Settings, cpus: &[usize], host: &Host) -> Self {
        Self {
            is_appliance: settings.profile == Profile::Appliance,
            polls: !settings.udp.busy_poll.is_zero(),
            receive_buffer_bytes: settings.udp.receive_buffer_bytes,
            send_buffer_bytes: settings.udp.send_buffer_bytes,
            has_ke: settings.ke.is_some(),
            cpus: cpus.to_vec(),
            interfaces: interfaces(host, settings.udp.bind_device.as_deref()),
        }
    }
}

/// A setting in its place.
#[derive(Debug)]
pub struct Knob {
    /// Which.
    pub setting: &'static Setting,
    place: Place,
    wanted: Wanted,
}

#[derive(Debug)]
enum Place {
    /// A file of /proc or /sys.
    File(String),
    /// A word of ethtool(8).
    Ethtool { interface: String, word: &'static Word },
}

/// How ethtool shows a setting, and how it is told.
#[derive(Debug)]
struct Word {
    show: &'static str,
    shown: &'static str,
    set: &'static str,
    key: &'static str,
}

const LRO: Word = Word { show: "-k", shown: "large-receive-offload", set: "-K", key: "lro" };
const RX_USECS: Word = Word { show: "-c", shown: "rx-usecs", set: "-C", key: "rx-usecs" };
const ADAPTIVE: Word = Word { show: "-c", shown: "Adaptive RX", set: "-C", key: "adaptive-rx" };
const COMBINED: Word = Word { show: "-l", shown: "Combined", set: "-L", key: "combined" };

#[derive(Debug)]
enum Wanted {
    AtLeast(u64),
    AtMost(u64),
    Exactly(String),
}

/// How a knob stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As it should, at this value.
    Good(String),
    /// Not as it should.
    Off {
        /// Its value.
        now: String,
        /// What it should be.
        then: String,
    },
    /// This host has no such setting, for this reason.
    Absent(String),
    /// It could not be looked at, for this reason.
    Hidden(String),
}

/// What a server with these needs asks of its host.
pub fn knobs(needs: &Needs, host: &Host) -> Vec<Knob> {
    let file =
        |setting, path: &str, wanted| Knob { setting, place: Place::File(path.to_owned()), wanted };
    let receive = Wanted::AtLeast(needs.receive_buffer_bytes.into());
    let send = Wanted::AtLeast(needs.send_buffer_bytes.into());
    let mut knobs = vec![
        file(&RECEIVE_BUFFER, "/proc/sys/net/core/rmem_max", receive),
        file(&SEND_BUFFER, "/proc/sys/net/core/wmem_max", send),
    ];
    if needs.has_ke {
        let wanted = Wanted::AtLeast(KE_BACKLOG as u64);
        knobs.push(file(&ACCEPT_QUEUE, "/proc/sys/net/core/somaxconn", wanted));
    }
    for interface in &needs.interfaces {
        knobs.extend(of_interface(interface, needs, host));
    }
    if needs.is_appliance {
        let mut cpus = needs.cpus.clone();
        cpus.sort_unstable();
        cpus.dedup();
        knobs.extend(cpus.iter().map(|cpu| {
            let path = format!("/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor");
            file(&GOVERNOR, &path, Wanted::Exactly("performance".to_owned()))
        }));
    }
    knobs
}

fn of_interface(interface: &str, needs: &Needs, host: &Host) -> Vec<Knob> {
    let file = |setting, name: &str, wanted| Knob {
        setting,
        place: Place::File(format!("/sys/class/net/{interface}/{name}")),
        wanted,
    };
    let ethtool = |setting, word, wanted| Knob {
        setting,
        place: Place::Ethtool { interface: interface.to_owned(), word },
        wanted,
    };
    let exactly = |value: &str| Wanted::Exactly(value.to_owned());
    let mut knobs = vec![ethtool(&LARGE_RECEIVE, &LRO, exactly("off"))];
    if needs.polls {
        let flush = Wanted::Exactly(TUNING_FLUSH_NANOSECONDS.to_string());
        knobs.push(file(&FLUSH_POLLED, "gro_flush_timeout", flush));
        let deferred = Wanted::AtLeast(TUNING_HARD_INTERRUPTS_DEFERRED);
        knobs.push(file(&DEFERRED_INTERRUPTS, "napi_defer_hard_irqs", deferred));
    } else {
        knobs.push(file(&FLUSH_UNPOLLED, "gro_flush_timeout", exactly("0")));
    }
    if !needs.is_appliance {
        return knobs;
    }
    knobs.push(ethtool(&ADAPTIVE_COALESCING, &ADAPTIVE, exactly("off")));
    knobs.push(ethtool(&COALESCING, &RX_USECS, Wanted::AtMost(TUNING_COALESCE_MICROSECONDS)));
    let most = host.run("ethtool", &["-l", interface]).ok();
    if let Some(most) = most.and_then(|text| first_number(&text, COMBINED.shown)) {
        let queues = most.min(needs.cpus.len() as u64);
        knobs.push(ethtool(&QUEUES, &COMBINED, Wanted::AtLeast(queues)));
    }
    let interrupts = receive_interrupts(host, interface);
    if interrupts.len() > 1 {
        let cpus = needs.cpus.iter().cycle();
        knobs.extend(interrupts.iter().zip(cpus).map(|(interrupt, cpu)| Knob {
            setting: &INTERRUPT_AFFINITY,
            place: Place::File(format!("/proc/irq/{interrupt}/smp_affinity_list")),
            wanted: Wanted::Exactly(cpu.to_string()),
        }));
    }
    knobs
}

/// Those of the receive queues, by the names of their actions: virtio has one for its configuration
/// and one of each direction. All, where no name tells.
fn receive_interrupts(host: &Host, interface: &str) -> Vec<String> {
    const MARKS: [&str; 3] = ["input", "rx", "TxRx"];
    let mut all = interrupts(host, interface);
    let receives = |number: &String| {
        let actions = host.names(&format!("/proc/irq/{number}"));
        actions.iter().any(|action| MARKS.iter().any(|mark| action.contains(mark)))
    };
    if all.iter().any(receives) {
        all.retain(receives);
    }
    all
}

impl Knob {
    /// Looks at it.
    pub fn standing(&self, host: &Host) -> Standing {
        let now = match self.value(host) {
            Ok(Some(now)) => now,
            Ok(None) => return Standing::Absent(format!("{} is not there", self.name())),
            Err(why) => return Standing::Hidden(why),
        };
        let number = now.parse::<u64>();
        let then = match (&self.wanted, number) {
            (Wanted::AtLeast(least), Ok(number)) => (number < *least).then(|| least.to_string()),
            (Wanted::AtMost(most), Ok(number)) => (number > *most).then(|| most.to_string()),
            (Wanted::Exactly(wanted), _) => (now != *wanted).then(|| wanted.clone()),
            (_, Err(_)) => return Standing::Hidden(format!("\"{now}\" is no number")),
        };
        match then {
            None => Standing::Good(now),
            Some(then) => Standing::Off { now, then },
        }
    }

    /// What it is called: where it is, for those of which there are many.
    pub fn name(&self) -> String {
        match &self.place {
            Place::File(path) => match path.strip_prefix("/proc/sys/") {
                Some(name) => name.replace('/', "."),
                None => path.clone(),
            },
            Place::Ethtool { interface, word } => format!("{} of {interface}", word.key),
        }
    }

    /// The command that sets it for people.
    pub fn command(&self, value: &str) -> String {
        match &self.place {
            Place::File(path) if path.starts_with("/proc/sys/") => {
                format!("sysctl -w {}={value}", self.name())
            }
            Place::File(path) => format!("echo {value} > {path}"),
            Place::Ethtool { interface, word: Word { set, key, .. } } => {
                format!("ethtool {set} {interface} {key} {value}")
            }
        }
    }

    /// The line that sets it in a script, which needs no PATH and knows the root.
    pub fn script(&self, value: &str, host: &Host) -> String {
        match &self.place {
            Place::File(path) => format!("echo '{value}' > '{}'", host.path(path).display()),
            Place::Ethtool { interface, word: Word { set, key, .. } } => {
                let tool = host.tool("ethtool").unwrap_or_else(|| "ethtool".into());
                format!("'{}' {set} '{interface}' {key} '{value}'", tool.display())
            }
        }
    }

    /// Sets it.
    ///
    /// # Errors
    /// What the system or the tool said.
    pub fn set(&self, value: &str, host: &Host) -> Result<(), String> {
        match &self.place {
            Place::File(path) => {
                fs::write(host.path(path), value).map_err(|error| error.to_string())
            }
            Place::Ethtool { interface, word: Word { set, key, .. } } => {
                let done = host.run("ethtool", &[set, interface, key, value]);
                done.map(drop).map_err(|error| error.to_string())
            }
        }
    }

    /// Its value; none if this host has no such setting.
    fn value(&self, host: &Host) -> Result<Option<String>, String> {
        match &self.place {
            Place::File(path) => match host.read(path) {
                Ok(text) => Ok(Some(text)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{path} cannot be read: {error}")),
            },
            Place::Ethtool { interface, word } => {
                match host.run("ethtool", &[word.show, interface]) {
                    // Those of the maximum come before those that hold.
                    Ok(text) => Ok(shown(&text, word.shown).last().map(str::to_owned)),
                    Err(ToolError::Failed { why, .. }) if why.contains("not supported") => Ok(None),
                    Err(error) => Err(error.to_string()),
                }
            }
        }
    }
}

/// The values of `key` in what ethtool shows, as far as they are any and can be changed.
fn shown<'a>(text: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines().filter_map(move |line| {
        let value = line.trim().strip_prefix(key)?.strip_prefix(':')?.trim();
        let word = value.split_whitespace().next()?;
        (word != "n/a" && !value.ends_with("[fixed]")).then_some(word)
    })
}

fn first_number(text: &str, key: &str) -> Option<u64> {
    shown(text, key).next()?.parse().ok()
}

/// A file for /etc/sysctl.d with the settings that a file there can hold, for a server with
/// default buffers.
pub fn sysctl_file() -> String {
    let mut text = String::from(
        "# Settings of the kernel for timeball, printed by `timeball tune --print-sysctl`. The \
         undo is in\n# ",
    );
    text.push_str(README);
    text.push_str(".\n");
    for (setting, value) in [
        (&RECEIVE_BUFFER, u64::from(RECEIVE_BUFFER_BYTES_DEFAULT)),
        (&SEND_BUFFER, u64::from(SEND_BUFFER_BYTES_DEFAULT)),
        (&ACCEPT_QUEUE, KE_BACKLOG as u64),
    ] {
        let Setting { name, reason, .. } = setting;
        write!(text, "\n# Without it, {reason}.\n{name} = {value}\n").expect("writing to a string");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::facts::tests::{host, root};
    use super::*;

    const CHANNELS: &str = "Channel parameters for eth0:\nPre-set maximums:\nRX:\t\tn/a\n\
        Combined:\t8\nCurrent hardware settings:\nRX:\t\tn/a\nCombined:\t1\n";
    const COALESCE: &str = "Coalesce parameters for eth0:\nAdaptive RX: on  TX: n/a\n\
        rx-usecs:\t50\nrx-frames:\t1\n";

    fn ethtool() -> String {
        format!(
            "#!/bin/sh\ncase $1 in\n-l) printf '{CHANNELS}' ;;\n-c) printf '{COALESCE}' ;;\n\
             -k) echo 'large-receive-offload: off [fixed]' ;;\n\
             *) echo 'netlink error: Operation not supported' >&2; exit 1 ;;\nesac\n"
        )
    }

    fn needs(is_appliance: bool) -> Needs {
        Needs {
            is_appliance,
            polls: is_appliance,
            receive_buffer_bytes: 1 << 20,
            send_buffer_bytes: 1 << 20,
            has_ke: true,
            cpus: vec![0, 1],
            interfaces: vec!["eth0".to_owned()],
        }
    }

    #[test]
    fn an_appliance_is_compared_with_what_it_needs() {
        let root = root(
            &[
                ("/proc/sys/net/core/rmem_max", "212992\n"),
                ("/proc/sys/net/core/wmem_max", "4194304\n"),
                ("/sys/class/net/eth0/gro_flush_timeout", "0\n"),
                ("/sys/class/net/eth0/napi_defer_hard_irqs", "0\n"),
                ("/sys/class/net/eth0/device/msi_irqs/38", ""),
                ("/sys/class/net/eth0/device/msi_irqs/39", ""),
                ("/proc/irq/38/smp_affinity_list", "0-1\n"),
                ("/proc/irq/39/smp_affinity_list", "1\n"),
                ("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n"),
            ],
            &[("ethtool", &ethtool())],
        );
        let host = host(&root);
        let found: Vec<(String, Standing)> = knobs(&needs(true), &host)
            .iter()
            .map(|knob| (knob.name(), knob.standing(&host)))
            .collect();
        let off =
            |now: &str, then: &str| Standing::Off { now: now.to_owned(), then: then.to_owned() };
        let good = |now: &str| Standing::Good(now.to_owned());
        let absent = |name: &str| Standing::Absent(format!("{name} is not there"));
        let cpu1 = "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor";
        let expected = [
            ("net.core.rmem_max", off("212992", "1048576")),
            ("net.core.wmem_max", good("4194304")),
            ("net.core.somaxconn", absent("net.core.somaxconn")),
            ("lro of eth0", absent("lro of eth0")),
            ("/sys/class/net/eth0/gro_flush_timeout", off("0", "5000000")),
            ("/sys/class/net/eth0/napi_defer_hard_irqs", off("0", "1000000")),
            ("adaptive-rx of eth0", off("on", "off")),
            ("rx-usecs of eth0", off("50", "10")),
            ("combined of eth0", off("1", "2")),
            ("/proc/irq/38/smp_affinity_list", off("0-1", "0")),
            ("/proc/irq/39/smp_affinity_list", good("1")),
            (
                "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor",
                off("powersave", "performance"),
            ),
            (cpu1, absent(cpu1)),
        ]
        .map(|(name, standing)| (name.to_owned(), standing));
        assert_eq!(found, expected);
    }

    #[test]
    fn receive_queues_alone_are_spread_over_processors() {
        let root = root(
            &[
                ("/sys/class/net/eth0/device/msi_irqs/24", ""),
                ("/sys/class/net/eth0/device/msi_irqs/25", ""),
                ("/sys/class/net/eth0/device/msi_irqs/26", ""),
                ("/sys/class/net/eth0/device/msi_irqs/27", ""),
                ("/proc/irq/24/virtio0-config/x", ""),
                ("/proc/irq/25/virtio0-input.0/x", ""),
                ("/proc/irq/26/virtio0-output.0/x", ""),
                ("/proc/irq/27/virtio0-input.1/x", ""),
            ],
            &[],
        );
        assert_eq!(receive_interrupts(&host(&root), "eth0"), ["25", "27"]);
    }

    #[test]
    fn a_shared_host_is_left_alone_in_most_things() {
        let root = root(&[("/sys/class/net/eth0/gro_flush_timeout", "20000\n")], &[]);
        let host = host(&root);
        let knobs = knobs(&needs(false), &host);
        let names: Vec<&str> = knobs.iter().map(|knob| knob.setting.name).collect();
        let expected = [
            "net.core.rmem_max",
            "net.core.wmem_max",
            "net.core.somaxconn",
            "large-receive-offload",
            "gro_flush_timeout = 0",
        ];
        assert_eq!(names, expected);
        assert!(
            matches!(knobs[3].standing(&host), Standing::Hidden(why) if why.contains("ethtool"))
        );
        assert!(matches!(knobs[4].standing(&host), Standing::Off { now, .. } if now == "20000"));
    }

    #[test]
    fn commands_are_those_of_the_administrator() {
        let root = root(&[], &[("ethtool", "")]);
        let host = host(&root);
        let knobs = knobs(&needs(true), &host);
        let command = |name: &str| {
            let knob = knobs.iter().find(|knob| knob.setting.name == name).expect(name);
            (knob.command("7"), knob.script("7", &host))
        };
        let below = |path: &str| root.path().join(path).display().to_string();
        assert_eq!(
            command("net.core.rmem_max"),
            (
                "sysctl -w net.core.rmem_max=7".to_owned(),
                format!("echo '7' > '{}'", below("proc/sys/net/core/rmem_max"))
            )
        );
        assert_eq!(
            command("gro_flush_timeout").0,
            "echo 7 > /sys/class/net/eth0/gro_flush_timeout"
        );
        assert_eq!(
            command("rx-usecs"),
            (
                "ethtool -C eth0 rx-usecs 7".to_owned(),
                format!("'{}' -C 'eth0' rx-usecs '7'", below("usr/sbin/ethtool"))
            )
        );
    }
}

//! The machine: kernel settings, interfaces, processors, limits.

use super::{Findings, Patient};
use crate::config::cpus;
use crate::host::network::{interrupts, receive_queues};
use crate::host::tuning::{self, Knob, Needs, Setting, Standing, knobs};
use crate::limits::KE_DESCRIPTORS_BESIDE;
use crate::limits::commands::{DOCTOR_MTU_MIN, DOCTOR_RING_BYTES};
use crate::net::PortChoice;
use crate::sys::uring::Obstacle;

pub(super) fn examine(patient: &Patient<'_>, findings: &mut Findings) {
    let needs = Needs::of(patient.settings, &patient.cpus, patient.host);
    for knob in knobs(&needs, patient.host) {
        compare(&knob, patient, findings);
    }
    if !needs.polls {
        findings.ok("busy polling", "off: nothing of the interface has to be set for it");
    }
    interfaces(&needs, patient, findings);
    processors(&needs, patient, findings);
    clock_source(patient, findings);
    descriptors(patient, findings);
    io_uring(patient, findings);
}

/// Which check a setting belongs to.
fn check_of(setting: &Setting) -> &'static str {
    let is = |other: &Setting| setting == other;
    if is(&tuning::RECEIVE_BUFFER) {
        "receive buffer"
    } else if is(&tuning::SEND_BUFFER) {
        "send buffer"
    } else if is(&tuning::ACCEPT_QUEUE) {
        "accept queue"
    } else if is(&tuning::FLUSH_POLLED) || is(&tuning::DEFERRED_INTERRUPTS) {
        "busy polling"
    } else if is(&tuning::INTERRUPT_AFFINITY) {
        "interrupts"
    } else if is(&tuning::QUEUES) {
        "queues"
    } else if is(&tuning::GOVERNOR) {
        "processors"
    } else {
        "offloads"
    }
}

fn compare(knob: &Knob, patient: &Patient<'_>, findings: &mut Findings) {
    let check = check_of(knob.setting);
    let name = knob.name();
    match knob.standing(patient.host) {
        Standing::Good(now) => findings.ok(check, format!("{name} is {now}")),
        // An interface without the feature needs nothing; a namespace has not all of the host's.
        Standing::Absent(why) => findings.ok(check, why),
        Standing::Hidden(why) => {
            let fix =
                if why.contains("not installed") { "apt install ethtool" } else { "look as root" };
            findings.hidden(check, format!("{name} cannot be seen: {why}"), fix);
        }
        Standing::Off { now, then } => {
            let text = format!("{name} is {now}, not {then}: {}", knob.setting.reason);
            findings.warn(check, text, knob.command(&then));
        }
    }
}

fn interfaces(needs: &Needs, patient: &Patient<'_>, findings: &mut Findings) {
    let host = patient.host;
    if needs.interfaces.is_empty() {
        findings.ok("interface", "no hardware: requests come from this host or a virtual network");
    }
    for interface in &needs.interfaces {
        let folder = format!("/sys/class/net/{interface}");
        match host.read(&format!("{folder}/operstate")) {
            Ok(state) if state == "down" => {
                let text = format!("{interface} is down");
                findings.warn("interface", text, format!("ip link set {interface} up"));
            }
            Ok(state) => findings.ok("interface", format!("{interface} is {state}")),
            Err(_) => {
                let text = format!("there is no interface {interface} (ntp.bind_device)");
                findings.fail("interface", text, "`ip link` lists those that there are");
                continue;
            }
        }
        match host.number(&format!("{folder}/mtu")) {
            Some(mtu) if mtu < DOCTOR_MTU_MIN => {
                let text = format!(
                    "{interface} takes packets of {mtu} bytes: NTS answers with eight cookies are \
                     longer, and they are never fragmented"
                );
                findings.fail("mtu", text, format!("ip link set {interface} mtu 1500"));
            }
            Some(mtu) => findings.ok("mtu", format!("{interface} takes packets of {mtu} bytes")),
            None => {
                let text = format!("{folder}/mtu cannot be read");
                findings.hidden("mtu", text, format!("ip link show {interface}"));
            }
        }
        queues(interface, needs, patient, findings);
        interrupts_of(interface, patient, findings);
    }
}

/// The kernel takes requests in on the processors that the interface's queues interrupt.
fn queues(interface: &str, needs: &Needs, patient: &Patient<'_>, findings: &mut Findings) {
    let check = "queues";
    let queues = receive_queues(patient.host, interface);
    let workers = needs.cpus.len();
    if queues >= workers || is_spread(interface, patient) {
        return findings.ok(check, format!("receive queues of {interface}: {queues}"));
    }
    let text = format!(
        "receive queues of {interface}: {queues} for {workers} workers, so one processor does the \
         kernel's part for several"
    );
    let (mask, file) = (mask(&needs.cpus), steering_file(interface));
    // Where it has no more queues the kernel spreads what comes in by one.
    let fix = format!("ethtool -L {interface} combined {workers} || echo {mask} > {file}");
    findings.warn(check, text, fix);
}

/// Where they are served.
fn interrupts_of(interface: &str, patient: &Patient<'_>, findings: &mut Findings) {
    let check = "interrupts";
    let host = patient.host;
    let numbers = interrupts(host, interface);
    let affinity =
        |number: &String| host.read(&format!("/proc/irq/{number}/effective_affinity_list"));
    let mut served: Vec<String> = numbers.iter().filter_map(|it| affinity(it).ok()).collect();
    served.sort();
    served.dedup();
    let has_several = receive_queues(host, interface) > 1;
    match served.as_slice() {
        [] => findings.ok(check, format!("the bus of {interface} does not tell them")),
        [cpu] if has_several && !is_spread(interface, patient) => {
            let count = numbers.len();
            let text = format!("all {count} of {interface} are served by processor {cpu}");
            let fix = "apt install irqbalance, or `timeball tune` with profile = \"appliance\"";
            findings.warn(check, text, fix);
        }
        several => {
            let cpus = several.join(", ");
            findings.ok(check, format!("those of {interface} are served by processor {cpus}"));
        }
    }
}

/// Whether the kernel hands packets on to other processors (receive packet steering).
fn is_spread(interface: &str, patient: &Patient<'_>) -> bool {
    let mask = patient.host.read(&steering_file(interface));
    mask.is_ok_and(|mask| mask.contains(|c: char| c != '0' && c != ','))
}

fn steering_file(interface: &str) -> String {
    format!("/sys/class/net/{interface}/queues/rx-0/rps_cpus")
}

/// Processors as the kernel reads a mask of them: words of 32 bits, the highest first.
fn mask(cpus: &[usize]) -> String {
    let words = cpus.iter().max().map_or(0, |cpu| cpu / 32) + 1;
    let word = |place: usize| {
        let within = cpus.iter().filter(|&&cpu| cpu / 32 == place);
        within.fold(0_u32, |mask, cpu| mask | 1 << (cpu % 32))
    };
    let texts: Vec<String> = (0..words).rev().map(|place| format!("{:08x}", word(place))).collect();
    texts.join(",")
}

/// Whether the workers of an appliance have their processors for themselves.
fn processors(needs: &Needs, patient: &Patient<'_>, findings: &mut Findings) {
    let check = "processors";
    let host = patient.host;
    let online = cpus::parse(&host.read("/sys/devices/system/cpu/online").unwrap_or_default());
    if !needs.is_appliance {
        return findings.ok(check, "shared with other programs (profile = \"shared\")");
    }
    let Some(online) = online else {
        let text = "/sys/devices/system/cpu/online cannot be read";
        return findings.hidden(check, text, "mount /sys");
    };
    if online.iter().all(|cpu| needs.cpus.contains(cpu)) {
        return findings.ok(check, "workers have all of them, so there is none for others alone");
    }
    let isolated = host.read("/sys/devices/system/cpu/isolated").unwrap_or_default();
    let isolated = cpus::parse(&isolated).unwrap_or_default();
    if needs.cpus.iter().all(|cpu| isolated.contains(cpu)) {
        findings.ok(check, "those of the workers are isolated");
    } else {
        let list: Vec<String> = needs.cpus.iter().map(usize::to_string).collect();
        let list = list.join(",");
        let fix = format!(
            "isolcpus=domain,managed_irq,{list} nohz_full={list} on the kernel's command line"
        );
        findings.warn(check, "other programs run on those of the workers", fix);
    }
}

/// What reading the clock costs, twice a batch.
fn clock_source(patient: &Patient<'_>, findings: &mut Findings) {
    let check = "clock source";
    let folder = "/sys/devices/system/clocksource/clocksource0";
    match patient.host.read(&format!("{folder}/current_clocksource")) {
        Err(error) => {
            findings.hidden(check, format!("{folder} cannot be read: {error}"), "mount /sys");
        }
        Ok(name) if matches!(name.as_str(), "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies") => {
            let text = format!("{name}, whose reading takes a microsecond or is coarse");
            let fix = "clocksource=tsc tsc=reliable on the kernel's command line, if the processor \
                       has a steady one";
            findings.warn(check, text, fix);
        }
        Ok(name) => findings.ok(check, name),
    }
}

/// A process of key establishment has no more places than descriptors.
fn descriptors(patient: &Patient<'_>, findings: &mut Findings) {
    let check = "descriptors";
    let Some(ke) = &patient.settings.ke else {
        return findings.ok(check, "no key establishment, so a handful are enough");
    };
    let processes = ke.processes(patient.cpus.len().max(1));
    let needed = (ke.connections_max / processes) as u64 + KE_DESCRIPTORS_BESIDE;
    match hard_limit(patient, "Max open files") {
        Some(limit) if limit < needed => {
            let text = format!(
                "a process may open {limit} files and needs {needed} for its share of \
                 ke.connections_max"
            );
            let fix = format!("LimitNOFILE={needed} in the unit (systemctl edit timeball)");
            findings.warn(check, text, fix);
        }
        Some(limit) => {
            let limit = if limit == u64::MAX { "any number of".into() } else { limit.to_string() };
            findings.ok(check, format!("a process may open {limit} files and needs {needed}"));
        }
        None => findings.hidden(check, "/proc/self/limits cannot be read", "mount /proc"),
    }
}

/// Whether a worker can have a ring, and the memory for it.
fn io_uring(patient: &Patient<'_>, findings: &mut Findings) {
    let is_wanted = patient.settings.port == PortChoice::Uring;
    let needed = patient.cpus.len() as u64 * DOCTOR_RING_BYTES;
    match hard_limit(patient, "Max locked memory") {
        Some(limit) if is_wanted && limit < needed => {
            let text = format!("{limit} bytes may be locked and rings may need {needed}");
            let fix = format!("LimitMEMLOCK={needed} in the unit (systemctl edit timeball)");
            findings.warn("locked memory", text, fix);
        }
        Some(_) if is_wanted => findings.ok("locked memory", "enough for the rings"),
        Some(_) => findings.ok("locked memory", "none is needed but with ntp.port = \"uring\""),
        None => {
            let text = "/proc/self/limits cannot be read";
            findings.hidden("locked memory", text, "mount /proc");
        }
    }
    match patient.host.kernel().ring() {
        Ok(()) if is_wanted => findings.ok("io_uring", "can be used, and is (ntp.port)"),
        Ok(()) => findings.ok("io_uring", "could be used; ntp.port does not ask for it"),
        Err(why) if !is_wanted => {
            findings.ok("io_uring", format!("not needed for this ntp.port; {why}"));
        }
        Err(why) => {
            let fix = match &why {
                Obstacle::Disabled(_) => "sysctl -w kernel.io_uring_disabled=0",
                Obstacle::LockedMemory => "LimitMEMLOCK=infinity in the unit",
                Obstacle::Forbidden => "allow it in the container, or ntp.port = \"mmsg\"",
                _ => "ntp.port = \"mmsg\"",
            };
            findings.fail("io_uring", why.to_string(), fix);
        }
    }
}

/// What a process that this one starts may have: proc_pid_limits(5).
fn hard_limit(patient: &Patient<'_>, name: &str) -> Option<u64> {
    let text = patient.host.read("/proc/self/limits").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_are_words_of_32_bits() {
        assert_eq!(mask(&[0, 1]), "00000003");
        assert_eq!(mask(&[33, 0]), "00000002,00000001");
    }
}

//! Whether the interfaces that are to stamp packets can.

use std::io;

use super::{Findings, Patient};
use crate::config::hardware::StampingInterfaces;
use crate::host::stamping::{Obstacle, needed};

const CHECK: &str = "hardware timestamps";

/// Each interface of `ntp.hardware_timestamps`.
pub(super) fn stamping(patient: &Patient<'_>, findings: &mut Findings) {
    match &patient.settings.hardware_timestamps {
        StampingInterfaces::None => {
            findings.ok(CHECK, "not asked for (ntp.hardware_timestamps): the kernel stamps");
        }
        StampingInterfaces::Named(names) => {
            for name in names {
                match able(name, patient) {
                    Ok(text) => findings.ok(CHECK, text),
                    Err(obstacle) => warn(&obstacle, findings),
                }
            }
        }
        StampingInterfaces::All => {
            let names = patient.host.names("/sys/class/net");
            let able: Vec<String> = names.iter().filter_map(|it| able(it, patient).ok()).collect();
            if able.is_empty() {
                warn(&Obstacle::None, findings);
            }
            able.into_iter().for_each(|text| findings.ok(CHECK, text));
        }
    }
}

fn warn(obstacle: &Obstacle, findings: &mut Findings) {
    let text = format!("{}, so the kernel's timestamps are used", obstacle.cause());
    findings.warn(CHECK, text, obstacle.fix());
}

/// That it can, or why not.
fn able(name: &str, patient: &Patient<'_>) -> Result<String, Obstacle> {
    let (abilities, mode) = patient.host.kernel().stamping(name).map_err(|error| {
        let is_absent = error.raw_os_error() == Some(libc::ENODEV);
        let name = name.to_owned();
        if is_absent { Obstacle::Absent(name) } else { Obstacle::Refuses(name, error) }
    })?;
    let mode = needed(name, &abilities, mode)?;
    let clock = abilities.clock.unwrap_or_default();
    let device = format!("/dev/ptp{clock}");
    if !patient.host.has(&device) {
        return Err(Obstacle::Unreadable(name.to_owned(), clock, io::ErrorKind::NotFound.into()));
    }
    Ok(match mode {
        None => format!("{name} stamps packets by its clock {device}"),
        Some(_) => format!("{name} can stamp packets by its clock {device}: told so at the start"),
    })
}

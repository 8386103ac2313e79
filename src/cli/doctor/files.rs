//! Certificates, keys, the leap-seconds file, and the folder of the state.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Findings, Patient};
use crate::certificate::describe::{Description, Warning, describe, warnings};
use crate::clock::leap_watch::LeapNews;
use crate::config::checked::PairFiles;
use crate::ke::tls::PairError;
use crate::limits::commands::DOCTOR_LEAP_FILE_DAYS;
use crate::process::certificates::PairText;
use crate::process::leap_file::LeapFile;

/// Each certificate: whether clients take it, for how long, and whether its key is the right one.
pub(super) fn certificates(patient: &Patient<'_>, findings: &mut Findings) {
    let check = "certificate";
    let Some(ke) = &patient.settings.ke else {
        let text = "the configuration names none, so there is no NTS";
        return findings.ok(check, text);
    };
    for pair in &ke.certificates {
        if patient.is_embedded && !pair.certificate.exists() {
            findings.ok(check, "made at the first start");
            continue;
        }
        match PairText::read(pair) {
            Ok(text) => certificate(patient, pair, &text, findings),
            Err(PairError::Read { path, source })
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                let text = format!("{} may not be read by this user", path.display());
                findings.hidden(check, text, "look as root");
            }
            Err(error) => findings.fail(check, error.to_string(), remake(pair)),
        }
    }
}

fn certificate(patient: &Patient<'_>, pair: &PairFiles, text: &PairText, findings: &mut Findings) {
    let check = "certificate";
    let file = pair.certificate.display();
    let chain = describe(text.certificate_pem.as_bytes()).unwrap_or_default();
    let faults = warnings(&chain, patient.now);
    for fault in &faults {
        let text = format!("{file}: {fault}");
        match fault {
            Warning::Rsa => findings.warn(check, text, remake(pair)),
            Warning::ExpiresSoon(_) => {
                findings.warn(check, text, "`certbot renew`, or what else renews it");
            }
            Warning::ChainOrder(_) => {
                findings.fail(check, text, "put the whole chain into the file, in this order");
            }
            Warning::NotYetValid => findings.fail(check, text, "correct this host's clock"),
            _ => findings.fail(check, text, remake(pair)),
        }
    }
    if faults.is_empty()
        && let Some(Description { names, key, not_after, .. }) = chain.first()
    {
        let (names, date) = (names.join(", "), not_after.date());
        findings.ok(check, format!("{file}: {key}, for {names}, until {date}"));
    }
}

/// Whether the leap-seconds file can be used, and for how long.
pub(super) fn leap_seconds(patient: &Patient<'_>, findings: &mut Findings) {
    let check = "leap file";
    let Some(path) = &patient.settings.clock.leap_file else {
        let text = "none (clock.leap_file): leap seconds are announced as the source does";
        return findings.ok(check, text);
    };
    let fix = "apt install --only-upgrade tzdata (dnf upgrade tzdata), or fetch the list from IERS";
    let name = path.display();
    let file = LeapFile::read(path);
    let LeapNews { list, refused } = file.news();
    let Some(list) = list else {
        let text = format!("{name}: {refused}; no leap second is announced from it");
        return findings.warn(check, text, fix);
    };
    let days = (list.expires_unix_seconds() - patient.now.unix_timestamp()) as f64 / 86_400.0;
    if days <= 0.0 {
        let text = format!("{name} has expired; no leap second is announced from it");
        findings.warn(check, text, fix);
    } else if days < DOCTOR_LEAP_FILE_DAYS {
        findings.warn(check, format!("{name} expires in {days:.0} days"), fix);
    } else {
        findings.ok(check, format!("{name} expires in {days:.0} days"));
    }
}

/// For whoever has no authority to ask.
fn remake(pair: &PairFiles) -> String {
    let folder = pair.certificate.parent().unwrap_or(Path::new(".")).display();
    format!(
        "get a new one, ECDSA P-256, from your authority; or for a network of your own `timeball \
         cert self-signed --force --name NAME --out {folder}` and \
         `chgrp timeball {key}; chmod 0640 {key}`",
        key = pair.key.display(),
    )
}

/// Private keys and master keys: nobody else may read them. The key of a certificate may be
/// readable for a group, the server's: it is root's where a package or an ACME hook puts it.
pub(super) fn keys(patient: &Patient<'_>, findings: &mut Findings) {
    let settings = patient.settings;
    for pair in settings.ke.iter().flat_map(|ke| &ke.certificates) {
        is_private("key file", &pair.key, 0o640, patient.is_embedded, findings);
    }
    let directory = &settings.state_directory;
    if !directory.exists() {
        let text = format!("{} does not exist yet", directory.display());
        if patient.is_embedded {
            findings.ok("state directory", format!("{text}; it is made at the first start"));
        } else {
            let user = settings.user.as_deref().unwrap_or("timeball");
            let fix = format!("install -d -m 0700 -o {user} {}", directory.display());
            findings.warn("state directory", text, fix);
        }
        return;
    }
    is_private("state directory", directory, 0o700, false, findings);
    // Its name is chrony's. Without it keys are made at the start.
    is_private("key file", &directory.join("ntskeys"), 0o600, true, findings);
}

fn is_private(
    check: &'static str,
    path: &Path,
    mode: u32,
    may_be_absent: bool,
    findings: &mut Findings,
) {
    let name = path.display();
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && may_be_absent => {
            findings.ok(check, format!("{name} is made at the first start"));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{name} does not exist");
            findings.fail(check, text, "correct the configuration, or make it");
        }
        Err(error) => {
            findings.hidden(check, format!("{name} cannot be seen: {error}"), "look as root");
        }
        Ok(found) => {
            let found = found.permissions().mode() & 0o777;
            if found & 0o077 & !mode == 0 {
                findings.ok(check, format!("{name} is private (mode {found:04o})"));
            } else {
                let text = format!("{name} can be read by others (mode {found:04o})");
                findings.warn(check, text, format!("chmod {mode:04o} {name}"));
            }
        }
    }
}

//! Whether the user of the packaged service may read what the server has to. Whoever runs `doctor`
//! as root can read everything, and so can a server that was started as root; systemd's unit starts
//! it as a user of its own.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{Findings, Patient};
use crate::host::facts::Host;

/// Where the unit is; the administrator's goes before the package's.
const UNITS: [&str; 3] = [
    "/etc/systemd/system/timeball.service",
    "/usr/lib/systemd/system/timeball.service",
    "/lib/systemd/system/timeball.service",
];

const READ: u32 = 0o4;
const ENTER: u32 = 0o1;

/// Certificates, their keys and the master keys.
pub(super) fn access(patient: &Patient<'_>, findings: &mut Findings) {
    let Some(user) = ServiceUser::of(patient.host) else { return };
    let name = &user.name;
    let mut look = |check, file: &Path, fix: String| {
        let Some(obstacle) = user.obstacle(file) else { return };
        let text = format!("{} cannot be read by {name}, the service's user", file.display());
        if obstacle == file {
            findings.fail(check, text, fix);
        } else {
            let text = format!("{text}, who may not enter {}", obstacle.display());
            findings.fail(check, text, HOOKS);
        }
    };
    for pair in patient.settings.ke.iter().flat_map(|ke| &ke.certificates) {
        let (certificate, key) = (pair.certificate.display(), pair.key.display());
        look("certificate", &pair.certificate, format!("chmod 0644 {certificate}"));
        look("key file", &pair.key, format!("chgrp {name} {key}; chmod 0640 {key}"));
    }
    let state = &patient.settings.state_directory;
    look("key file", &state.join("ntskeys"), format!("chown -R {name}: {}", state.display()));
}

/// An ACME client keeps its folders to itself.
const HOOKS: &str = "let your ACME client put a copy where the service can read it, as the hooks \
                     of /usr/share/doc/timeball/examples/certificates do, and name that in the \
                     configuration";

/// Who the service is.
struct ServiceUser {
    name: String,
    uid: u32,
    groups: Vec<u32>,
}

impl ServiceUser {
    /// None without a unit, or if it names nobody, root, or somebody whom this host does not know.
    fn of(host: &Host) -> Option<Self> {
        let unit = UNITS.iter().find_map(|unit| host.read(unit).ok())?;
        let name =
            unit.lines().rev().find_map(|line| line.strip_prefix("User="))?.trim().to_owned();
        // passwd(5): name, password, number, number of the group.
        let passwd = host.read("/etc/passwd").ok()?;
        let line = passwd.lines().find_map(|line| line.strip_prefix(&format!("{name}:")))?;
        let mut numbers = line.split(':').skip(1).map(str::parse);
        let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        // group(5): name, password, number, members.
        let groups = host.read("/etc/group").unwrap_or_default();
        let of_member = |line: &str| {
            let mut fields = line.split(':').skip(2);
            let number = fields.next()?.parse().ok()?;
            fields.next()?.split(',').any(|member| member == name).then_some(number)
        };
        let groups = groups.lines().filter_map(of_member).chain([gid]).collect();
        (uid != 0).then_some(Self { name, uid, groups })
    }

    /// What keeps it from reading `file`: a folder on the way, or the file itself. None of a file
    /// that is not there.
    fn obstacle(&self, file: &Path) -> Option<PathBuf> {
        // Certificates are often links: there are two ways to go.
        let real = fs::canonicalize(file).ok()?;
        let folders = [file, &real].into_iter().flat_map(|path| path.ancestors().skip(1));
        let mut folders: Vec<&Path> = folders.filter(|path| path.is_absolute()).collect();
        folders.sort_unstable();
        let closed = folders.into_iter().find(|folder| !self.may(folder, ENTER));
        match closed {
            Some(folder) => Some(folder.to_owned()),
            None => (!self.may(&real, READ)).then(|| file.to_owned()),
        }
    }

    fn may(&self, path: &Path, right: u32) -> bool {
        let Ok(found) = fs::metadata(path) else { return true };
        let class = if found.uid() == self.uid {
            6
        } else if self.groups.contains(&found.gid()) {
            3
        } else {
            0
        };
        found.mode() >> class & right != 0
    }
}

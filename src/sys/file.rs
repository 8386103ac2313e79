//! Files that must be whole or absent.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::Path;

use rustix::process::geteuid;

/// [`replace`] with mode 0600.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace(path, bytes, 0o600)
}

/// Replaces the file at `path` by one of this mode that holds `bytes`: written beside it, forced to
/// the disk, renamed over it, the directory forced to the disk. A reader sees the old file or the
/// new one, and so does the next start after a power cut. Root writes it for the owner of the
/// directory ([`give_to_owner_of`]).
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // With its mode from its first moment: nobody reads a key meanwhile.
    let mut temporary = tempfile::Builder::new()
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(directory)?;
    temporary.write_all(bytes)?;
    give_to_owner_of(directory, temporary.as_file())?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}

/// Gives a file that root has just made in `directory` to the owner of that: a command of root's
/// may make a file for a server that runs as somebody else. Root without CAP_CHOWN, as the
/// supervisor in its sandbox, keeps it, and can read it.
pub fn give_to_owner_of(directory: &Path, file: &File) -> io::Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(directory)?;
    match fchown(file, Some(owner.uid()), Some(owner.gid())) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result,
    }
}

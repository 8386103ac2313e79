//! Files that must be whole or absent, and private.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

/// Replaces the file at `path` by one of mode 0600 that holds `bytes`: written beside it, forced
/// to the disk, renamed over it, the directory forced to the disk. A reader sees the old file or
/// the new one, and so does the next start after a power cut.
pub fn replace_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // A temporary file of this crate is 0600 from its first moment.
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    temporary.persist(path)?;
    File::open(directory)?.sync_all()
}

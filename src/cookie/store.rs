//! The key file in the state directory.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{FlockOperation, flock};
use zeroize::Zeroizing;

use super::ntskeys::{self, ParseError};
use super::ring::KeyRing;
use super::rotation::age_at_load;
use crate::aead::{Algorithm, NonceGenerator};
use crate::sys::file;

/// Name of the file, as chrony names it.
pub const FILE_NAME: &str = "ntskeys";

/// Locked by whoever may write the key file. A file of its own, since the key file is replaced.
const LOCK_NAME: &str = "ntskeys.lock";

/// Why the master keys cannot be had or kept.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file is there and cannot be read.
    #[error(
        "cannot read the master keys in {}: {source}; give its owner to the user that runs \
         timeball",
        path.display()
    )]
    Read {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not there, and nobody here is to make it.
    #[error(
        "there are no master keys in {}: put the file of the program that makes them there, or \
         set keys.rotate = \"self\"",
        path.display()
    )]
    Missing {
        /// The key file.
        path: PathBuf,
    },
    /// The file is there and is no `ntskeys`.
    #[error(
        "the master keys in {} are damaged: {source}; restore the file, or move it away to start \
         with new keys (clients then fetch new cookies)",
        path.display()
    )]
    Damaged {
        /// The key file.
        path: PathBuf,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A new file cannot be written.
    #[error(
        "cannot write the master keys to {}: {source}; make the directory writable for the user \
         that runs timeball, and free space on its disk",
        path.display()
    )]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Somebody else has replaced the file, which is not overwritten.
    #[error(
        "the master keys in {} were replaced by another program and stay as they are; restart \
         timeball to use them, or move the file away to keep the keys in use (to have another \
         program replace them for good, set keys.rotate = \"external\")",
        path.display()
    )]
    Replaced {
        /// The key file.
        path: PathBuf,
    },
    /// Another process may write the file.
    #[error(
        "the master keys in {} are in use by a running timeball; stop it first, or name another \
         state directory",
        directory.display()
    )]
    Locked {
        /// The state directory.
        directory: PathBuf,
    },
}

/// A ring and how old its newest key is.
#[derive(Debug)]
pub struct Loaded {
    /// The four keys.
    pub ring: KeyRing,
    /// Age of the newest.
    pub age: Duration,
    /// Which file it was.
    pub stamp: Stamp,
}

/// Tells one version of a file from another: replaced or rewritten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl From<fs::Metadata> for Stamp {
    fn from(metadata: fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

/// The right to write the key file; given back when dropped, or by the kernel when the process
/// ends in whatever way.
#[derive(Debug)]
pub struct WriteLock {
    _file: File,
}

/// The key file of a state directory.
#[derive(Clone, Debug)]
pub struct KeyFile {
    directory: PathBuf,
    path: PathBuf,
}

impl KeyFile {
    /// The one in `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), path: directory.join(FILE_NAME) }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes the right to write it, without waiting.
    pub fn lock(&self) -> Result<WriteLock, StoreError> {
        let write = |source| StoreError::Write { path: self.path.clone(), source };
        let file = self.lock_file().map_err(write)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(WriteLock { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => {
                Err(StoreError::Locked { directory: self.directory.clone() })
            }
            Err(error) => Err(write(error.into())),
        }
    }

    /// The file that is locked. Only one that is made here is given away: another may be a link to
    /// a file that is root's.
    fn lock_file(&self) -> io::Result<File> {
        let path = self.directory.join(LOCK_NAME);
        // Whoever can open it can lock it.
        let made = File::options().write(true).create_new(true).mode(0o600).open(&path);
        match made {
            Ok(file) => {
                file::give_to_owner_of(&self.directory, &file)?;
                Ok(file)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                File::options().write(true).open(&path)
            }
            Err(error) => Err(error),
        }
    }

    /// Which version is there now; `None` without one.
    pub fn stamp(&self) -> Result<Option<Stamp>, StoreError> {
        match fs::metadata(&self.path) {
            Ok(metadata) => Ok(Some(metadata.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(StoreError::Read { path: self.path.clone(), source }),
        }
    }

    /// Reads it.
    pub fn load(&self) -> Result<Loaded, StoreError> {
        load_from(&self.path)
    }

    /// Reads it, or makes a ring of `algorithm` and writes it if there is none. A file that cannot
    /// be read is an error and stays as it is: overwriting it would make every cookie out there
    /// useless.
    pub fn load_or_create(
        &self,
        algorithm: Algorithm,
        random: &mut NonceGenerator,
    ) -> Result<Loaded, StoreError> {
        match self.load() {
            Err(StoreError::Missing { .. }) => {
                let ring = KeyRing::generate(algorithm, |bytes| random.fill(bytes));
                let stamp = self.save(&ring, Duration::ZERO, None)?;
                Ok(Loaded { ring, age: Duration::ZERO, stamp })
            }
            loaded => loaded,
        }
    }

    /// Writes this ring to it, whose newest key has this age, as [`KeyFile::replace`] does.
    pub fn save(
        &self,
        ring: &KeyRing,
        age: Duration,
        known: Option<Stamp>,
    ) -> Result<Stamp, StoreError> {
        self.replace(&ntskeys::emit(ring, age.as_secs_f64()), known)
    }

    /// Writes `text` to it, if it is still the version `known` (`None`: if there is none). Who
    /// calls this holds the lock.
    pub fn replace(&self, text: &str, known: Option<Stamp>) -> Result<Stamp, StoreError> {
        // A file that is gone can be written again; nothing is lost by it.
        if self.stamp()?.is_some_and(|found| Some(found) != known) {
            return Err(StoreError::Replaced { path: self.path.clone() });
        }
        let write = |source| StoreError::Write { path: self.path.clone(), source };
        file::replace_private(&self.path, text.as_bytes()).map_err(write)?;
        Ok(fs::metadata(&self.path).map_err(write)?.into())
    }

    /// Gives it a second name, under which it stays when it is replaced; returns that name, `None`
    /// if there is no file.
    pub fn keep_copy(&self) -> Result<Option<PathBuf>, StoreError> {
        for number in 1.. {
            let copy = self.path.with_extension(format!("old-{number}"));
            match fs::hard_link(&self.path, &copy) {
                Ok(()) => return Ok(Some(copy)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(source) => return Err(StoreError::Write { path: copy, source }),
            }
        }
        Ok(None)
    }
}

/// Reads a key file, wherever it is.
pub fn load_from(path: &Path) -> Result<Loaded, StoreError> {
    let (text, metadata) = read(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => StoreError::Missing { path: path.to_owned() },
        _ => StoreError::Read { path: path.to_owned(), source },
    })?;
    let read = ntskeys::parse(&text)
        .map_err(|source| StoreError::Damaged { path: path.to_owned(), source })?;
    let stored = Duration::try_from_secs_f64(read.age_seconds).unwrap_or(Duration::MAX);
    let now = SystemTime::now();
    // Where the file system keeps no time of writing, the file's own age has to do.
    let age = age_at_load(stored, metadata.modified().unwrap_or(now), now);
    Ok(Loaded { ring: read.ring, age, stamp: metadata.into() })
}

/// Text and metadata of the same file, whoever replaces it meanwhile.
fn read(path: &Path) -> io::Result<(Zeroizing<String>, fs::Metadata)> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    // Reserved in full: a growing string would leave copies of keys behind.
    let mut text = Zeroizing::new(String::with_capacity(metadata.len() as usize + 1));
    file.read_to_string(&mut text)?;
    Ok((text, metadata))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn random() -> NonceGenerator {
        NonceGenerator::from_seed(&[1; 32])
    }

    const ALGORITHM: Algorithm = Algorithm::AesSivCmac256;

    #[test]
    fn c076_a_ring_survives_a_restart_in_a_file_of_mode_0600() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeyFile::in_directory(directory.path());
        let first = file.load_or_create(ALGORITHM, &mut random()).expect("made anew");
        let mode = fs::metadata(file.path()).expect("the file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let mut other_seed = NonceGenerator::from_seed(&[2; 32]);
        let second = file.load_or_create(ALGORITHM, &mut other_seed).expect("read back");
        assert_eq!(first.stamp, second.stamp);
        for (before, after) in first.ring.keys().iter().zip(second.ring.keys()) {
            assert_eq!(before.id(), after.id());
            assert_eq!(before.expose_bytes(), after.expose_bytes());
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeyFile::in_directory(directory.path());
        let whole = file.load_or_create(ALGORITHM, &mut random()).expect("made anew");
        let text = fs::read_to_string(file.path()).expect("the file");
        for bytes in 0..text.trim_end().len() {
            fs::write(file.path(), &text[..bytes]).expect("written");
            let error = file.load_or_create(ALGORITHM, &mut random()).expect_err("cut off");
            assert!(error.to_string().contains("are damaged"), "{error}");
            assert_eq!(fs::read_to_string(file.path()).expect("still there"), text[..bytes]);
            let error = file.save(&whole.ring, Duration::ZERO, Some(whole.stamp));
            assert!(matches!(error, Err(StoreError::Replaced { .. })), "{error:?}");
        }
    }

    /// The age goes on from the key's creation: what is stored and the time since.
    #[test]
    fn the_age_counts_from_the_creation_of_the_newest_key() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeyFile::in_directory(directory.path());
        let ring = KeyRing::generate(ALGORITHM, |bytes| random().fill(bytes));
        file.save(&ring, Duration::from_secs(500), None).expect("written");
        let written = SystemTime::now() - Duration::from_secs(1000);
        File::open(file.path()).expect("open").set_modified(written).expect("set");
        let age_seconds = file.load().expect("read").age.as_secs();
        assert!((1500..1600).contains(&age_seconds), "{age_seconds}");
    }

    #[test]
    fn one_process_at_a_time_may_write() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeyFile::in_directory(directory.path());
        let lock = file.lock().expect("free");
        assert!(matches!(file.lock(), Err(StoreError::Locked { .. })));
        drop(lock);
        file.lock().expect("free again");
    }

    #[test]
    fn a_replaced_file_stays_under_a_new_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = KeyFile::in_directory(directory.path());
        assert_eq!(file.keep_copy().expect("nothing to do"), None);
        for number in 1..3 {
            file::replace_private(file.path(), &[number]).expect("written");
            let copy = file.keep_copy().expect("linked").expect("there was one");
            assert_eq!(copy, directory.path().join(format!("ntskeys.old-{number}")));
            file::replace_private(file.path(), &[0]).expect("written");
            assert_eq!(fs::read(copy).expect("there"), [number]);
        }
    }
}

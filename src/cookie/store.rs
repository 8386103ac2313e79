//! The key file in the state directory.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::ntskeys::{self, Ntskeys, ParseError};
use super::ring::KeyRing;
use crate::aead::{Algorithm, NonceGenerator};
use crate::sys::file;

/// Name of the file, as chrony names it.
const FILE_NAME: &str = "ntskeys";

/// Why the master keys cannot be had.
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
         that runs timeball",
        path.display()
    )]
    Write {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The ring kept in `directory`, made anew and kept there if there is none. A file that cannot be
/// read is an error and stays as it is: overwriting it would make every cookie out there useless.
pub fn load_or_create(
    directory: &Path,
    algorithm: Algorithm,
    random: &mut NonceGenerator,
) -> Result<KeyRing, StoreError> {
    let path = directory.join(FILE_NAME);
    match fs::read_to_string(&path).map(Zeroizing::new) {
        Ok(text) => match ntskeys::parse(&text) {
            Ok(Ntskeys { ring, .. }) => Ok(ring),
            Err(source) => Err(StoreError::Damaged { path, source }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let ring = KeyRing::generate(algorithm, |bytes| random.fill(bytes));
            match file::replace_private(&path, ntskeys::emit(&ring, 0.0).as_bytes()) {
                Ok(()) => Ok(ring),
                Err(source) => Err(StoreError::Write { path, source }),
            }
        }
        Err(source) => Err(StoreError::Read { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn random() -> NonceGenerator {
        NonceGenerator::from_seed(&[1; 32])
    }

    #[test]
    fn c076_a_ring_survives_a_restart_in_a_file_of_mode_0600() {
        let directory = tempfile::tempdir().expect("a directory");
        let first = load_or_create(directory.path(), Algorithm::AesSivCmac256, &mut random())
            .expect("made anew");
        let path = directory.path().join(FILE_NAME);
        let mode = fs::metadata(&path).expect("the file").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let mut other_seed = NonceGenerator::from_seed(&[2; 32]);
        let second = load_or_create(directory.path(), Algorithm::AesSivCmac256, &mut other_seed)
            .expect("read back");
        for (before, after) in first.keys().iter().zip(second.keys()) {
            assert_eq!(before.id(), after.id());
            assert_eq!(before.expose_bytes(), after.expose_bytes());
        }
    }

    #[test]
    fn a_damaged_file_is_an_error_and_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join(FILE_NAME);
        fs::write(&path, "NKS1\n").expect("written");
        let error = load_or_create(directory.path(), Algorithm::AesSivCmac256, &mut random())
            .expect_err("damaged");
        assert!(error.to_string().contains("are damaged"), "{error}");
        assert_eq!(fs::read_to_string(&path).expect("still there"), "NKS1\n");
    }
}

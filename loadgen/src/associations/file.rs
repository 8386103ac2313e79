//! Associations in a file, so that a run need not ask for them again.
//!
//! The file holds keys: it is written with mode 0600, and one that others can read is refused.
//!
//! ```text
//! "timeball-load associations 1\n" | one line of JSON | keys | jars | cookies
//! ```

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use timeball::aead::Algorithm;
use timeball::limits::{COOKIE_BYTES_MAX, COOKIE_BYTES_MULTIPLE, COOKIES_PER_REPLY};
use timeball::sys::file::replace_private;
use zeroize::Zeroizing;

use super::{Associations, Jar, MemoryError};
use crate::limits::CLIENTS;

/// Associations and the server that they are with.
pub struct Saved {
    /// Its NTP service.
    pub server: SocketAddr,
    /// Keys and cookies.
    pub associations: Associations,
}

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read the associations in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("cannot save the associations to {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others than its owner may use it.
    #[error("others can read the keys in {0}: run `chmod 600 {0}`, if they may be trusted still")]
    Open(PathBuf),
    /// It is something else, or damaged.
    #[error("{0} holds no associations, or damaged ones: make them anew with --save")]
    Damaged(PathBuf),
    /// It does not fit.
    #[error(transparent)]
    Memory(#[from] MemoryError),
}

#[derive(Serialize, Deserialize)]
struct Head {
    server: SocketAddr,
    aead: u16,
    cookie_bytes: usize,
    depth: usize,
    clients: usize,
}

impl Saved {
    /// Writes the file, mode 0600, whole or not at all.
    pub fn save(&self, path: &Path) -> Result<(), FileError> {
        let all = &self.associations;
        let head = Head {
            server: self.server,
            aead: all.algorithm.id(),
            cookie_bytes: all.cookie_bytes,
            depth: all.depth,
            clients: all.len(),
        };
        let head = serde_json::to_string(&head).expect("plain data");
        let length = all.keys.len() + 2 * all.jars.len() + all.cookies.len();
        let mut bytes = Zeroizing::new(Vec::with_capacity(MAGIC.len() + head.len() + 1 + length));
        bytes.extend_from_slice(MAGIC.as_bytes());
        bytes.extend_from_slice(head.as_bytes());
        bytes.push(b'\n');
        bytes.extend_from_slice(&all.keys);
        bytes.extend(all.jars.iter().flat_map(|jar| [jar.first, jar.count]));
        bytes.extend_from_slice(&all.cookies);
        replace_private(path, &bytes)
            .map_err(|source| FileError::Write { path: path.to_owned(), source })
    }

    /// Reads it back.
    pub fn load(path: &Path) -> Result<Self, FileError> {
        let read_error = |source| FileError::Read { path: path.to_owned(), source };
        let damaged = || FileError::Damaged(path.to_owned());
        let file = File::open(path).map_err(read_error)?;
        let metadata = file.metadata().map_err(read_error)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(FileError::Open(path.to_owned()));
        }
        let mut file = BufReader::new(file.take(metadata.len()));
        let mut line = String::new();
        for expected in [Some(MAGIC), None] {
            line.clear();
            file.read_line(&mut line).map_err(|_| damaged())?;
            if expected.is_some_and(|expected| expected != line) {
                return Err(damaged());
            }
        }
        let head: Head = serde_json::from_str(&line).map_err(|_| damaged())?;
        let mut associations = head.room().ok_or_else(damaged)??;
        let mut jars = vec![0; 2 * head.clients];
        for place in [&mut associations.keys, &mut jars, &mut associations.cookies] {
            file.read_exact(place).map_err(|_| damaged())?;
        }
        for (jar, bytes) in associations.jars.iter_mut().zip(jars.chunks_exact(2)) {
            *jar = Jar { first: bytes[0], count: bytes[1] };
            if usize::from(jar.first) >= head.depth || usize::from(jar.count) > head.depth {
                return Err(damaged());
            }
        }
        match file.read(&mut [0]) {
            Ok(0) => Ok(Self { server: head.server, associations }),
            _ => Err(damaged()),
        }
    }
}

impl Head {
    /// Room for what the head promises; `None` if no such associations can be.
    fn room(&self) -> Option<Result<Associations, MemoryError>> {
        let algorithm = Algorithm::from_id(self.aead)?;
        let is_possible = (1..=COOKIES_PER_REPLY).contains(&self.depth)
            && (1..=COOKIE_BYTES_MAX).contains(&self.cookie_bytes)
            && self.cookie_bytes.is_multiple_of(COOKIE_BYTES_MULTIPLE)
            && CLIENTS.contains(&self.clients);
        is_possible
            .then(|| Associations::empty(algorithm, self.cookie_bytes, self.depth, self.clients))
    }
}

const MAGIC: &str = "timeball-load associations 1\n";

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt as _;

    use timeball::aead::NonceGenerator;
    use timeball::cookie::ring::KeyRing;

    use super::*;
    use crate::associations::mint;
    use crate::plan::CookieUse;

    fn saved() -> Saved {
        let mut random = NonceGenerator::from_seed(&[8; 32]);
        let ring = KeyRing::generate(Algorithm::AesSivCmac256, |bytes| random.fill(bytes));
        let mut associations =
            mint(&ring, Algorithm::AesSivCmac256, 10, 3, &mut random).expect("memory");
        associations.take_cookie(4, CookieUse::Renew);
        Saved { server: ([127, 0, 0, 1], 11_123).into(), associations }
    }

    #[test]
    fn what_is_saved_is_loaded_and_nobody_else_may_read_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("associations");
        let before = saved();
        before.save(&path).expect("written");
        let mode = std::fs::metadata(&path).expect("a file").mode();
        assert_eq!(mode & 0o7777, 0o600);
        let after = Saved::load(&path).expect("read");
        assert_eq!(after.server, before.server);
        let (before, after) = (&before.associations, &after.associations);
        assert_eq!((&after.keys, &after.cookies), (&before.keys, &before.cookies));
        assert_eq!((&after.jars, after.algorithm), (&before.jars, before.algorithm));
        assert_eq!(after.cookies_left(), 29);

        set_permissions(&path, Permissions::from_mode(0o640)).expect("ours");
        assert!(matches!(Saved::load(&path), Err(FileError::Open(_))));
    }

    #[test]
    fn damage_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("associations");
        saved().save(&path).expect("written");
        let good = std::fs::read(&path).expect("readable");
        let tampered = |from: &str, to: &str| {
            let at = good.windows(from.len()).position(|bytes| bytes == from.as_bytes());
            let at = at.expect("in the head");
            [&good[..at], to.as_bytes(), &good[at + from.len()..]].concat()
        };
        for (what, bytes) in [
            ("short", good[..good.len() - 1].to_vec()),
            ("long", [&good[..], &[0]].concat()),
            ("empty", Vec::new()),
            ("magic", tampered("associations 1", "associations 2")),
            ("algorithm", tampered("\"aead\":15", "\"aead\":16")),
            ("no clients", tampered("\"clients\":10", "\"clients\":0")),
            ("more clients", tampered("\"clients\":10", "\"clients\":11")),
            ("depth", tampered("\"depth\":3", "\"depth\":9")),
        ] {
            replace_private(&path, &bytes).expect("written");
            assert!(matches!(Saved::load(&path), Err(FileError::Damaged(_))), "{what}");
        }
        assert!(matches!(Saved::load(&directory.path().join("none")), Err(FileError::Read { .. })));
    }
}
